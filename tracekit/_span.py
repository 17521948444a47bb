"""The life of one span: start, current, outcome, end. Nothing else attaches a context or ends a span."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, Status, StatusCode

from tracekit import _exceptions
from tracekit._attributes import attribute_items
from tracekit._config import READS_GLOBAL, runtime
from tracekit._context import ACTIVE_KEY, LEFT, SPAN_KEY, current_context, replace_context
from tracekit._diagnostics import FORGIVEN, forgive
from tracekit._ratio import start_operation_span
from tracekit._relations import ORIGIN_KEY, relations
from tracekit._semconv import ERROR_TYPE, ERROR_TYPE_OTHER, EVENT_CANCELLED, GENERATOR_ITEMS

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from tracekit._operation import Begin, Operation, Plan

_OK: Final = Status(StatusCode.OK)


def start(
    operation: Operation, values: tuple[Any, ...], attributes: Mapping[str, Any] | None = None
) -> ActiveSpan | None:
    """
    Start a span for a call of *operation* and make it current.

    Never raises: where something fails, or no provider is set, there is no span and the call goes on without one. Below
    a span that is not sampled there is none either.

    Args:
        operation: What is called.
        values: Its arguments as the wrapper collects them, read only if the span records.
        attributes: What this one span has at its start, besides the fixed attributes of *operation*.
    """
    try:
        plan = operation.plan
        if plan.state is not runtime.state or not plan.is_settled:
            plan = operation.settle()
        if plan.tracer is None:
            operation.begin = _begin_nothing if READS_GLOBAL and operation.provider is None else None
            return None
        begin = operation.begin = _shorter_way(plan)
        if begin is not None:
            return cast("ActiveSpan | None", begin(operation, values, attributes))
        gate = operation.gate
        return None if gate is not None and not gate() else AnySpan(plan, values, attributes)
    except FORGIVEN as error:  # a sampler, processor or id generator of the user's, the recursion limit
        forgive(operation.name, "starting the span", error)
        return None


def _shorter_way(plan: Plan) -> Begin | None:
    """Return the engine's own way to begin calls, which comes back to `start` once *plan* is not right any more."""
    if not plan.is_settled or not plan.operation.is_simple or plan.settings.metrics is not None:
        return None
    return cast("Begin | None", getattr(plan.tracer, "begin_operation", None))


def _begin_nothing(
    operation: Operation, values: tuple[Any, ...], attributes: Mapping[str, Any] | None = None
) -> ActiveSpan | None:
    """Begin a call for which no provider is set: 0.1 µs less than by `start`."""
    plan = operation.plan
    if plan.provider is None and plan.state is runtime.state and trace_api._TRACER_PROVIDER is None:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return None
    return start(operation, values, attributes)


class ActiveSpan:
    """
    A span that has started and is current until it is left.

    Leaving puts back the context that was current before, wherever that is still right: a block closed by the garbage
    collector or in another task leaves that place's own context alone.
    """

    # No literal: mypy would have it that nothing is ever assigned. Each kind has the fields below.
    __slots__ = tuple[str, ...]()

    plan: Plan
    span: Span
    # The context that is current inside it, and the one that was before.
    inside: Context
    outside: Context

    @property
    def service(self) -> str:
        """The service of the operation, which blocks inside take over."""
        return self.plan.operation.service

    def leave(self) -> None:
        """Stop being current."""
        if current_context() is self.inside:
            replace_context(self.outside)
        else:
            self._leave_from_elsewhere()
        # A task that starts its successor from inside a span would else keep all contexts before it alive.
        self.outside = self.inside = LEFT

    def _leave_from_elsewhere(self) -> None:
        active = current_context().get(ACTIVE_KEY)
        if active is self:
            # Something inside has attached a context, and not detached it; or a generator's body is being left.
            replace_context(self.outside)
        # Not found at all: this is another task's context, or the collector's.
        while active is not self and isinstance(active, ActiveSpan):
            below = active.outside.get(ACTIVE_KEY)
            if below is not self:
                active = below
            elif self.plan.operation.func is None:
                # Two generators holding blocks, closed first in first out: the other must not bring this one back.
                active.outside = self.outside
                return
            else:
                # A call that left a block open inside: nothing of its own is current where it was called.
                replace_context(self.outside)
                return

    def pause(self) -> Context:
        """Put the context of before back between two steps of a generator; returns the body's, to resume with."""
        body = current_context()
        replace_context(self.outside)
        return body

    def resume(self, body: Context) -> None:
        """Put the *body*'s context in place for a step; whoever steps gets his own back."""
        self.outside = current_context()
        replace_context(body)

    def count_items(self, items: int) -> None:
        """Set how many *items* the generator has yielded."""
        if self.span.is_recording():
            self.span.set_attribute(GENERATOR_ITEMS, items)

    def note_error(self) -> None:
        """Count the call as failed, whatever it returns."""

    def succeed(self, result: Any) -> None:
        """End with *result*: its attributes, status OK unless the body has set one."""
        try:
            self.leave()
            self.stop_clock(None)
            plan, span = self.plan, self.span
            if span.is_recording():
                try:
                    if plan.reads_result:
                        span.set_attributes(plan.operation.extraction.of_result(result, plan.settings))
                    if plan.sets_status and status_of(span) is StatusCode.UNSET:
                        span.set_status(_OK)
                except FORGIVEN as error:  # a span of another SDK
                    forgive(plan.operation.name, "setting the outcome", error)
            self._end()
        except BaseException:
            self.end_interrupted()
            raise

    def fail(self, exc: BaseException) -> None:
        """End with *exc* leaving the operation."""
        try:
            self.leave()
            self.stop_clock(exc)
            if self.span.is_recording():
                try:
                    self._record_outcome(exc)
                except FORGIVEN as error:  # a span of another SDK, a hostile exception
                    forgive(self.plan.operation.name, "setting the outcome", error)
            self._end()
        except BaseException:
            self.end_interrupted()
            raise

    def end_interrupted(self) -> None:
        """Leave and end, as far as that is not done: a Ctrl-C has come in the middle of it."""
        if self.inside is not LEFT:
            self.leave()
        self._end()

    def finish(self, exc: BaseException | None) -> None:
        """End a block that *exc* has left, or that has come to its end."""
        if exc is None:
            self.succeed(None)
        else:
            self.fail(exc)

    def _end(self) -> None:
        """End the span; processors run here."""
        try:
            self.span.end()
        except FORGIVEN as error:  # a processor of the user's
            forgive(self.plan.operation.name, "ending the span", error)
        self.measure()

    def stop_clock(self, exc: BaseException | None) -> None:
        """Note how long the call took, and what it failed with."""

    def measure(self) -> None:
        """Hand over what was noted."""

    def is_failure(self, exc: BaseException) -> bool:
        """Tell whether *exc* means that the operation has failed."""
        plan = self.plan
        return not (
            issubclass(type(exc), (StopIteration, StopAsyncIteration, GeneratorExit))
            or _exceptions.is_cancellation(exc)
            or _is_clean_exit(exc)
            or issubclass(type(exc), (*plan.operation.expected, *plan.settings.expected))
        )

    def _record_outcome(self, exc: BaseException) -> None:
        operation, settings, span = self.plan.operation, self.plan.settings, self.span
        # By type: an exception's `__class__` may be a property.
        if issubclass(type(exc), (StopIteration, StopAsyncIteration)):
            return
        if issubclass(type(exc), GeneratorExit) or _exceptions.is_cancellation(exc):
            span.add_event(EVENT_CANCELLED)
            return
        if _is_clean_exit(exc):
            if operation.sets_status and status_of(span) is StatusCode.UNSET:
                span.set_status(StatusCode.OK)
            return
        limit = settings.string_limit
        if operation.records_exception:
            message = _exceptions.record(span, exc, limit)
        else:
            message = _exceptions.exception_message(exc, limit)
        if not self.is_failure(exc):
            return
        span.set_attribute(ERROR_TYPE, _exceptions.exception_type(exc))
        if operation.sets_status:
            span.set_status(StatusCode.ERROR, _exceptions.status_description(exc, message, limit))


@final
class AnySpan(ActiveSpan):
    """An active span that any tracer has made, measured if operations are."""

    __slots__ = ("_duration_ns", "_error_type", "_started_ns", "inside", "outside", "plan", "span")

    def __init__(self, plan: Plan, values: tuple[Any, ...], attributes: Mapping[str, Any] | None) -> None:
        self.plan = plan
        settings, operation = plan.settings, plan.operation
        if settings.metrics is not None:
            self._started_ns = perf_counter_ns()
            self._error_type: str | None = None
        self.outside = base = current_context()
        links: list[Link] | None = None
        if not operation.is_simple or ORIGIN_KEY in base:
            base, links = relations(operation, values, base)
        fixed = plan.fixed
        if attributes is not None:
            fixed = fixed | attribute_items(attributes, settings.redactor, settings.string_limit, operation.name)
        tracer = cast("Tracer", plan.tracer)
        if operation.sample is None:
            self.span = span = tracer.start_span(operation.name, base, operation.kind, fixed, links)
        else:
            self.span = span = start_operation_span(
                tracer, operation.sample, operation.name, base, kind=operation.kind, attributes=fixed, links=links
            )
        try:
            if plan.reading.reads and span.is_recording():
                plan.reading.onto(span, values)
            made: dict[str, Any] = {**base, SPAN_KEY: span, ACTIVE_KEY: self}
            self.inside = Context(made)
            replace_context(self.inside)
        except BaseException:
            # The call goes on without it (the recursion limit), or there is none any more (a Ctrl-C). A span that never
            # ended would be missing in the books.
            span.end()
            replace_context(self.outside)
            raise

    def note_error(self) -> None:
        if self.plan.settings.metrics is not None:
            self._error_type = ERROR_TYPE_OTHER

    def stop_clock(self, exc: BaseException | None) -> None:
        if self.plan.settings.metrics is None:
            return
        self._duration_ns = perf_counter_ns() - self._started_ns
        try:
            if exc is not None and self.is_failure(exc):
                self._error_type = _exceptions.exception_type(exc)
        except FORGIVEN as error:  # a hostile exception
            forgive(self.plan.operation.name, "measuring", error)

    def measure(self) -> None:
        # Asked for once more: those of the start are closed if `configure()` was called meanwhile.
        if self.plan.settings.metrics is None or (metrics := runtime.settings.metrics) is None:
            return
        name = self.plan.operation.name
        try:
            metrics.measure(name, self._duration_ns / 1e9, self._error_type, self.span)
        except FORGIVEN as error:  # a meter provider of the user's
            forgive(name, "measuring", error)


def _is_clean_exit(exc: BaseException) -> bool:
    return issubclass(type(exc), SystemExit) and cast("SystemExit", exc).code in (None, 0)


def status_of(span: Span) -> StatusCode:
    """Return the status code *span* has by now; UNSET for spans that do not tell."""
    return getattr(getattr(span, "status", None), "status_code", StatusCode.UNSET)
