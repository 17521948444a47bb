"""
The critical path of a trace: for each moment, the one span that the end of the trace had to wait for.

It is walked from the end of the trace to its beginning: a span waits for the child that ended last, before that for the
child that ended last before that one began, and so on; what is between them is its own time. What has its own time on
the path makes the trace shorter when it gets faster; nothing else does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tracekit.export.forest import Forest
from tracekit.view.selection import last_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracekit.export.record import SpanRecord


class Part(NamedTuple):
    """
    What a span adds to the critical path.

    Args:
        span: The span; None for time in which no span was running.
        level: How many of the spans on the path it stands below.
        self_ns: Its own time on the path; those of all parts add up to the duration of the trace.
    """

    span: SpanRecord | None
    level: int
    self_ns: int


class _Stretch(NamedTuple):
    """A span the path has come to, from the right: what is walked of it ends at *end_ns*."""

    member: int
    level: int
    start_ns: int
    end_ns: int


def critical_path(spans: Sequence[SpanRecord]) -> list[Part]:
    """Return the critical path of the trace of *spans*, in the order in which the spans on it began."""
    return _Walk(Forest(spans)).parts()


class _Walk:
    def __init__(self, forest: Forest) -> None:
        self._forest = forest
        self._spans = forest.spans
        # When a span and all below it are over: what it has started may outlive it.
        self._last = [last_ns(span) for span in self._spans]
        for index in reversed(_parents_first(forest)):
            below = [self._last[child] for child in forest.children_of([index])]
            self._last[index] = max([self._spans[index].start_time_ns, self._last[index], *below])
        self._own: dict[int, int] = {}
        self._levels: dict[int, int] = {}
        self._idle_ns = 0

    def parts(self) -> list[Part]:
        if not self._spans:
            return []
        start, end = self._spans[0].start_time_ns, max(self._last)
        stack, left = self._below(self._forest.roots, 0, start, end)
        self._idle_ns += left
        while stack:
            index, level, start, end = stack.pop()
            self._levels[index] = level
            children, own = self._below(self._forest.children_of([index]), level + 1, start, end, owner=index)
            self._own[index] = own
            stack += children
        order = sorted(self._own, key=lambda index: (self._spans[index].start_time_ns, self._levels[index]))
        parts = [Part(self._spans[index], self._levels[index], self._own[index]) for index in order]
        return [*parts, Part(None, 0, self._idle_ns)] if self._idle_ns else parts

    def _below(
        self, children: list[int], level: int, start: int, end: int, *, owner: int | None = None
    ) -> tuple[list[_Stretch], int]:
        """Return those of *children* that the path goes through, from *end* back to *start*, and what is between."""
        found: list[_Stretch] = []
        between = 0
        moment = end
        for child in sorted(children, key=lambda child: self._last[child], reverse=True):
            last, first = self._last[child], max(start, self._spans[child].start_time_ns)
            # One that went on after the moment is not what was waited for then; neither is one that took no time.
            if last > moment or last <= first:
                continue
            between += self._own_time(owner, last, moment)
            found.append(_Stretch(child, level, first, last))
            moment = first
        return found, between + self._own_time(owner, start, moment)

    def _own_time(self, owner: int | None, start: int, end: int) -> int:
        """Return the part of a stretch that belongs to *owner*; after its end nothing was running."""
        if owner is None:
            return end - start
        over = max(start, last_ns(self._spans[owner]))
        idle = max(0, end - over)
        self._idle_ns += idle
        return end - start - idle


def _parents_first(forest: Forest) -> list[int]:
    reached = list(forest.roots)
    # It grows while it is read.
    for index in reached:
        reached += forest.children_of([index])
    return reached
