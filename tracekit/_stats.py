"""Counting what happens to spans, so that every span made is accounted for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import Final, final


@final
@dataclass(frozen=True, slots=True)
class Stats:
    """
    What became of the spans of one pipeline, at one moment; all figures count spans.

    It adds up: `started == sampled + not_sampled` and, once all spans have ended,
    `sampled == exported + spooled + queued + sum(dropped.values())`.

    Args:
        started: Spans asked for.
        sampled: Spans that record and are to be exported.
        not_sampled: Spans the sampler left out.
        exported: Spans an exporter has taken.
        spooled: Spans kept on disk for later.
        queued: Spans waiting in memory.
        dropped: Spans lost, by reason.
        internal_errors: Failures inside tracekit kept from the caller (in this process, not only this pipeline).
    """

    started: int = 0
    sampled: int = 0
    not_sampled: int = 0
    exported: int = 0
    spooled: int = 0
    queued: int = 0
    dropped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    internal_errors: int = 0

    @property
    def unended(self) -> int:
        """Sampled spans that are in no other figure: those that are open, or gone without having been ended."""
        return self.sampled - self.exported - self.spooled - self.queued - sum(self.dropped.values())


_FIGURES: Final = ("started", "sampled", "not_sampled", "exported", "spooled", "queued")
_MAX_UNSETTLED: Final = 1_024


@final
class Counters:
    """
    The running figures of one pipeline; exact from any thread and from signal handlers.

    Adding to a number is a read and a write, and a signal handler or a finaliser that comes in between adds to a number
    that is about to be overwritten, whatever lock its thread holds. So each change is appended, which nothing can come
    between, and changes are summed up later, by one at a time.
    """

    __slots__ = (
        "_changes",
        "_counts",
        "_dropped",
        "_included",
        "_is_settling",
        "_lock",
        "not_sampled",
        "sampled",
    )

    def __init__(self) -> None:
        self._included: list[Callable[[], Stats]] = []
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start from zero in a forked child: the parent accounts for what the parent made."""
        # Re-entrant: the handler of a signal may ask for a snapshot while this thread sums up.
        self._lock = threading.RLock()
        self._is_settling = False
        self._counts: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._changes: deque[tuple[dict[str, int], str, int]] = deque()
        # What every span adds to is counted by `next(counters.sampled)`: atomic too, and 0.15 µs less.
        self.sampled, self.not_sampled = count(), count()

    def add(self, figure: str, spans: int = 1) -> None:
        """
        Add *spans* to *figure*.

        Args:
            figure: A field of `Stats` that holds a number of spans: "started", "sampled", "exported", ...
            spans: How many; negative takes back.
        """
        self._change(self._counts, figure, spans)

    def drop(self, reason: str, spans: int = 1) -> None:
        """Count *spans* as lost for *reason* (a short snake_case word: "queue_full", "export_failed")."""
        self._change(self._dropped, reason, spans)

    def include(self, books: Callable[[], Stats]) -> None:
        """
        Add the figures of *books* at each snapshot.

        A queue keeps its own books: the thread that empties it must not wait for a lock of the threads that fill it,
        because one of them may be in a signal handler that waits for the queue to be empty.
        """
        self._included.append(books)

    def snapshot(self, *, internal_errors: int = 0) -> Stats:
        """Return the figures of this moment."""
        # Before our own: a span that goes on its way meanwhile counts as one that has not ended yet.
        included = [books() for books in self._included]
        with self._lock:
            self._settle()
            figures, dropped = dict(self._counts), dict(self._dropped)
            figures["sampled"] = figures.get("sampled", 0) + _read(self.sampled)
            figures["not_sampled"] = figures.get("not_sampled", 0) + _read(self.not_sampled)
        for part in included:
            for figure in _FIGURES:
                figures[figure] = figures.get(figure, 0) + getattr(part, figure)
            for reason, spans in part.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + spans
        return Stats(**figures, dropped=MappingProxyType(dropped), internal_errors=internal_errors)

    def _change(self, book: dict[str, int], key: str, spans: int) -> None:
        self._changes.append((book, key, spans))
        if len(self._changes) > _MAX_UNSETTLED:
            self._settle()

    def _settle(self) -> None:
        with self._lock:
            if self._is_settling:
                return  # a signal handler that came in between: what it interrupts goes on
            self._is_settling = True
            try:
                while self._changes:
                    book, key, spans = self._changes.popleft()
                    book[key] = book.get(key, 0) + spans
            finally:
                self._is_settling = False


def _read(counter: count[int]) -> int:
    """Return how often *counter* was advanced, without advancing it."""
    # "count(7)": all else that tells is deprecated.
    return int(repr(counter)[len("count(") : -1])
