"""Who is whose child among the spans of a trace, and which siblings look alike; whatever a file or a peer claims."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar, final

from tracekit.export.record import EventRecord, SpanRecord

_T = TypeVar("_T")


@final
class Forest:
    """
    The spans of one trace by start time, each known by its index, as trees below those that have no parent here.

    Each span stands in it exactly once: spans that claim to be each other's ancestors hang below one of them, and the
    children of an id that two spans bear below the first.
    """

    __slots__ = ("_by_id", "_children", "_shapes", "roots", "spans")

    def __init__(self, spans: Sequence[SpanRecord]) -> None:
        self.spans = sorted(spans, key=lambda span: span.start_time_ns)
        self._by_id: dict[str, int] = {}
        for index, span in enumerate(self.spans):
            self._by_id.setdefault(span.span_id, index)
        self._children: list[list[int]] = [[] for _ in self.spans]
        self.roots: list[int] = []
        for index in range(len(self.spans)):
            parent = self._parent_of(index)
            (self.roots if parent is None else self._children[parent]).append(index)
        self._shapes: list[int] = [0] * len(self.spans)
        self._compare(self._from_the_roots())

    def has_parent(self, index: int) -> bool:
        """Tell whether the parent of the span at *index* is in this forest."""
        return self._parent_of(index) is not None

    def children_of(self, members: list[int]) -> list[int]:
        """Return the children of all *members*, those of the first one first."""
        if len(members) == 1:
            return self._children[members[0]]
        return [child for member in members for child in self._children[member]]

    def name_of(self, span_id: str) -> str | None:
        """Return the name of the span *span_id*, if it is here."""
        index = self._by_id.get(span_id)
        return None if index is None else self.spans[index].name

    def folded(self, siblings: list[int], fold_from: int) -> list[list[int]]:
        """Return *siblings* in groups: *fold_from* or more of one shape together, others alone."""
        return fold(siblings, self._shapes.__getitem__, fold_from)

    def _parent_of(self, index: int) -> int | None:
        parent_id = self.spans[index].parent_id
        parent = None if parent_id is None else self._by_id.get(parent_id)
        return None if parent == index else parent

    def _from_the_roots(self) -> list[int]:
        """Return all indexes, parents before children, once every circle is cut open."""
        order: list[int] = []
        seen = [False] * len(self.spans)
        roots = self.roots
        # What no root leads to hangs on a circle.
        for index in [*roots, *range(len(self.spans))]:
            if seen[index]:
                continue
            root = index if self._parent_of(index) is None else self._cut_circle_above(index)
            stack = [root]
            while stack:
                found = stack.pop()
                seen[found] = True
                order.append(found)
                stack += self._children[found]
        return order

    def _cut_circle_above(self, index: int) -> int:
        passed: set[int] = set()
        above = self._parent_of(index)
        while above is not None and above not in passed:
            passed.add(above)
            index, above = above, self._parent_of(above)
        if above is not None:
            self._children[above].remove(index)
        self.roots.append(index)
        return index

    def _compare(self, order: list[int]) -> None:
        """Give each span the number of its shape; one number means: a reader would call them repeats."""
        numbers: dict[Hashable, int] = {}
        for index in reversed(order):
            span = self.spans[index]
            shape = (
                span.name,
                span.service,
                span.status,
                span.description,
                span.end_time_ns is None,
                frozenset(map(event_kind, span.events)),
                bool(span.links),
                span.parent_is_remote,
                frozenset(self._shapes[child] for child in self._children[index]),
            )
            self._shapes[index] = numbers.setdefault(shape, len(numbers))


def event_kind(event: EventRecord) -> Hashable:
    """Return what makes two events repeats of each other."""
    return event.name, event.exception


def fold(items: Sequence[_T], shape: Callable[[_T], Hashable], fold_from: int) -> list[list[_T]]:
    """Return *items* in groups: *fold_from* or more of one *shape* at the place of their first, others alone."""
    if not 0 < fold_from <= len(items):
        return [[item] for item in items]
    unplaced: dict[Hashable, list[_T]] = {}
    for item in items:
        unplaced.setdefault(shape(item), []).append(item)
    groups: list[list[_T]] = []
    for item in items:
        group = unplaced.get(shape(item))
        if group is not None:
            groups.append([item] if len(group) < fold_from else unplaced.pop(shape(item)))
    return groups
