"""What each operation costs over many traces: calls, errors, percentiles, total and self time, in a table."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from tracekit.export.forest import Forest
from tracekit.export.text import duration_text
from tracekit.view.layout import BOLD, DIM, RED, Layout
from tracekit.view.selection import Selection, last_ns

if TYPE_CHECKING:
    from tracekit.export.record import SpanRecord

# Names of spans with an id in them would need a row each.
_MAX_OPERATIONS: Final = 10_000
_OTHERS: Final = ("", "(others)")
_PERCENTILES: Final = (50, 95, 99)
_MIN_NAME: Final = 16
_HEADER: Final = ("calls", "errors", "p50", "p95", "p99", "total", "self", "self %")
_ERRORS: Final = _HEADER.index("errors")
_GAP: Final = 2


@final
@dataclass(slots=True)
class Operation:
    """
    What is known of the spans of one name in one service.

    Args:
        service: The service.
        name: The name of the spans.
        calls: How many have ended.
        errors: How many of them have failed.
        total_ns: The time they took together; calls at the same time count each.
        self_ns: The part of it in which none of their children was running.
        durations: The duration of each, in nanoseconds.
    """

    service: str
    name: str
    errors: int = 0
    self_ns: int = 0
    durations: array[int] = field(default_factory=lambda: array("q"))

    @property
    def calls(self) -> int:
        """How many spans there were."""
        return len(self.durations)

    @property
    def total_ns(self) -> int:
        """How long they took together."""
        return sum(self.durations)


@final
class Summary:
    """
    Adds up traces by operation; needs 8 bytes a span for exact percentiles, and a row each for 10,000 operations.

    Args:
        selection: The operations whose rows are wanted.
    """

    __slots__ = ("_operations", "_selection", "spans", "traces")

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._operations: dict[tuple[str, str], Operation] = {}
        self.traces = 0
        self.spans = 0

    def add(self, spans: Sequence[SpanRecord]) -> None:
        """Add the *spans* of one trace; open ones have no duration yet and do not count."""
        self.traces += 1
        forest = Forest(spans)
        for index, span in enumerate(forest.spans):
            if span.end_time_ns is None or not self._selection.is_named(span):
                continue
            self.spans += 1
            operation = self._operation(span.service, span.name)
            duration = max(0, span.end_time_ns - span.start_time_ns)
            operation.durations.append(duration)
            operation.errors += span.status == "error"
            below = forest.children_of([index])
            operation.self_ns += (
                duration - _covered_ns(span, [forest.spans[child] for child in below]) if below else duration
            )

    def operations(self) -> list[Operation]:
        """Return the operations, the one with the most self time first: where it goes is what can be made faster."""
        return sorted(
            self._operations.values(), key=lambda each: (-each.self_ns, -each.total_ns, each.service, each.name)
        )

    def _operation(self, service: str, name: str) -> Operation:
        key = (service, name)
        operation = self._operations.get(key)
        if operation is None:
            if len(self._operations) >= _MAX_OPERATIONS:
                key = _OTHERS
            operation = self._operations.setdefault(key, Operation(*key))
        return operation


def _covered_ns(span: SpanRecord, children: Iterable[SpanRecord]) -> int:
    """Return how much of the time of *span* passed while any of its *children* was running."""
    covered = 0
    until = span.start_time_ns
    end = last_ns(span)
    # By start time, as they are in a forest.
    for child in children:
        start, last = max(until, child.start_time_ns), min(end, last_ns(child))
        if last > start:
            covered += last - start
            until = last
    return covered


def percentile(ordered: Sequence[int], percent: int) -> int:
    """Return the smallest of the *ordered* values that *percent* of them do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def render_summary(summary: Summary, layout: Layout, limit: int = -1) -> str:
    """Return *summary* as a table of at most *limit* rows (-1 for all)."""
    operations = summary.operations()
    shown = operations if limit < 0 else operations[:limit]
    is_joined = len({operation.service for operation in operations if operation.name != _OTHERS[1]}) > 1
    labels = [(f"[{layout.text(each.service)}] " if is_joined else "") + layout.text(each.name) for each in shown]
    all_self_ns = sum(operation.self_ns for operation in operations)
    table = [list(_HEADER), *(_cells(operation, all_self_ns, layout) for operation in shown)]
    widths = [max(map(layout.columns_of, column)) for column in zip(*table, strict=True)]
    room = max(_MIN_NAME, layout.columns - sum(widths) - _GAP * len(widths))
    names = min(room, max(map(layout.columns_of, ["operation", *labels])))
    counts = ((summary.traces, "trace"), (summary.spans, "span"), (len(operations), "operation"))
    lines = [", ".join(_count(number, noun) for number, noun in counts)]
    for row, (label, cells) in enumerate(zip(["operation", *labels], table, strict=True)):
        texts = [cell.rjust(width + _GAP) for cell, width in zip(cells, widths, strict=True)]
        if row and shown[row - 1].errors:
            texts[_ERRORS] = layout.paint(RED, texts[_ERRORS])
        line = layout.fitted(label, names) + "".join(texts)
        lines.append(line if row else layout.paint(BOLD, line))
    if len(shown) < len(operations):
        lines.append(layout.paint(DIM, f"and {_count(len(operations) - len(shown), 'more operation')}"))
    return "".join(f"{line}\n" for line in lines)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _cells(operation: Operation, all_self_ns: int, layout: Layout) -> list[str]:
    """Return the figures of *operation* under the titles of the table."""
    ordered = sorted(operation.durations)
    times = [*(percentile(ordered, percent) for percent in _PERCENTILES), operation.total_ns, operation.self_ns]
    return [
        f"{operation.calls:,}",
        f"{operation.errors / operation.calls:.1%}" if operation.errors else "-",
        *(layout.text(duration_text(time)) for time in times),
        f"{operation.self_ns / all_self_ns if all_self_ns else 0:.1%}",
    ]
