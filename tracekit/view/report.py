"""A trace as text: why it failed, its tree or its waterfall, its critical path. Nothing here prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracekit.export.text import duration_text, for_encoding
from tracekit.export.tree import render_tree
from tracekit.view.causes import Cause, causes_of
from tracekit.view.critical_path import critical_path
from tracekit.view.layout import BOLD, DIM, RED, Layout
from tracekit.view.waterfall import render_waterfall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tracekit.export.record import SpanRecord

    # What writes a trace: its spans, how, and a word on all of it.
    Writer = Callable[[Sequence[SpanRecord], Layout, str], str]

_MAX_CAUSES: Final = 3
_MAX_PATH: Final = 12
_MAX_ROWS: Final = 500
_MAX_INDENT: Final = 12
_SHARE_COLUMNS: Final = 16


def tree(spans: Sequence[SpanRecord], layout: Layout, note: str = "") -> str:
    """Return the tree of the trace of *spans*, and why it failed if it did."""
    return for_encoding(render_tree(spans, layout.tree, note=note), layout.encoding) + _lines(_causes(spans, layout))


def waterfall(spans: Sequence[SpanRecord], layout: Layout, note: str = "") -> str:
    """Return the waterfall of the trace of *spans*, and why it failed if it did."""
    return render_waterfall(spans, layout, note=note) + _lines(_causes(spans, layout))


def path(spans: Sequence[SpanRecord], layout: Layout, note: str = "") -> str:
    """Return the critical path of the trace of *spans*: what each span on it adds to the duration."""
    return _lines(_path(spans, layout, note))


def _lines(lines: Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _causes(spans: Sequence[SpanRecord], layout: Layout) -> Iterator[str]:
    causes, how_many = causes_of(spans, _MAX_CAUSES)
    for cause in causes:
        yield from _cause(cause, layout)
    if how_many > len(causes):
        yield layout.paint(DIM, f"and {how_many - len(causes):,} more spans in which something failed first")


def _cause(cause: Cause, layout: Layout) -> Iterator[str]:
    yield f"{layout.paint(RED, 'Failed:')} {layout.text(cause.what) or '(nothing is recorded of why)'}"
    frame = cause.frame
    if frame is not None:
        where = layout.text(frame.place) + (f" in {layout.text(frame.function)}" if frame.function else "")
        yield f"    at: {layout.paint(BOLD, where)}"
        if frame.code:
            yield f"        {layout.text(frame.code)}"
    names = _names(cause.path[-_MAX_PATH:], layout)
    names[:0] = ["..."] if len(cause.path) > _MAX_PATH else []
    yield f"    in: {' > '.join(names)}"


def _names(spans: Sequence[SpanRecord], layout: Layout) -> list[str]:
    """Return the names of *spans* that lead to each other; where another service begins, with its name."""
    is_joined = len({span.service for span in spans}) > 1
    services = [None, *(span.service for span in spans)]
    return [
        (f"[{layout.text(span.service)}] " if is_joined and span.service != before else "") + layout.text(span.name, 80)
        for span, before in zip(spans, services, strict=False)
    ]


def _path(spans: Sequence[SpanRecord], layout: Layout, note: str) -> Iterator[str]:
    parts = critical_path(spans)
    yield layout.header(spans, note)
    total = sum(part.self_ns for part in parts)
    on_path = sum(part.span is not None for part in parts)
    yield layout.paint(DIM, f"{'self':>8} {'share':>6}  critical path: {on_path:,} of {len(spans):,} spans")
    names = iter(_names([part.span for part in parts if part.span is not None], layout))
    for part in parts[:_MAX_ROWS]:
        share = part.self_ns / total if total else 0.0
        bar = layout.fitted(layout.text("█" * round(share * _SHARE_COLUMNS)), _SHARE_COLUMNS)
        figures = f"{layout.text(duration_text(part.self_ns)):>8} {share:>6.0%}  {bar}"
        if part.span is None:
            yield f"{figures}  {layout.paint(DIM, '(no span was running)')}"
            continue
        name = "  " * min(part.level, _MAX_INDENT) + next(names)
        error = layout.paint(RED, "  ERROR") if part.span.status == "error" else ""
        yield f"{figures}  {name}{error}"
    if len(parts) > _MAX_ROWS:
        rest = sum(part.self_ns for part in parts[_MAX_ROWS:])
        yield layout.paint(
            DIM, f"{layout.text(duration_text(rest)):>8}  in {len(parts) - _MAX_ROWS:,} more spans on the path"
        )
