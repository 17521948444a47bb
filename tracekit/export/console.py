"""
When a trace is printed: as soon as its part in this process is complete. Nothing else prints spans.

Spans arrive on any thread, in signal handlers and in whatever the stream calls, so arriving never waits: it appends to
a queue, and whoever finds nobody sorting the queue sorts it. No lock is held while a tree is rendered or written.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO, final

from opentelemetry.sdk.trace import SpanProcessor

from tracekit._diagnostics import report_failure
from tracekit._fork import in_forked_child
from tracekit.export.record import SpanRecord
from tracekit.export.text import for_encoding, wants_color
from tracekit.export.tree import TreeOptions, render_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.trace import SpanContext

    from tracekit._stats import Counters

MAX_SPANS: Final = 20_000
MAX_TRACES: Final = 1_000
MAX_AGE_S: Final = 300.0
_MAX_PRINTED: Final = 4_096
_MAX_WAIT_S: Final = 1.0
# A trace that is half sorted when the recursion limit is reached would be wrong for ever.
_FRAMES_OF_SORTING: Final = 16
_FRAMES_OF_PRINTING: Final = 64


@final
class TreeProcessor(SpanProcessor):
    """
    Prints the tree of each trace when no span of it is open in this process and the one that began it here has ended.

    Spans that end after that are printed as a late part of their trace. A trace that does not complete is printed as
    incomplete by `force_flush` and `shutdown`, after `MAX_AGE_S`, or when `MAX_TRACES` others wait. Each span printed
    counts as exported; each one lost counts as dropped: `tree_full` (`MAX_SPANS` wait), `tree_failed` (the stream does
    not take them), `made_while_printing` (by the stream itself), `shut_down`.

    Args:
        stream: Where to print; None for what `sys.stderr` is at that time.
        counters: What counts spans.
        color: Whether to use colours; None for what suits the stream.
    """

    # A RecursionError from `on_end` means that the span was not taken.
    is_whole_or_not_at_all: Final = True

    def __init__(self, stream: TextIO | None = None, *, counters: Counters, color: bool | None = None) -> None:
        self._stream = stream
        self._counters = counters
        self._color = color
        self._is_shut_down = False
        self._begin()
        in_forked_child(self._begin)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002  # the interface
        """Take note that *span* is open."""
        try:
            context = _sampled(span)
            if context is None or self._is_shut_down or threading.get_ident() in self._printing:
                return
            self._arrived.append(partial(self._waiting.start, context, span))
            self._settle()
        except RecursionError:  # what has arrived is sorted when the next span comes, or at a flush
            return

    def on_end(self, span: ReadableSpan) -> None:
        """Take *span*, and print its trace if that completes it."""
        try:
            context = _sampled(span)
            if context is None:
                return
            if self._is_shut_down:
                self._counters.drop("shut_down")
                return
            if threading.get_ident() in self._printing:
                # Printing these would make more of them.
                self._counters.drop("made_while_printing")
                return
        except RecursionError:
            self._arrived.append(partial(self._end_later, span))
            return
        self._arrived.append(partial(self._waiting.end, context, span))
        try:
            self._settle()
        except RecursionError:  # as in `on_start`
            return

    def _end_later(self, span: ReadableSpan) -> list[_Part]:
        """Take a span that ended where the stack had no room to look at it."""
        context = _sampled(span)
        return [] if context is None else self._waiting.end(context, span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Print all ended spans; those of traces that still have open spans as incomplete."""
        self._arrived.append(self._waiting.take_all)
        # Bounded: a signal handler may have interrupted, on this very thread, what it would wait for.
        self._settle(wait_s=min(timeout_millis / 1_000, _MAX_WAIT_S))
        return not self._arrived

    def shutdown(self) -> None:
        """Print all ended spans; those that end later are dropped."""
        self._is_shut_down = True
        self.force_flush()

    def _begin(self) -> None:
        """Begin with nothing; in a forked child too, where the parent prints what it had."""
        self._arrived: deque[Callable[[], list[_Part]]] = deque()
        self._sorting = threading.Lock()
        self._waiting = _WaitingTraces(self._counters)
        self._printing: set[int] = set()

    def _settle(self, wait_s: float = 0) -> None:
        """Sort what has arrived, and print what is complete."""
        complete: list[_Part] = []
        # Asked again after each release: what arrived meanwhile found the sorting under way and went on.
        while self._arrived and self._sorting.acquire(timeout=wait_s):
            try:
                while self._arrived:
                    _need_room(_FRAMES_OF_SORTING)
                    complete += self._arrived.popleft()()
            except RecursionError:
                break
            finally:
                self._sorting.release()
        for part in complete:
            try:
                _need_room(_FRAMES_OF_PRINTING)
                self._print(part)
            except RecursionError:
                self._arrived.appendleft([part].copy)

    def _print(self, part: _Part) -> None:
        thread = threading.get_ident()
        self._printing.add(thread)
        try:
            stream: TextIO = self._stream or sys.stderr
            options = TreeOptions(color=wants_color(stream) if self._color is None else self._color)
            spans = [SpanRecord.of(span) for span in (*part.ended, *part.open)]
            text = for_encoding(render_tree(spans, options, note=part.note), stream.encoding)
            # One write: trees of other threads must not come between its lines.
            stream.write(text)
            stream.flush()
        except Exception as error:  # noqa: BLE001  # a closed or broken stream, or a span like no other
            self._counters.drop("tree_failed", len(part.ended))
            report_failure("console", "printing a trace", error)
        else:
            self._counters.add("exported", len(part.ended))
        finally:
            self._printing.discard(thread)


def _need_room(frames: int) -> None:
    """Raise RecursionError where the stack has no room for so many *frames*."""
    if frames:
        _need_room(frames - 1)


class _Part(NamedTuple):
    """What is printed at once: a trace, or what of it there is."""

    ended: list[ReadableSpan]
    open: list[ReadableSpan]
    note: str


@final
class _Trace:
    """What is known of a trace that is not printed yet."""

    __slots__ = ("ended", "is_continued", "is_rooted", "lost", "open", "since_s")

    def __init__(self) -> None:
        self.open: dict[int, ReadableSpan] = {}
        self.ended: list[ReadableSpan] = []
        self.lost = 0
        # Whether anything has ended after which the trace may be complete.
        self.is_rooted = False
        self.is_continued = False
        self.since_s = time.monotonic()


@final
class _WaitingTraces:
    """The traces that are not complete, oldest first; one thread at a time may use it."""

    __slots__ = ("_counters", "_printed", "_spans", "_traces")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._traces: dict[int, _Trace] = {}
        self._spans = 0
        self._printed: dict[int, None] = {}

    def start(self, context: SpanContext, span: ReadableSpan) -> list[_Part]:
        """Note that *span* is open; return what is to be printed to make room."""
        parts: list[_Part] = []
        self._trace_of(context.trace_id, parts).open[context.span_id] = span
        return parts

    def end(self, context: SpanContext, span: ReadableSpan) -> list[_Part]:
        """Keep *span*; return what is to be printed now."""
        parts: list[_Part] = []
        trace_id = context.trace_id
        trace = self._trace_of(trace_id, parts)
        was_open = trace.open.pop(context.span_id, None) is not None
        if self._spans < MAX_SPANS:
            trace.ended.append(span)
            self._spans += 1
        else:
            trace.lost += 1
            self._counters.drop("tree_full")
        # A span whose start was not seen (a sampler that decides at the end replays them) may have siblings to come.
        trace.is_rooted |= was_open or _begins_here(span) or trace_id in self._printed
        if trace.is_rooted and not trace.open:
            self._take(trace_id, parts)
        oldest = next(iter(self._traces), None)
        if oldest is not None and time.monotonic() - self._traces[oldest].since_s > MAX_AGE_S:
            self._take(oldest, parts)
        return parts

    def take_all(self) -> list[_Part]:
        """Return all that has ended."""
        parts: list[_Part] = []
        for trace_id in list(self._traces):
            self._take(trace_id, parts)
        return parts

    def _trace_of(self, trace_id: int, parts: list[_Part]) -> _Trace:
        trace = self._traces.get(trace_id)
        if trace is None:
            if len(self._traces) >= MAX_TRACES:
                oldest = next(iter(self._traces))
                self._take(oldest, parts)
                self._traces.pop(oldest, None)
            trace = self._traces[trace_id] = _Trace()
        return trace

    def _take(self, trace_id: int, parts: list[_Part]) -> None:
        """Move what has ended to *parts*; what is open goes on as the youngest trace."""
        trace = self._traces.pop(trace_id)
        if trace.open:
            rest = self._traces[trace_id] = _Trace()
            rest.open = trace.open
            rest.is_continued = trace.is_continued or bool(trace.ended)
        if not trace.ended:
            return
        notes: list[str] = []
        if trace.is_continued:
            notes.append("continued")
        elif trace_id in self._printed and not any(map(_begins_here, trace.ended)):
            notes.append("late")
        if trace.lost:
            notes.append(f"{trace.lost:,} more lost")
        parts.append(_Part(trace.ended, list(trace.open.values()), ", ".join(notes)))
        self._spans -= len(trace.ended)
        self._printed[trace_id] = None
        if len(self._printed) > _MAX_PRINTED:
            del self._printed[next(iter(self._printed))]


def _sampled(span: ReadableSpan) -> SpanContext | None:
    """Return the context of *span* if it is sampled; a span may also record for this process only."""
    context = span.context
    return context if context is not None and context.trace_flags.sampled else None


def _begins_here(span: ReadableSpan) -> bool:
    """Tell whether *span* begins its trace in this process."""
    return span.parent is None or span.parent.is_remote
