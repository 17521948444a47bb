"""The life of one span: start, current, outcome, end. Nothing else attaches a context or ends a span."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, StatusCode, Tracer

from tracekit import _exceptions
from tracekit._attributes import attribute_items
from tracekit._config import runtime
from tracekit._context import ACTIVE_KEY, LEFT, SPAN_KEY, current_context, replace_context
from tracekit._diagnostics import FORGIVEN, forgive
from tracekit._ratio import start_operation_span
from tracekit._semconv import ERROR_TYPE, ERROR_TYPE_OTHER, EVENT_CANCELLED, GENERATOR_ITEMS
from tracekit.propagation import extract

if TYPE_CHECKING:
    from tracekit._operation import Operation

# Under this key a context holds the span that traces which begin there are linked to.
ORIGIN_KEY: Final = "tracekit-origin"


def start(
    operation: Operation,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    attributes: Mapping[str, Any] | None = None,
) -> ActiveSpan | None:
    """
    Start a span for a call of *operation* and make it current.

    Never raises: where something fails, or no provider is set, there is no span and the call goes on without one.

    Args:
        operation: What is called.
        args: Its positional arguments, read only if the span records.
        kwargs: Its keyword arguments, likewise.
        attributes: What this one span has at its start, besides the fixed attributes of *operation*.
    """
    tracer = operation.tracer()
    if tracer is None:
        return None
    try:
        return ActiveSpan(operation, tracer, args, kwargs, attributes)
    except FORGIVEN as error:  # a sampler, processor or id generator of the user's, the recursion limit
        forgive(operation.name, "starting the span", error)
        return None


@final
class ActiveSpan:
    """
    A span that has started and is current until it is left.

    Leaving puts back the context that was current before, wherever that is still right: a block closed by the garbage
    collector or in another task leaves that place's own context alone.
    """

    __slots__ = (
        "_duration_ns",
        "_error_type",
        "_operation",
        "_previous",
        "_settings",
        "_started_ns",
        "records",
        "span",
    )

    def __init__(
        self,
        operation: Operation,
        tracer: Tracer,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        attributes: Mapping[str, Any] | None,
    ) -> None:
        self._operation = operation
        self._settings = settings = runtime.settings
        if settings.metrics is not None:
            self._started_ns = perf_counter_ns()
            self._error_type: str | None = None
        self._previous = base = current_context()
        links: list[Link] | None = None
        if operation.root or operation.parent is not None or operation.links is not None or ORIGIN_KEY in base:
            base, links = _relations(operation, args, kwargs, base)
        fixed = operation.fixed_attributes(settings)
        if attributes is not None:
            fixed = fixed | attribute_items(attributes, settings.redactor, settings.string_limit, operation.name)
        if operation.sample is None:
            self.span = tracer.start_span(operation.name, base, operation.kind, fixed, links)
        else:
            self.span = start_operation_span(
                tracer, operation.sample, operation.name, base, kind=operation.kind, attributes=fixed, links=links
            )
        self.records = self.span.is_recording()
        if self.records:
            read = operation.extraction.of_arguments(args, kwargs, settings)
            if read:
                # The engine's spans need not be told twice that they are legal.
                getattr(self.span, "set_legal_attributes", self.span.set_attributes)(read)
        values: dict[str, Any] = {**base, SPAN_KEY: self.span, ACTIVE_KEY: self}
        replace_context(Context(values))

    @property
    def service(self) -> str:
        """The service of the operation, which blocks inside take over."""
        return self._operation.service

    def leave(self) -> None:
        """Stop being current."""
        active = current_context().get(ACTIVE_KEY)
        if active is self:
            replace_context(self._previous)
        else:
            self._leave_from_below(active)
        # A task that starts its successor from inside a span would else keep all contexts before it alive.
        self._previous = LEFT

    def _leave_from_below(self, active: object) -> None:
        # Not found at all: this is another task's context, or the collector's.
        while isinstance(active, ActiveSpan):
            below = active._previous.get(ACTIVE_KEY)  # noqa: SLF001  # of the same class
            if below is not self:
                active = below
            elif self._operation.func is None:
                # Two generators holding blocks, closed first in first out: the other must not bring this one back.
                active._previous = self._previous  # noqa: SLF001  # as above
                return
            else:
                # A call that left a block open inside: nothing of its own is current where it was called.
                replace_context(self._previous)
                return

    def pause(self) -> Context:
        """Put the context of before back between two steps of a generator; returns the body's, to resume with."""
        body = current_context()
        replace_context(self._previous)
        return body

    def resume(self, body: Context) -> None:
        """Put the *body*'s context in place for a step; whoever steps gets his own back."""
        self._previous = current_context()
        replace_context(body)

    def count_items(self, items: int) -> None:
        """Set how many *items* the generator has yielded."""
        if self.records:
            self.span.set_attribute(GENERATOR_ITEMS, items)

    def note_error(self) -> None:
        """Count the call as failed, whatever it returns."""
        if self._settings.metrics is not None:
            self._error_type = ERROR_TYPE_OTHER

    def succeed(self, result: Any) -> None:
        """End with *result*: its attributes, status OK unless the body has set one."""
        self.leave()
        if self._settings.metrics is not None:
            self._stop_clock()
        if self.records:
            try:
                if self._operation.extraction.reads_result:
                    self.span.set_attributes(self._operation.extraction.of_result(result, self._settings))
                if self._operation.sets_status and status_of(self.span) is StatusCode.UNSET:
                    self.span.set_status(StatusCode.OK)
            except FORGIVEN as error:  # a span of another SDK
                forgive(self._operation.name, "setting the outcome", error)
        self.end()

    def fail(self, exc: BaseException) -> None:
        """End with *exc* leaving the operation."""
        self.leave()
        if self._settings.metrics is not None:
            self._stop_clock(exc)
        if self.records:
            try:
                self._record_outcome(exc)
            except FORGIVEN as error:  # a span of another SDK, a hostile exception
                forgive(self._operation.name, "setting the outcome", error)
        self.end()

    def finish(self, exc: BaseException | None) -> None:
        """End a block that *exc* has left, or that has come to its end."""
        if exc is None:
            self.succeed(None)
        else:
            self.fail(exc)

    def end(self) -> None:
        """End the span; processors run here."""
        try:
            self.span.end()
        except FORGIVEN as error:  # a processor of the user's
            forgive(self._operation.name, "ending the span", error)
        if self._settings.metrics is not None:
            self._measure()

    def _stop_clock(self, exc: BaseException | None = None) -> None:
        self._duration_ns = perf_counter_ns() - self._started_ns
        try:
            if exc is not None and self._is_failure(exc):
                self._error_type = _exceptions.exception_type(exc)
        except FORGIVEN as error:  # a hostile exception
            forgive(self._operation.name, "measuring", error)

    def _measure(self) -> None:
        # Asked for once more: those of the start are closed if `configure()` was called meanwhile.
        metrics = runtime.settings.metrics
        if metrics is None:
            return
        try:
            metrics.measure(self._operation.name, self._duration_ns / 1e9, self._error_type, self.span)
        except FORGIVEN as error:  # a meter provider of the user's
            forgive(self._operation.name, "measuring", error)

    def _is_failure(self, exc: BaseException) -> bool:
        return not (
            issubclass(type(exc), (StopIteration, StopAsyncIteration, GeneratorExit))
            or _exceptions.is_cancellation(exc)
            or _is_clean_exit(exc)
            or issubclass(type(exc), (*self._operation.expected, *self._settings.expected))
        )

    def _record_outcome(self, exc: BaseException) -> None:
        operation, settings, span = self._operation, self._settings, self.span
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
        if not self._is_failure(exc):
            return
        span.set_attribute(ERROR_TYPE, _exceptions.exception_type(exc))
        if operation.sets_status:
            span.set_status(StatusCode.ERROR, _exceptions.status_description(exc, message, limit))


def _is_clean_exit(exc: BaseException) -> bool:
    return issubclass(type(exc), SystemExit) and cast("SystemExit", exc).code in (None, 0)


def status_of(span: Span) -> StatusCode:
    """Return the status code *span* has by now; UNSET for spans that do not tell."""
    return getattr(getattr(span, "status", None), "status_code", StatusCode.UNSET)


def _relations(
    operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], current: Context
) -> tuple[Context, list[Link]]:
    """Return the context the span starts in, and its links, as `root`, `parent` and `links` ask for."""
    base, links = current, list[Link]()
    if operation.root:
        before = trace_api.get_current_span(current).get_span_context()
        if before.is_valid:
            links.append(Link(before))
        base = trace_api.set_span_in_context(trace_api.INVALID_SPAN, current)
    elif operation.parent is not None:
        given = operation.parent(args, kwargs)
        extracted = given if isinstance(given, Context) else extract(given)
        if trace_api.get_current_span(extracted).get_span_context().is_valid:
            values: dict[str, Any] = {**current, **extracted}
            base = Context(values)
    origin = current.get(ORIGIN_KEY)
    if isinstance(origin, SpanContext) and not trace_api.get_current_span(base).get_span_context().is_valid:
        links.append(Link(origin))
    if operation.links is not None:
        links.extend(link_to(target) for target in _targets(operation.links(args, kwargs)))
    return base, [link for link in links if link.context.is_valid]


def begin_new_traces() -> None:
    """Leave the current trace for good: what is traced from now on begins new ones, each linked to the current span."""
    before = current_context()
    values: dict[str, Any] = {key: value for key, value in before.items() if key not in (SPAN_KEY, ACTIVE_KEY)}
    origin = trace_api.get_current_span(before).get_span_context()
    if origin.is_valid:
        values[ORIGIN_KEY] = origin
    replace_context(Context(values))


def _targets(given: object) -> Sequence[object]:
    # A list of pairs is one carrier (ASGI headers); a list of anything else is several.
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        return (given,)
    items = cast("Sequence[object]", given)
    are_pairs = all(isinstance(item, tuple) and not isinstance(item, SpanContext) for item in items)
    return (items,) if are_pairs else items


def link_to(target: object) -> Link:
    """Return a link to *target*: a Link, a SpanContext, a Span, a Context or a carrier of one."""
    if isinstance(target, Link):
        settings = runtime.settings
        return Link(
            target.context, attribute_items(target.attributes, settings.redactor, settings.string_limit, "links")
        )
    if isinstance(target, SpanContext):
        return Link(target)
    if isinstance(target, Span):
        return Link(target.get_span_context())
    context = target if isinstance(target, Context) else extract(target)
    return Link(trace_api.get_current_span(context).get_span_context())
