"""
Batches on disk that could not be sent: bounded, shared by the processes of one machine, whole after any crash.

SQLite in WAL mode: a transaction is there as a whole or not at all.
"""

from __future__ import annotations

import errno
import os
import platform
import sqlite3
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar, final

from tracekit._diagnostics import report_failure
from tracekit._fork import in_forked_child
from tracekit.errors import ConfigurationError
from tracekit.export.database import Database
from tracekit.export.otlp import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024
DEFAULT_MAX_AGE_S: Final = 24 * 3_600.0

FILE: Final = "spool.sqlite3"
_EXPORTED: Final = "exported"
_LONGEST_LEASE_S: Final = 3_600.0
_PAGES_TO_GIVE_BACK: Final = 256
_NO_ROOM: Final = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT, destination TEXT NOT NULL, origin TEXT NOT NULL, kept_at REAL NOT NULL,
    spans INTEGER NOT NULL, bytes INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS batches_by_destination ON batches (destination, id);
CREATE TABLE IF NOT EXISTS fates (
    origin TEXT NOT NULL, fate TEXT NOT NULL, spans INTEGER NOT NULL, seen_at REAL NOT NULL, PRIMARY KEY (origin, fate)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (destination TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL);
"""

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was kept, and whose it was."""

    id: int
    origin: str
    request: Request


@final
@dataclass(frozen=True, slots=True)
class Fates:
    """What has become of the spans that one pipeline has kept; *exported* and *lost* by whatever process."""

    spooled: int = 0
    exported: int = 0
    lost: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@final
class Spool:
    """
    The batches for one destination, in a directory that any number of processes may share.

    Where the bounds are reached the oldest batches go. A file that cannot be read is set aside and a new one begun.

    Args:
        directory: Where the database is; made, for its owner only, if missing.
        destination: What tells this receiver's batches from those of others.
        max_bytes: Bytes of all batches together.
        max_age_s: How long a batch is kept, in seconds.

    Raises:
        ConfigurationError: If the directory cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        destination: str,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_age_s: float = DEFAULT_MAX_AGE_S,
    ) -> None:
        self._destination: Final = destination
        self._max_bytes: Final = max_bytes
        self._max_age_s: Final = max_age_s
        self.on_kept: Callable[[], object] = bool
        self.database: Final = Database(directory / FILE, _SCHEMA, self._leave_file)
        self._is_closed = False
        self._begin()
        in_forked_child(self._begin)
        try:
            self.database.run(bool)
            self.database.disconnect()
        except (OSError, ValueError, sqlite3.Error) as error:
            if _may_pass(error):
                report_failure("spool", "opening its file", error)
                return
            reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
            msg = (
                f"spool={os.fspath(directory)!r}: spans cannot be kept there ({reason}); expected a directory that can "
                "be written to. Write spool=True for one in your home directory."
            )
            raise ConfigurationError(msg) from error

    def _begin(self) -> None:
        # Who holds a lease is looked for if it is of this machine.
        self._me = f"{platform.node()}/{os.getpid()}/{token_hex(8)}"
        # What has become of spans this pipeline has kept: in files set aside since, and in this one.
        self._before = Fates()
        self._fates = Fates()

    def add(self, requests: Sequence[Request]) -> bool:
        """Keep *requests*; tells whether they are on disk now, all of them or none."""
        size = sum(len(request.body) for request in requests)

        def insert(database: sqlite3.Connection) -> bool:
            self._make_room(database, size)
            now = time.time()
            database.executemany(
                "INSERT INTO batches (destination, origin, kept_at, spans, bytes, body) VALUES (?, ?, ?, ?, ?, ?)",
                [(self._destination, self._me, now, r.spans, len(r.body), r.body) for r in requests],
            )
            self._fates = self._read(database)
            return True

        if size > self._max_bytes or not self._try("keeping a batch", insert):
            return False
        self.on_kept()
        return True

    def claim(self, lease_s: float) -> Batch | None:
        """
        Return the oldest batch to send, unless another process is sending.

        Args:
            lease_s: How long no other process sends, in seconds, from now.
        """

        def take(database: sqlite3.Connection) -> Batch | None:
            self._make_room(database, 0)
            row = database.execute(
                "SELECT id, origin, body, spans FROM batches WHERE destination = ? ORDER BY id LIMIT 1",
                (self._destination,),
            ).fetchone()
            if row is None:
                database.execute("DELETE FROM leases WHERE holder = ?", (self._me,))
                if database.execute("PRAGMA freelist_count").fetchone()[0] > _PAGES_TO_GIVE_BACK:
                    database.execute("PRAGMA incremental_vacuum").fetchall()
                return None
            batch = Batch(row[0], row[1], Request(bytes(row[2]), int(row[3])))
            return batch if self._leases(database, lease_s) else None

        return self._try("reading a batch", take)

    def settle(self, batch: Batch, exported: int, lost: Mapping[str, int], rest: Request | None = None) -> None:
        """
        Take *batch* off the disk.

        Args:
            batch: What was claimed.
            exported: How many of its spans the receiver has taken.
            lost: How many are lost, by reason.
            rest: What stays to be sent another time.
        """

        def write(database: sqlite3.Connection) -> None:
            if rest is None:
                changed = database.execute("DELETE FROM batches WHERE id = ?", (batch.id,))
            else:
                changed = database.execute(
                    "UPDATE batches SET spans = ?, bytes = ?, body = ? WHERE id = ?",
                    (rest.spans, len(rest.body), rest.body, batch.id),
                )
            if changed.rowcount:  # else it was too old meanwhile, and is counted
                for fate, spans in {_EXPORTED: exported, **lost}.items():
                    self._note(database, batch.origin, fate, spans)
            self._fates = self._read(database)

        self._try("settling a batch", write)

    def release(self) -> None:
        """Let another process send."""

        def give_back(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM leases WHERE holder = ?", (self._me,))

        self._try("ending a lease", give_back)

    def fates(self, kept: int, *, fresh: bool = True) -> Fates:
        """
        Return what has become of the spans that were added here; it adds up to *kept*.

        Args:
            kept: How many were added, as the caller's books have it.
            fresh: Whether to ask the disk; else as it was when last asked.
        """
        if fresh and kept and not self._is_closed:
            self._try("counting", self._refresh)
        before, now = self._before, self._fates
        # The disk may be ahead of the caller's books for a moment.
        exported = min(kept, before.exported + now.exported)
        left = kept - exported
        lost: dict[str, int] = {}
        for reason, spans in (Counter(before.lost) + Counter(now.lost)).items():
            lost[reason] = min(spans, left)
            left -= lost[reason]
        spooled = min(now.spooled, left)
        if left > spooled:  # with the file that was set aside, or that somebody took away
            lost["spool_damaged"] = left - spooled
        return Fates(spooled, exported, lost)

    def close(self) -> None:
        """Close the database; what is in it stays."""
        self.release()
        self._try("counting", self._refresh)
        self._is_closed = True
        self.database.close()

    # --- inside a transaction ---

    def _make_room(self, database: sqlite3.Connection, size: int) -> None:
        """Drop what is too old, and as much of the oldest as *size* more bytes take."""
        now = time.time()
        self._drop(database, "spool_expired", "kept_at < ?", now - self._max_age_s)
        too_many = self._used_bytes(database) + size - self._max_bytes
        if too_many > 0:
            last = 0
            for number, stored in database.execute("SELECT id, bytes FROM batches ORDER BY id"):
                last = number
                too_many -= stored
                if too_many <= 0:
                    break
            self._drop(database, "spool_full", "id <= ?", last)
        # Those of processes that are long gone; this one is not.
        database.execute("UPDATE fates SET seen_at = ? WHERE origin = ?", (now, self._me))
        database.execute(
            "DELETE FROM fates WHERE seen_at < ? AND origin NOT IN (SELECT origin FROM batches)",
            (now - 2 * self._max_age_s,),
        )

    def _used_bytes(self, database: sqlite3.Connection) -> int:
        pages, free, size = (
            database.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _drop(self, database: sqlite3.Connection, reason: str, which: str, value: float) -> None:
        gone = database.execute(
            f"SELECT origin, sum(spans) FROM batches WHERE {which} GROUP BY origin",  # noqa: S608  # ours
            (value,),
        ).fetchall()
        for origin, spans in gone:
            self._note(database, origin, reason, spans)
        if gone:
            database.execute(f"DELETE FROM batches WHERE {which}", (value,))  # noqa: S608  # ours

    def _note(self, database: sqlite3.Connection, origin: str, fate: str, spans: int) -> None:
        if spans:
            database.execute(
                "INSERT INTO fates VALUES (?, ?, ?, ?)"
                " ON CONFLICT (origin, fate) DO UPDATE SET spans = spans + excluded.spans, seen_at = excluded.seen_at",
                (origin, fate, spans, time.time()),
            )

    def _leases(self, database: sqlite3.Connection, lease_s: float) -> bool:
        """Take the lease, or more of it; tells whether nobody else has it."""
        now = time.time()
        row = database.execute(
            "SELECT holder, until FROM leases WHERE destination = ?", (self._destination,)
        ).fetchone()
        holder, until = row or (self._me, now)
        # Further ahead than any lease: the clock was set back.
        if holder != self._me and now < until < now + _LONGEST_LEASE_S and not _is_gone(holder):
            return False
        database.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (self._destination, self._me, now + lease_s))
        return True

    def _refresh(self, database: sqlite3.Connection) -> None:
        self._fates = self._read(database)

    def _read(self, database: sqlite3.Connection) -> Fates:
        (spooled,) = database.execute("SELECT total(spans) FROM batches WHERE origin = ?", (self._me,)).fetchone()
        rows = database.execute("SELECT fate, spans FROM fates WHERE origin = ?", (self._me,)).fetchall()
        lost: dict[str, int] = {fate: int(spans) for fate, spans in rows}
        exported = lost.pop(_EXPORTED, 0)
        return Fates(int(spooled), exported, lost)

    def _try(self, what: str, job: Callable[[sqlite3.Connection], T]) -> T | None:
        """Run *job* in a transaction; where there is no way to, report it and return None."""
        try:
            return self.database.run(job)
        except (OSError, sqlite3.Error) as error:
            report_failure("spool", what, error)
            return None

    def _leave_file(self) -> None:
        """Go on with what is known of the spans that were in it."""
        before, now = self._before, self._fates
        lost = Counter(before.lost) + Counter(now.lost)
        self._before = Fates(0, before.exported + now.exported, lost)
        self._fates = Fates()


def _may_pass(error: Exception) -> bool:
    """Tell whether *error* is a full disk or another process that writes: no reason for a program not to start."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    return isinstance(error, sqlite3.OperationalError) and any(word in str(error) for word in ("locked", "is full"))


def _is_gone(holder: str) -> bool:
    """Tell whether the process that calls itself *holder* ran on this machine and is no more."""
    node, process, _ = holder.rsplit("/", 2)
    if os.name != "posix" or node != platform.node():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def default_directory() -> Path:
    """
    Return the directory for this user's spool.

    Raises:
        ConfigurationError: If the user has no home.

    Source: XDG Base Directory Specification, `XDG_STATE_HOME`.
    """
    state = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME", "")
    try:
        home = Path(state) if Path(state).is_absolute() else Path("~/.local/state").expanduser()
    except RuntimeError as error:
        msg = 'spool=True: expected a user with a home directory. Write spool="/var/lib/..." with a directory of yours.'
        raise ConfigurationError(msg) from error
    return home / "tracekit" / "spool"
