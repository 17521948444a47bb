"""
The waterfall of a trace: a line for each span, with a bar from its start to its end.

    Trace: 4bf92f3577b34da6a3ce929d0e0e4736  (120ms, 3 spans)
                          0                               120ms
    POST /orders          ████████████████████████████████ 120ms
      orders.validate     █                                  5ms
      payments.charge        ██████████████████████          80ms  ERROR
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tracekit.export.forest import Forest
from tracekit.export.text import duration_text
from tracekit.view.layout import DIM, RED, SERVICE_COLORS, Layout
from tracekit.view.selection import last_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracekit.export.record import SpanRecord

_FOLD_FROM: Final = 5
_MAX_ROWS: Final = 500
_MAX_INDENT: Final = 12
# Of the line; names take what they need, up to it.
_MAX_NAME_SHARE: Final = 0.45
_DURATION_COLUMNS: Final = 8
_MIN_BAR: Final = 10
_FAILED: Final = "  ERROR"
_BAR, _SPECK = "█", "▏"


class _Row(NamedTuple):
    """A span, or several of one shape, to be written on a line."""

    members: list[SpanRecord]
    label: str
    duration: str


def render_waterfall(spans: Sequence[SpanRecord], layout: Layout, *, note: str = "") -> str:
    """
    Return the waterfall of the *spans* of one trace, each line ended by a newline and as wide as *layout* has it.

    Siblings of one shape share a line, as in the tree.
    """
    forest = Forest(spans)
    rows, left_out = _rows(forest, layout)
    lines = [layout.header(forest.spans, note)]
    if rows:
        lines += _drawn(rows, forest.spans, layout)
    if left_out:
        lines.append(layout.paint(DIM, layout.text(f"… {left_out:,} more spans left out")))
    return "".join(f"{line}\n" for line in lines)


def _rows(forest: Forest, layout: Layout) -> tuple[list[_Row], int]:
    rows: list[_Row] = []
    left_out = 0
    is_joined = len({span.service for span in forest.spans}) > 1
    stack = [(group, 0, "") for group in reversed(forest.folded(forest.roots, _FOLD_FROM))]
    while stack:
        members, level, service = stack.pop()
        spans = [forest.spans[member] for member in members]
        if len(rows) < _MAX_ROWS:
            rows.append(
                _row(spans, level, spans[0].service if is_joined and spans[0].service != service else "", layout)
            )
        else:
            left_out += len(members)
        below = forest.folded(forest.children_of(members), _FOLD_FROM)
        stack += [(group, level + 1, spans[0].service) for group in reversed(below)]
    return rows, left_out


def _row(spans: list[SpanRecord], level: int, service: str, layout: Layout) -> _Row:
    indent = "  " * level if level <= _MAX_INDENT else "  " * _MAX_INDENT + f"({level}) "
    label = indent + (f"[{layout.text(service)}] " if service else "") + layout.text(spans[0].name)
    durations = [span.duration_ns for span in spans if span.duration_ns is not None]
    duration = duration_text(sum(durations)) if durations else "open"
    return _Row(spans, label + (f" x {len(spans):,}" if len(spans) > 1 else ""), layout.text(duration))


def _drawn(rows: list[_Row], spans: Sequence[SpanRecord], layout: Layout) -> Iterator[str]:
    start = spans[0].start_time_ns
    end = max(start + 1, *map(last_ns, spans))
    has_errors = any(span.status == "error" for span in spans)
    rest = layout.columns - _DURATION_COLUMNS - 2 - (len(_FAILED) if has_errors else 0)
    names = min(
        max(layout.columns_of(row.label) for row in rows), int(layout.columns * _MAX_NAME_SHARE), rest - _MIN_BAR
    )
    width = rest - names
    colors = _colors(spans)
    total = layout.text(duration_text(end - start))
    yield layout.paint(DIM, " " * (names + 1) + "0" + total.rjust(width - 1))
    for row in rows:
        has_failed = any(span.status == "error" for span in row.members)
        label = layout.fitted(row.label, names)
        bar = layout.text(_bar(row.members, start, end, width))
        color = RED if has_failed else colors[row.members[0].service]
        duration = row.duration.rjust(_DURATION_COLUMNS)
        error = layout.paint(RED, _FAILED) if has_failed else ""
        yield f"{layout.paint(RED, label) if has_failed else label} {layout.paint(color, bar)} {duration}{error}"


def _bar(spans: list[SpanRecord], start: int, end: int, width: int) -> str:
    cells = [" "] * width
    for span in spans:
        first = min(width - 1, (span.start_time_ns - start) * width // (end - start))
        # An open span goes on.
        until = end if span.end_time_ns is None else span.end_time_ns
        after = min(width, (max(until, span.start_time_ns) - start) * width // (end - start))
        if after > first:
            cells[first:after] = _BAR * (after - first)
        elif cells[first] == " ":
            cells[first] = _SPECK
    return "".join(cells)


def _colors(spans: Sequence[SpanRecord]) -> dict[str, str]:
    services = dict.fromkeys(span.service for span in spans)
    return {service: SERVICE_COLORS[number % len(SERVICE_COLORS)] for number, service in enumerate(services)}
