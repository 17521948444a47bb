"""
Threads of the operating system and waiting for them, also where gevent has put its own in their place.

A greenlet that exports would stand still while the program computes, and could not be waited for where gevent runs
signal handlers: in its hub. `_queue` and `_thread.RLock` are what gevent leaves alone.
"""

from __future__ import annotations

import _thread
import sys
import threading
from _queue import Empty, SimpleQueue
from _thread import RLock
from typing import TYPE_CHECKING, Final, Protocol, final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Empty", "Event", "RLock", "Running", "SimpleQueue", "run_aside", "start_thread"]


@final
class Event:
    """A `threading.Event` that a signal handler may set and wait for, whatever it has interrupted."""

    __slots__ = ("_is_set", "_marks")

    def __init__(self) -> None:
        self._is_set = False
        self._marks: Final[SimpleQueue[None]] = SimpleQueue()

    def set(self) -> None:
        """Wake all who wait, now and later."""
        self._is_set = True
        self._marks.put(None)

    def is_set(self) -> bool:
        """Tell whether `set` has been called."""
        return self._is_set

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for `set`; tells whether it was called in time."""
        if self._is_set:
            return True
        try:
            self._marks.get(timeout=None if timeout_s is None else min(max(0.0, timeout_s), threading.TIMEOUT_MAX))
        except Empty:
            return False
        self._marks.put(None)  # for the next one
        return True


class Running(Protocol):
    """A thread that has been started."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        ...


@final
class _Aside:
    """A thread that `threading` knows nothing of."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done: Final = Event()

    def run(self, job: Callable[[], None]) -> None:
        try:
            job()
        finally:
            self._done.set()

    def join(self, timeout: float | None = None) -> None:
        self._done.wait(timeout)


def start_thread(job: Callable[[], None], name: str) -> Running | None:
    """Run *job* on a daemon thread called *name*; None where none is to be had, because the interpreter goes down."""
    if _is_patched():
        return run_aside(job)
    try:
        thread = threading.Thread(target=job, name=name, daemon=True)
        thread.start()
    except RuntimeError:
        return None
    return thread


def run_aside(job: Callable[[], None]) -> Running | None:
    """
    Run *job* on a thread without asking `threading`, for signal handlers.

    The main thread, which is in the handler, may hold the lock that `Thread.start` waits for on the new thread.
    """
    monkey = sys.modules.get("gevent.monkey")
    start = _thread.start_new_thread if monkey is None else monkey.get_original("_thread", "start_new_thread")
    aside = _Aside()
    try:
        start(aside.run, (job,))
    except RuntimeError:
        return None
    return aside


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))
