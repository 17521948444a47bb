"""The file of the spool: opened for its owner only, never held across a fork, set aside when it is damaged."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, final

from tracekit._diagnostics import report_failure
from tracekit._fork import around_fork
from tracekit._threads import RLock

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# How long one process waits for the writing of another.
_BUSY_S: Final = 2.0
_MAX_JOURNAL_BYTES: Final = 4 * 1024 * 1024
# What values raise that are not of the kind, or not in the range, that we write.
_NOT_OURS: Final = (TypeError, ValueError, OverflowError)
# How SQLite calls it, where it does not say that the file is malformed or no database.
_DAMAGE: Final = ("no such", "unsupported file format", "decode to UTF-8")


@final
class Database:
    """
    One connection, which one thread at a time uses; whoever finds the file damaged or gone begins a new one.

    No connection crosses a fork: a child that closed it would spoil the file under its parent.

    Args:
        path: The file; its directory is made if missing.
        schema: What makes the tables, if they are not there.
        on_new_file: Called when there is another file than before.
    """

    def __init__(self, path: Path, schema: str, on_new_file: Callable[[], object]) -> None:
        self.path: Final = path
        self._schema: Final = schema
        self._on_new_file: Final = on_new_file
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._is_closed = False
        around_fork(self._before_fork, self._in_parent, self._in_child)

    def _before_fork(self) -> None:
        self._lock.acquire()
        self.disconnect()

    def _in_parent(self) -> None:
        self._lock.release()

    def _in_child(self) -> None:
        self._lock = RLock()

    @property
    def damaged(self) -> Path:
        """Where a damaged file is set aside; one is kept, for whoever wants to know."""
        return self.path.with_name(f"{self.path.name}.damaged")

    def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """
        Run *job* in a transaction.

        Raises:
            OSError: If the file cannot be opened.
            sqlite3.Error: If it cannot be written, or is busy.
        """
        with self._lock:
            try:
                return self._transact(job)
            except (sqlite3.DatabaseError, *_NOT_OURS) as error:
                if not _is_damage(error):
                    raise
                report_failure("spool", "reading its file, which was set aside,", error)
                self._set_aside()
                return self._transact(job)
            finally:
                if self._is_closed:
                    self.disconnect()

    def close(self) -> None:
        """Close the connection; from now on each job has one of its own."""
        with self._lock:
            self._is_closed = True
            self.disconnect()

    def _transact(self, job: Callable[[sqlite3.Connection], T]) -> T:
        database = self._connected()
        # A signal handler that comes in between finds a transaction begun, and goes without.
        database.execute("BEGIN IMMEDIATE")
        try:
            result = job(database)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        return result

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and not self._is_the_file():
            # Set aside by another process, or taken away.
            self.disconnect()
            self._on_new_file()
        if self._connection is None:
            self._connection = _open(self.path, self._schema)
            self._inode = self.path.stat().st_ino
        return self._connection

    def _is_the_file(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def disconnect(self) -> None:
        """Close the connection until the next job."""
        database, self._connection = self._connection, None
        if database is not None:
            # An error means that the file is damaged, which is found out when it is next opened.
            with suppress(sqlite3.Error):
                database.close()

    def _set_aside(self) -> None:
        """Move a damaged file away."""
        is_the_file = self._connection is None or self._is_the_file()
        self.disconnect()
        self._on_new_file()
        if not is_the_file:
            return  # another process was first
        for end in ("-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        self.path.replace(self.damaged)


def _open(path: Path, schema: str) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made here, for SQLite gives its files the mode of the first.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    # In any thread: one at a time, by the lock.
    database = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(database, schema)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, schema: str) -> None:
    # Before there is a table; gives pages back when the backlog is gone.
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    deadline_s = time.monotonic() + _BUSY_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            # Another process does the same, and here SQLite does not wait.
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)
    # Safe from crashes of the process; a crash of the machine may cost the last batches, never the file.
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(f"PRAGMA journal_size_limit = {_MAX_JOURNAL_BYTES}")
    database.execute("BEGIN IMMEDIATE")
    for statement in schema.split(";"):
        database.execute(statement)
    database.execute("COMMIT")


def _is_damage(error: Exception) -> bool:
    # A malformed file, one that is no database, one without our tables, or values that we have not written.
    if isinstance(error, _NOT_OURS):
        return True
    return type(error) is sqlite3.DatabaseError or any(words in str(error) for words in _DAMAGE)
