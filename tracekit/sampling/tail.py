"""Traces that sampling would drop, held back until it is known whether they failed or were slow."""

from __future__ import annotations

import copy
import inspect
import math
import reprlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast, final

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanContext, StatusCode, TraceFlags
from typing_extensions import override

from tracekit._diagnostics import report_failure
from tracekit._fork import in_forked_child
from tracekit._ratio import number_of
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from tracekit._stats import Counters

_NS_PER_S: Final = 1_000_000_000
_SHUTDOWN_TIMEOUT_MS: Final = 5_000


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TailPolicy:
    """
    Which traces to keep although sampling would drop them, and how much to hold back for it.

    Args:
        keep_errors: Keep a trace once one of its spans has the status ERROR.
        keep_slower_than_s: Keep a trace once its local root takes that many seconds.
        max_traces: Most traces held back at once, and most kept traces remembered for spans that end late.
        max_spans: Most spans held back at once.
        max_age_s: Longest time a trace is held back, in seconds.

    Raises:
        ConfigurationError: One of them is of another type or not above zero.
    """

    keep_errors: bool = False
    keep_slower_than_s: float | None = None
    max_traces: int = 10_000
    max_spans: int = 50_000
    max_age_s: float = 600.0

    def __post_init__(self) -> None:
        keep_errors = cast("object", self.keep_errors)  # users without a type checker give anything
        if not isinstance(keep_errors, bool):
            msg = f"keep_errors is {reprlib.repr(keep_errors)}, expected a bool. Write keep_errors=True."
            raise ConfigurationError(msg)
        for option in ("keep_slower_than_s", "max_traces", "max_spans", "max_age_s"):
            value: object = getattr(self, option)
            if value is None and option == "keep_slower_than_s":
                continue
            number = number_of(value)
            if number is None or not 0 < number < math.inf:
                msg = f"{option} is {reprlib.repr(value)}, expected a number above 0. Write {option}=1."
                raise ConfigurationError(msg)

    def __bool__(self) -> bool:
        """Tell whether there is anything to keep."""
        return self.keep_errors or self.keep_slower_than_s is not None


@final
class _HeldTrace:
    """The part of one trace that this process has recorded and not sampled, while one of its local roots is open."""

    __slots__ = ("open_roots", "since", "spans")

    def __init__(self, since: float) -> None:
        self.since: Final = since
        self.open_roots = 0
        self.spans: list[ReadableSpan] = []


@final
class TailBuffer(SpanProcessor):
    """
    Holds spans that are recorded but not sampled back until their local trace is kept or dropped as one.

    Sampled spans pass at once. A trace is kept as soon as the policy says so, and dropped when its last open local root
    (a span with no local, unsampled parent) has ended without. Spans that end later follow. Where the bounds are
    reached, the oldest trace is dropped, as sampling had decided, and its spans are counted as `tail_overflow` (or
    kept, if it has been slow already).

    What was propagated downstream stays "not sampled"; exported spans of a kept trace carry the sampled flag, since
    exporters pass no other.

    Args:
        policy: What to keep.
        processors: Get every span's start, and the ends of those that are sampled or kept.
        counters: Where kept spans and overflow are counted.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        policy: TailPolicy,
        processors: Sequence[SpanProcessor],
        counters: Counters,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._slow_s = policy.keep_slower_than_s
        self._processors = tuple(processors)
        self._counters = counters
        self._clock = clock
        self._start_empty()
        in_forked_child(self._start_empty)

    def _start_empty(self) -> None:
        # Re-entrant: a signal handler or a finaliser may end a span while this thread holds it.
        self._lock = threading.RLock()
        self._held: dict[int, _HeldTrace] = {}
        self._held_spans = 0
        # Traces decided on, oldest first: whether they were kept (else they overflowed). Others were dropped.
        self._decided: OrderedDict[int, bool] = OrderedDict()

    @override
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        for processor in self._processors:
            _serve(processor, "on_start", span, parent_context)
        context = span.get_span_context()
        if not context.trace_flags.sampled and _is_local_root(span):
            self._pass_on_kept(self._open(context.trace_id, span))

    @override
    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context is None:
            return
        if context.trace_flags.sampled:
            self._pass_on(span)
        else:
            self._pass_on_kept(self._judge(context.trace_id, span))

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush what has been passed on; traces that are still open stay."""
        deadline = time.monotonic() + timeout_millis / 1_000
        flushed = True
        for processor in self._processors:
            left_ms = max(0, int((deadline - time.monotonic()) * 1_000))
            flushed = processor.force_flush(left_ms) is not False and flushed
        return flushed

    @override
    def shutdown(self, timeout_millis: float = _SHUTDOWN_TIMEOUT_MS) -> None:
        """
        Drop the traces that are still open, as sampling had decided, and shut the processors down.

        Args:
            timeout_millis: Longest wait in milliseconds for all processors together; each has its share of the rest.
        """
        deadline_s = time.monotonic() + timeout_millis / 1_000
        with self._lock:
            self._held.clear()
            self._held_spans = 0
        for place, processor in enumerate(self._processors):
            left_ms = max(0.0, deadline_s - time.monotonic()) * 1_000 / (len(self._processors) - place)
            try:
                _shut_down(processor, left_ms)
            except Exception as error:  # noqa: BLE001  # the other processors must be shut down
                report_failure(type(processor).__name__, "shutdown", error)

    def _open(self, trace_id: int, root: Span) -> Sequence[ReadableSpan]:
        """Note that *root*, a local one, has started; return the spans to export now."""
        is_subtree = root.parent is not None and not root.parent.is_remote
        with self._lock:
            # One failed call of an operation that a sampled trace leaves out must not keep all the calls that follow.
            if self._decided.get(trace_id) and not is_subtree:
                return ()
            trace = self._held.get(trace_id)
            if trace is None:
                self._decided.pop(trace_id, None)
                trace = self._held[trace_id] = _HeldTrace(self._clock())
            trace.open_roots += 1
            return self._make_room()

    def _judge(self, trace_id: int, span: ReadableSpan) -> Sequence[ReadableSpan]:
        """Take in a span that has ended; return the spans to export now."""
        with self._lock:
            trace = self._held.get(trace_id)
            if trace is None:
                return self._late(trace_id, span)
            trace.spans.append(span)
            self._held_spans += 1
            is_root = _is_local_root(span)
            if self._is_worth_keeping(trace, span, is_root=is_root):
                return self._decide(trace_id, keep=True)
            if is_root:
                trace.open_roots -= 1
                if not trace.open_roots:
                    self._take(trace_id)
            return self._make_room() if self._held_spans > self._policy.max_spans else ()

    def _late(self, trace_id: int, span: ReadableSpan) -> Sequence[ReadableSpan]:
        kept = self._decided.get(trace_id)
        if kept is False:
            self._count_overflow(1)
        return (span,) if kept else ()

    def _is_worth_keeping(self, trace: _HeldTrace, span: ReadableSpan, *, is_root: bool) -> bool:
        if self._policy.keep_errors and span.status.status_code is StatusCode.ERROR:
            return True
        if self._slow_s is None:
            return False
        return self._is_slow(trace) or (is_root and _duration_s(span) >= self._slow_s)

    def _is_slow(self, trace: _HeldTrace) -> bool:
        """Tell whether a local root that is still open has taken too long already."""
        return self._slow_s is not None and self._clock() - trace.since >= self._slow_s

    def _make_room(self) -> Sequence[ReadableSpan]:
        """Decide on the oldest traces until the bounds hold: slow ones are kept, others dropped and counted."""
        policy = self._policy
        released: list[ReadableSpan] = []
        while self._held:
            trace_id, oldest = next(iter(self._held.items()))
            if (
                len(self._held) <= policy.max_traces
                and self._held_spans <= policy.max_spans
                and self._clock() - oldest.since <= policy.max_age_s
            ):
                break
            keep = self._is_slow(oldest)
            spans = self._decide(trace_id, keep=keep)
            if keep:
                released.extend(spans)
            else:
                self._count_overflow(len(spans))
        return released

    def _decide(self, trace_id: int, *, keep: bool) -> Sequence[ReadableSpan]:
        self._decided[trace_id] = keep
        if len(self._decided) > self._policy.max_traces:
            self._decided.popitem(last=False)
        return self._take(trace_id)

    def _take(self, trace_id: int) -> Sequence[ReadableSpan]:
        # None: a finaliser, run by the collector inside this very call, came first.
        trace = self._held.pop(trace_id, None)
        if trace is None:
            return ()
        self._held_spans -= len(trace.spans)
        return trace.spans

    def _count_overflow(self, spans: int) -> None:
        self._count_as_sampled(spans)
        self._counters.drop("tail_overflow", spans)

    def _count_as_sampled(self, spans: int) -> None:
        """Move *spans* in the books: their sampler had counted them as not sampled."""
        self._counters.add("not_sampled", -spans)
        self._counters.add("sampled", spans)

    def _pass_on_kept(self, spans: Sequence[ReadableSpan]) -> None:
        if spans:
            self._count_as_sampled(len(spans))
        for span in spans:
            self._pass_on(_sampled(span))

    def _pass_on(self, span: ReadableSpan) -> None:
        for processor in self._processors:
            _serve(processor, "on_end", span)


def _serve(processor: SpanProcessor, method: str, *args: object) -> None:
    try:
        getattr(processor, method)(*args)
    except Exception as error:  # noqa: BLE001  # the other processors and spans must be served
        report_failure(type(processor).__name__, method, error)


def _shut_down(processor: SpanProcessor, timeout_ms: float) -> None:
    if "timeout_millis" in inspect.signature(processor.shutdown).parameters:
        processor.shutdown(timeout_millis=timeout_ms)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        return
    processor.force_flush(int(timeout_ms))
    processor.shutdown()


def _is_local_root(span: ReadableSpan) -> bool:
    """Tell whether sampling left *span* out without having left out its local parent."""
    parent = span.parent
    return parent is None or parent.is_remote or parent.trace_flags.sampled


def _duration_s(span: ReadableSpan) -> float:
    if span.start_time is None or span.end_time is None:
        return 0.0
    return (span.end_time - span.start_time) / _NS_PER_S


def _sampled(span: ReadableSpan) -> ReadableSpan:
    """Return a copy of *span* with the sampled flag; the span itself may still be used to propagate its own."""
    context = span.context
    if context is None:
        return span
    kept = copy.copy(span)
    kept._context = SpanContext(  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # ReadableSpan has no other way
        context.trace_id,
        context.span_id,
        context.is_remote,
        TraceFlags(context.trace_flags | TraceFlags.SAMPLED),
        context.trace_state,
    )
    return kept
