"""The tracer of tracekit's engine: asks the sampler where it has to, starts spans."""

from __future__ import annotations

from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
)
from opentelemetry.trace import Span as ApiSpan
from typing_extensions import override

from tracekit._context import SPAN_KEY, current_context
from tracekit._ratio import OPERATION_RATIO_KEY
from tracekit.recording.guards import CountedSampler
from tracekit.recording.span import Span, legal_attributes, legal_links

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanLimits
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link
    from opentelemetry.util.types import Attributes

_TRACE_IDS: Final = 1 << 128
_SPAN_IDS: Final = 1 << 64
_SAMPLED: Final = TraceFlags.SAMPLED
_RANDOM: Final = TraceFlags.RANDOM_TRACE_ID
# What SpanContext() does after its checks, at half of its 0.5 µs.
_new_context: Final = cast("Callable[[type[SpanContext], tuple[object, ...]], SpanContext]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]
# One object for each value: making one takes 0.1 µs.
_FLAGS: Final = tuple(TraceFlags(value) for value in range(4))


@final
class Tracer(SdkTracer):
    """An SDK tracer that makes tracekit's spans. Never made anew: `TracerProvider` turns the SDK's into it."""

    @property
    def limits(self) -> SpanLimits:
        """The limits of its next span."""
        return self._span_limits

    @property
    def scope(self) -> InstrumentationScope:
        """What its spans say they were made by."""
        return self._instrumentation_scope

    @override
    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> ApiSpan:
        parent: Any = (current_context() if context is None else context).get(SPAN_KEY, INVALID_SPAN)
        clock_ns: int | None = None
        if type(parent) is Span:
            # One clock for a local trace: a child lies within its parent, whatever happens to the time of day.
            clock_ns = parent.clock_ns
            parent_context: SpanContext | None = parent._context  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        else:
            given = cast("object", parent.get_span_context()) if isinstance(parent, ApiSpan) else None
            if given is not None and not isinstance(given, SpanContext):
                msg = f"the parent's span context is {given!r}, expected a SpanContext or None"
                raise TypeError(msg)
            parent_context = given
        if not self._tracer_config.is_enabled:
            return NonRecordingSpan(parent_context or INVALID_SPAN.get_span_context())
        if parent_context is None or not parent_context[5]:  # is_valid
            parent_context = None
            trace_id = self.id_generator.generate_trace_id()
            is_random = self.id_generator.is_trace_id_random()
        else:
            trace_id = parent_context[0]
            is_random = bool(parent_context[3] & _RANDOM)

        decision, state, legal, dropped = self._decide(
            parent_context, context, trace_id, name, kind, attributes, links or ()
        )
        flags = _FLAGS[(_SAMPLED if decision is Decision.RECORD_AND_SAMPLE else 0) | (_RANDOM if is_random else 0)]
        span_id = self.id_generator.generate_span_id()
        is_valid = 0 < trace_id < _TRACE_IDS and 0 < span_id < _SPAN_IDS
        own = _new_context(SpanContext, (trace_id, span_id, False, flags, state, is_valid))
        at_end = self._measure(parent_context, decision)
        if decision is Decision.DROP:
            return NonRecordingSpan(own)
        ticks = monotonic_ns()
        if clock_ns is None:
            clock_ns = time_ns() - ticks
        span = Span(
            name,
            own,
            parent_context,
            kind,
            legal,
            legal_links(links, self._span_limits) if links else (),
            self,
            clock_ns,
            clock_ns + ticks if start_time is None else start_time,
            record_exception,
            set_status_on_exception,
            at_end,
            dropped,
        )
        self.span_processor.on_start(span, parent_context=context)
        return span

    def _decide(
        self,
        parent: SpanContext | None,
        context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link],
    ) -> tuple[Decision, TraceState, dict[str, Any], int]:
        """Return the decision, the trace state, and the attributes with how many of them the limits dropped."""
        sampler = self.sampler
        if (
            parent is not None
            and not parent[2]  # is_remote
            and type(sampler) is CountedSampler
            and sampler.follows_local_parent
            and (context is None or OPERATION_RATIO_KEY not in context)
        ):
            # What the sampler would say, without the 3 µs of asking it.
            if not parent[3] & _SAMPLED:
                sampler.leave_out()
                return Decision.DROP, parent[4], {}, 0
            return Decision.RECORD_AND_SAMPLE, parent[4], *legal_attributes(attributes, self._span_limits)
        result = sampler.should_sample(context, trace_id, name, kind, attributes, links)
        state = result.trace_state or DEFAULT_TRACE_STATE
        if result.decision is Decision.DROP:
            return result.decision, state, {}, 0
        decided = cast("Attributes", result.attributes)  # pyright: ignore[reportUnknownMemberType]
        return result.decision, state, *legal_attributes(decided, self._span_limits)

    def _measure(self, parent: SpanContext | None, decision: Decision) -> Callable[[], None] | None:
        """Count the span in the SDK's metrics of itself, if they are on; return what counts its end."""
        metrics: Any = getattr(self, "_tracer_metrics", None)
        if metrics is None or type(metrics).__name__ == "NoOpTracerMetrics":
            return None
        count_end: Callable[[], None] = metrics.start_span(parent, decision)
        return count_end
