"""
What a span keeps its events and links in: bounded lists whose lock no thread waits for in vain.

The SDK's have a lock each that is not re-entrant: a signal handler or a finaliser that adds an event while the same
thread is adding one would wait for itself, and a forked child for a thread that it does not have.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final, final

from opentelemetry.sdk.util import BoundedList

from tracekit._fork import in_forked_child


@final
class SharedLock:
    """One re-entrant lock for all spans, which hold it for less than a microsecond; a forked child has a new one."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self._renew()
        in_forked_child(self._renew)

    def _renew(self) -> None:
        self.lock = threading.RLock()


SHARED: Final = SharedLock()


@final
class BoundedItems(BoundedList[Any]):
    """
    The newest of what was added, and how many were dropped.

    Args:
        maxlen: How many are kept; None keeps all.
    """

    def __init__(self, maxlen: int | None) -> None:  # its base's is not called: it makes a lock
        self.dropped = 0
        self._dq: deque[Any] = deque(maxlen=maxlen)

    @property
    def _lock(self) -> threading.RLock:
        return SHARED.lock
