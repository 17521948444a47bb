"""The tracer of tracekit's engine: asks the sampler where it has to, starts spans."""

from __future__ import annotations

from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING, Any, cast, final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceState,
)
from opentelemetry.trace import Span as ApiSpan
from typing_extensions import override

from tracekit._context import SPAN_KEY, current_context
from tracekit._ratio import OPERATION_RATIO_KEY
from tracekit.recording.course import Course
from tracekit.recording.guards import CountedSampler
from tracekit.recording.legal import legal_attributes, legal_links
from tracekit.recording.operation_span import begin_operation
from tracekit.recording.span import FLAGS, RANDOM, SAMPLED, SPAN_IDS, TRACE_IDS, Span, new_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import SpanLimits
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link
    from opentelemetry.util.types import Attributes


@final
class Tracer(SdkTracer):
    """An SDK tracer that makes tracekit's spans. Never made anew: `TracerProvider` turns the SDK's into it."""

    # Settled at the next span, and again when anything of the tracer is set.
    course: Course | None = None
    # Another object after each change.
    _changed: object = None
    begin_operation = begin_operation

    @override
    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        self.renew()

    def renew(self) -> None:
        """Settle again, at the next span, how spans are made."""
        object.__setattr__(self, "_changed", object())
        object.__setattr__(self, "course", None)

    def settle(self) -> Course:
        """Settle how spans are made from now on."""
        changed = self._changed
        course = Course(self)
        object.__setattr__(self, "course", course)
        if self._changed is not changed:
            # By another thread, which may have forgotten the course before it was there: this one is for one span only.
            object.__setattr__(self, "course", None)
        return course

    @property
    def limits(self) -> SpanLimits:
        """The limits of its next span."""
        return self._span_limits

    @property
    def scope(self) -> InstrumentationScope:
        """What its spans say they were made by."""
        return self._instrumentation_scope

    @property
    def is_enabled(self) -> bool:
        """Whether the provider's configuration lets it make spans."""
        return self._tracer_config.is_enabled

    @property
    def has_metrics(self) -> bool:
        """Whether the SDK counts its spans in metrics of its own."""
        metrics: Any = getattr(self, "_tracer_metrics", None)
        return metrics is not None and type(metrics).__name__ != "NoOpTracerMetrics"

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
        if isinstance(parent, Span):
            # One clock for a local trace: a child lies within its parent, whatever happens to the time of day.
            clock_ns = parent.clock_ns
            parent_context: SpanContext | None = parent.get_span_context()
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
            is_random = bool(parent_context[3] & RANDOM)

        decision, state, legal, dropped = self._decide(
            parent_context, context, trace_id, name, kind, attributes, links or ()
        )
        flags = FLAGS[(SAMPLED if decision is Decision.RECORD_AND_SAMPLE else 0) | (RANDOM if is_random else 0)]
        span_id = self.id_generator.generate_span_id()
        at_end = self._measure(parent_context, decision)
        if decision is Decision.DROP:
            is_valid = 0 < trace_id < TRACE_IDS and 0 < span_id < SPAN_IDS
            return NonRecordingSpan(new_context(SpanContext, (trace_id, span_id, False, flags, state, is_valid)))
        ticks = monotonic_ns()
        if clock_ns is None:
            clock_ns = time_ns() - ticks
        span = Span(
            name,
            trace_id,
            span_id,
            flags,
            state,
            parent_context,
            kind,
            legal,
            legal_links(links, self._span_limits) if links else (),
            self.course or self.settle(),
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
        if type(sampler) is CountedSampler and (context is None or OPERATION_RATIO_KEY not in context):
            # What the sampler would say, without the 3 µs of asking it.
            is_sampled = sampler.known_decision(parent, trace_id)
            if is_sampled is not None:
                state = DEFAULT_TRACE_STATE if parent is None else parent[4]
                if not is_sampled:
                    sampler.leave_out()
                    return Decision.DROP, state, {}, 0
                return Decision.RECORD_AND_SAMPLE, state, *legal_attributes(attributes, self._span_limits)
        result = sampler.should_sample(context, trace_id, name, kind, attributes, links)
        state = result.trace_state or DEFAULT_TRACE_STATE
        if result.decision is Decision.DROP:
            return result.decision, state, {}, 0
        decided = cast("Attributes", result.attributes)  # pyright: ignore[reportUnknownMemberType]
        return result.decision, state, *legal_attributes(decided, self._span_limits)

    def _measure(self, parent: SpanContext | None, decision: Decision) -> Callable[[], None] | None:
        """Count the span in the SDK's metrics of itself, if they are on; return what counts its end."""
        if not self.has_metrics:
            return None
        count_end: Callable[[], None] = self._tracer_metrics.start_span(parent, decision)
        return count_end
