"""
Spans of operations, on the shortest way: what `@traced` and `traced_block` make with the engine.

A call's span is its ActiveSpan too, so one object is made; all that its start takes happens in one frame, and all that
its end takes in another.
"""
# ruff: noqa: SLF001  # the fields of this room's own classes
# pyright: reportPrivateUsage=false, reportUnknownVariableType=false

from __future__ import annotations

from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry.context import Context
from opentelemetry.trace import DEFAULT_TRACE_STATE, NonRecordingSpan, SpanContext
from typing_extensions import override

from tracekit._attributes import attribute_items
from tracekit._config import runtime
from tracekit._context import ACTIVE_KEY, LEFT, SPAN_KEY, current_context, replace_context
from tracekit._diagnostics import FORGIVEN, forgive
from tracekit._relations import ORIGIN_KEY
from tracekit._span import ActiveSpan, AnySpan, start
from tracekit.recording.span import FLAGS, OK, RANDOM, SAMPLED, UNSET, Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracekit._operation import Operation, Plan
    from tracekit.recording.guards import EntropyIdGenerator
    from tracekit.recording.tracer import Tracer

_new: Final = object.__new__
# The flags that a span takes over from its parent, and those of a new trace.
_KEPT: Final = SAMPLED | RANDOM


@final
class OperationSpan(ActiveSpan, Span):
    """The span of an operation, which records and is sampled. Made by `begin_operation` only."""

    __slots__ = ("inside", "outside", "plan")

    # Nobody enters it with `with`, and nobody measures it.
    _record_exception = True
    _set_status_on_exception = True
    _record_end_metrics = None

    @property
    def span(self) -> Span:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]  # a field
        """Itself."""
        return self

    @override
    def succeed(self, result: Any) -> None:
        # As ActiveSpan.succeed and Span.end do, written out: 0.4 µs less.
        try:
            if current_context() is self.inside:
                replace_context(self.outside)
            else:
                self._leave_from_elsewhere()
            self.outside = self.inside = LEFT
            plan = self.plan
            if plan.reads_result and self._end_time is None:
                try:
                    self.set_attributes(plan.operation.extraction.of_result(result, plan.settings))
                except FORGIVEN as error:  # the recursion limit
                    forgive(plan.name, "setting the outcome", error)
            if self._status is UNSET and plan.sets_status and self._end_time is None:
                self._status = OK
            self._end()
        except BaseException:
            self.end_interrupted()
            raise

    @override
    def _end(self) -> None:
        # Before anything has happened, for a Ctrl-C comes after calls.
        end_time = self._clock_ns + monotonic_ns()
        try:
            del self._is_open
        except AttributeError:
            # The body has ended it.
            return
        self._end_time = end_time
        course = self._course
        if course.is_of_parent_process:
            return
        try:
            course.pipeline.end(self)
        except RecursionError:
            # The stack has no room for what is to be done; it will have, soon.
            course.pipeline.late.append(self)
            course.pipeline.end = course.pipeline.end_late
        except FORGIVEN as error:  # a processor of the user's
            forgive(self.plan.name, "ending the span", error)


@final
class UnsampledSpan(ActiveSpan, NonRecordingSpan):
    """
    The span of an operation that begins a trace which is not sampled: it carries the ids, and that is all.

    Made by `begin_operation` only, with the low half of the trace id, which has decided; the rest is drawn when it is
    asked for.
    """

    __slots__ = ("_ids", "_low_trace_id", "_made_context", "inside", "outside", "plan")

    _ids: EntropyIdGenerator
    _low_trace_id: int
    _made_context: SpanContext | None

    @property
    def _context(self) -> SpanContext:  # type: ignore[override]  # a field there
        made = self._made_context
        if made is None:
            trace_id = self._ids.generate_span_id() << 64 | self._low_trace_id
            made = SpanContext(trace_id, self._ids.generate_span_id(), is_remote=False, trace_flags=FLAGS[RANDOM])
            # Atomic: of two threads that ask first, both get what one has drawn.
            made = cast("SpanContext", vars(self).setdefault("context", made))
            self._made_context = made
        return made

    @property
    def span(self) -> NonRecordingSpan:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]  # a field
        """Itself."""
        return self

    @override
    def get_span_context(self) -> SpanContext:
        return self._context

    @override
    def succeed(self, result: Any) -> None:
        try:
            if current_context() is self.inside:
                replace_context(self.outside)
            else:
                self._leave_from_elsewhere()
            self.outside = self.inside = LEFT
        except BaseException:
            self.end_interrupted()
            raise

    @override
    def _end(self) -> None:
        """Nothing is to be told."""

    @override
    def fail(self, exc: BaseException) -> None:
        self.succeed(None)


def begin_operation(  # noqa: C901, PLR0912, PLR0915  # one frame
    tracer: Tracer, operation: Operation, values: tuple[Any, ...], attributes: Mapping[str, Any] | None = None
) -> ActiveSpan | None:
    """
    Start a span for a call, as a child of the current one, and make it current.

    What `start`, `Tracer.start_span` and `AnySpan` do together, for the usual case, in one frame: a third of the cost.
    Where the case is another (a remote parent, a sampler to ask, a trace to link to), they do it.

    Args:
        tracer: An engine's tracer, the one of the operation's plan.
        operation: What is called.
        values: Its arguments as the wrapper collects them.
        attributes: What this one span has besides.

    Returns:
        The active span; None below a span that is not sampled.
    """
    plan = operation.plan
    if plan.state is not runtime.state or plan.tracer is not tracer:
        return start(operation, values, attributes)
    try:
        course = tracer.course or tracer.settle()
        if not course.is_plain:
            return AnySpan(plan, values, attributes)
        base = current_context()
        parent: Any = base.get(SPAN_KEY)
        kind: Any = type(parent)
        ids = course.ids
        parent_context: SpanContext | None = None
        if (kind is OperationSpan or kind is Span) and parent._trace_flags & SAMPLED:
            parent_context = parent._context
            trace_id: int = parent._trace_id
            flags, state = parent._trace_flags & _KEPT, parent._trace_state
            clock_ns: int = parent._clock_ns
            ticks = monotonic_ns()
        elif kind is UnsampledSpan:
            next(course.counters.not_sampled)
            return None
        elif parent is None and course.root_bound is not None and (not base or ORIGIN_KEY not in base):
            low = next(ids.drawn, 0) or ids.draw()
            if low >= course.root_bound:
                next(course.counters.not_sampled)
                return _unsampled(low, ids, plan, base)
            trace_id = (next(ids.drawn, 0) or ids.draw()) << 64 | low
            flags, state = _KEPT, DEFAULT_TRACE_STATE
            ticks = monotonic_ns()
            clock_ns = time_ns() - ticks
        else:
            return AnySpan(plan, values, attributes)

        own = plan.fixed.copy()
        if attributes is not None:
            settings = plan.settings
            own.update(attribute_items(attributes, settings.redactor, settings.string_limit, plan.name))
        if plan.reading.reads:
            plan.reading.into(own, values)

        # Field by field: 0.2 µs less than by an `__init__`.
        span = _new(OperationSpan)
        span._name = plan.name
        span._trace_id = trace_id
        span._span_id = next(ids.drawn, 0) or ids.draw()
        span._trace_flags = FLAGS[flags]
        span._trace_state = state
        span._made_context = None
        span._parent = parent_context
        span._kind = plan.kind
        span._attributes = own
        span._dropped_attributes = 0
        span._events = span._links = ()
        span._status = UNSET
        span._course = course
        span._clock_ns = clock_ns
        span._start_time = clock_ns + ticks
        span._end_time = None
        span._is_open = True
        if len(own) > course.most_attributes:
            span._attributes = {}
            span.set_attributes(own)
        span.plan = plan
        span.outside = base
        made: dict[str, Any] = {SPAN_KEY: span, ACTIVE_KEY: span}
        span.inside = inside = Context({**base, **made} if base else made)
        # From here on nothing fails, not even at the recursion limit: what is counted will end.
        if course.pipeline.starts:
            course.pipeline.on_start(span, base)
            replace_context(inside)
            return span
        try:
            next(course.counters.sampled)
            replace_context(inside)
        except BaseException as exc:  # a Ctrl-C that has waited for the end of these calls
            span.fail(exc)
            raise
        return span  # noqa: TRY300  # as above
    except FORGIVEN as error:  # a processor of the user's, the recursion limit
        forgive(operation.name, "starting the span", error)
        return None


def _unsampled(low_trace_id: int, ids: EntropyIdGenerator, plan: Plan, base: Context) -> UnsampledSpan:
    span = _new(UnsampledSpan)
    span._low_trace_id = low_trace_id
    span._ids = ids
    span._made_context = None
    span.plan = plan
    span.outside = base
    made: dict[str, Any] = {SPAN_KEY: span, ACTIVE_KEY: span}
    span.inside = inside = Context({**base, **made} if base else made)
    try:
        replace_context(inside)
    except BaseException:
        span.end_interrupted()
        raise
    return span
