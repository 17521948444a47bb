"""The spans of a running receiver, in SQLite: bounded, the oldest traces leave first."""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from tracekit.errors import TracekitError
from tracekit.view.rows import resource_row, span_row, to_json

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from tracekit.export.record import SpanRecord

_VERSION: Final = 1
# "tkit": tells our files from other people's databases.
_APPLICATION_ID: Final = 0x746B6974
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS spans (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of arrival; never used again
    trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL,
    resource INTEGER NOT NULL,
    row TEXT NOT NULL,
    UNIQUE (trace_id, span_id)
);
CREATE TABLE IF NOT EXISTS resources (id INTEGER PRIMARY KEY, row TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS epoch (name TEXT NOT NULL);
"""
_MAX_BYTES: Final = 256 * 1024 * 1024
_CHUNK_SPANS: Final = 2_000
_CHUNK_BYTES: Final = 4 * 1024 * 1024
_MAX_IDLE_RESOURCES: Final = 1_000


class StoreError(TracekitError):
    """A file that cannot be used as the database."""


@final
@dataclass(frozen=True, slots=True)
class Chunk:
    """
    Spans in the order of their arrival, as JSON.

    Args:
        epoch: Another one means: forget what you have, these are the first.
        next: Where the next chunk begins.
        spans: Their rows.
        resources: The resources of these spans, each as `[number, row]`.
        more: Whether there is a next chunk already.
    """

    epoch: str
    next: int
    spans: Sequence[str]
    resources: Sequence[str]
    more: bool

    def to_json(self) -> bytes:
        """Return the chunk as the page reads it."""
        more = "true" if self.more else "false"
        spans, resources = ",".join(self.spans), ",".join(self.resources)
        head = f'"epoch":{to_json(self.epoch)},"next":{self.next},"more":{more}'
        return f'{{{head},"resources":[{resources}],"spans":[{spans}]}}'.encode("ascii")


@final
class Store:
    """
    The spans; safe to use from several threads.

    Args:
        path: The database, made if missing, for its owner alone; None: in memory.
        max_spans: How many spans to keep.
        max_bytes: How much of their text to keep.

    Raises:
        StoreError: The file is something else, or cannot be written.
    """

    def __init__(self, path: Path | None = None, *, max_spans: int = 50_000, max_bytes: int = _MAX_BYTES) -> None:
        self._max_spans, self._max_bytes = max_spans, max_bytes
        self._lock = threading.Lock()
        self._database = _open(path)
        self._epoch = self._first_epoch()
        self._spans = self._bytes = 0
        self._count()
        with self._changing():
            self._forget_the_oldest()

    @property
    def counts(self) -> tuple[int, int]:
        """How many spans and traces there are."""
        with self._lock:
            (traces,) = self._database.execute("SELECT count(DISTINCT trace_id) FROM spans").fetchone()
            return self._spans, traces

    def add(self, spans: Sequence[SpanRecord]) -> None:
        """Keep *spans*; one that is there already, which an exporter has sent twice, stays as it is."""
        with self._changing():
            numbers: dict[int, int] = {}
            for span in spans:
                # Spans of one request share the object, which lives as long as they do.
                number = numbers.get(id(span.resource))
                if number is None:
                    number = numbers[id(span.resource)] = self._number_of(to_json(resource_row(span)))
                row = to_json(span_row(span, number))
                added = self._database.execute(
                    "INSERT OR IGNORE INTO spans (trace_id, span_id, resource, row) VALUES (?, ?, ?, ?)",
                    (span.trace_id, span.span_id, number, row),
                ).rowcount
                self._spans += added
                self._bytes += len(row) if added else 0
            self._forget_the_oldest()

    def after(self, seq: int, epoch: str) -> Chunk:
        """Return what has come after *seq* in *epoch*."""
        with self._lock:
            start = seq if epoch == self._epoch else 0
            rows: list[str] = []
            resources: set[int] = set()
            size, more = 0, False
            found = self._database.execute(
                "SELECT seq, resource, row FROM spans WHERE seq > ? ORDER BY seq LIMIT ?", (start, _CHUNK_SPANS + 1)
            )
            for number, resource, row in found:
                if len(rows) == _CHUNK_SPANS or size > _CHUNK_BYTES:
                    more = True
                    break
                start = number
                rows.append(row)
                resources.add(resource)
                size += len(row)
            found.close()
            return Chunk(self._epoch, start, rows, [self._resource(number) for number in sorted(resources)], more)

    def clear(self) -> None:
        """Forget all spans."""
        with self._changing():
            self._database.execute("DELETE FROM spans")
            self._database.execute("DELETE FROM resources")
            self._database.execute("DELETE FROM epoch")
            self._epoch = self._first_epoch()
            self._spans = self._bytes = 0

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _changing(self) -> Generator[None, None, None]:
        """Let the block change the database: all that it does is done, or nothing."""
        with self._lock:
            try:
                with self._database:
                    yield
            except sqlite3.Error:
                with suppress(sqlite3.Error):
                    self._count()
                raise

    def _count(self) -> None:
        self._spans, self._bytes = self._database.execute(
            "SELECT count(*), ifnull(sum(length(row)), 0) FROM spans"
        ).fetchone()

    def _number_of(self, resource: str) -> int:
        self._database.execute("INSERT OR IGNORE INTO resources (row) VALUES (?)", (resource,))
        (number,) = self._database.execute("SELECT id FROM resources WHERE row = ?", (resource,)).fetchone()
        return int(number)

    def _resource(self, number: int) -> str:
        (row,) = self._database.execute("SELECT row FROM resources WHERE id = ?", (number,)).fetchone()
        return f"[{number},{row}]"

    def _first_epoch(self) -> str:
        found = self._database.execute("SELECT name FROM epoch").fetchone()
        if found is not None:
            return str(found[0])
        name = secrets.token_hex(8)
        self._database.execute("INSERT INTO epoch VALUES (?)", (name,))
        self._database.commit()
        return name

    def _forget_the_oldest(self) -> None:
        if self._spans <= self._max_spans and self._bytes <= self._max_bytes:
            return
        while self._spans and (self._spans > self._max_spans or self._bytes > self._max_bytes):
            self._forget_a_trace()
        (resources,) = self._database.execute("SELECT count(*) FROM resources").fetchone()
        if resources > _MAX_IDLE_RESOURCES:
            self._database.execute("DELETE FROM resources WHERE id NOT IN (SELECT resource FROM spans)")

    def _forget_a_trace(self) -> None:
        (oldest,) = self._database.execute("SELECT trace_id FROM spans ORDER BY seq LIMIT 1").fetchone()
        # A trace that fills all by itself loses its first spans.
        spans, size = self._database.execute(
            "SELECT count(*), sum(length(row)) FROM spans WHERE trace_id = ?", (oldest,)
        ).fetchone()
        if spans < self._spans:
            self._database.execute("DELETE FROM spans WHERE trace_id = ?", (oldest,))
        else:
            (until,) = self._database.execute(
                "SELECT max(seq) FROM (SELECT seq FROM spans ORDER BY seq LIMIT ?)", (spans // 10 + 1,)
            ).fetchone()
            spans, size = self._database.execute(
                "SELECT count(*), sum(length(row)) FROM spans WHERE seq <= ?", (until,)
            ).fetchone()
            self._database.execute("DELETE FROM spans WHERE seq <= ?", (until,))
        self._spans -= spans
        self._bytes -= size


def _open(path: Path | None) -> sqlite3.Connection:
    try:
        if path is not None:
            # Traces may hold personal data: what this makes, its owner alone may read.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        # One connection, behind a lock.
        database = sqlite3.connect(":memory:" if path is None else path, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        msg = f"cannot open the database {path}: {reason}"
        raise StoreError(msg) from error
    try:
        _prepare(database)
    except (sqlite3.Error, StoreError) as error:
        database.close()
        msg = f"{path} cannot be used as the database ({error}); write --db with the name of a new file"
        raise StoreError(msg) from error
    return database


def _prepare(database: sqlite3.Connection) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and (application != _APPLICATION_ID or version != _VERSION):
        msg = "it holds something else"
        raise StoreError(msg)
    database.execute("PRAGMA journal_mode = WAL")
    # A crash of the machine may cost the last second; a crash of this process nothing.
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {_VERSION}")
    database.executescript(_SCHEMA)
