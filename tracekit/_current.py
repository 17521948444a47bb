"""Talking to the current span: events, attributes, errors, links. Cheap no-ops where nothing records."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, cast, final

from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    StatusCode,
    format_span_id,
    format_trace_id,
    get_current_span,
)
from typing_extensions import Self

from tracekit import _exceptions
from tracekit._attributes import AttributeValue, attribute_items, attribute_name, message_text, put
from tracekit._config import runtime
from tracekit._context import ACTIVE_KEY, current_context
from tracekit._diagnostics import FORGIVEN, forgive, report_failure
from tracekit._relations import link_to
from tracekit._semconv import ERROR_TYPE
from tracekit._span import ActiveSpan

_CURRENT: Final = "the current span"


def current_span() -> Span:
    """Return the current OpenTelemetry span; one that does not record where there is none."""
    return get_current_span()


def current_trace_id() -> str | None:
    """Return the current trace id as 32 hex digits, None without a valid span."""
    context = get_current_span().get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else None


def current_span_id() -> str | None:
    """Return the current span id as 16 hex digits, None without a valid span."""
    context = get_current_span().get_span_context()
    return format_span_id(context.span_id) if context.is_valid else None


def add_event(name: str, attributes: Mapping[str, Any] | None = None, *, timestamp_ns: int | None = None) -> None:
    """
    Add an event to the current span.

    Args:
        name: What happened.
        attributes: Keys to values; any value is made legal, or left out.
        timestamp_ns: When, in nanoseconds since the epoch; now by default.

    Source: OpenTelemetry specification, trace/api.md#add-events.
    """
    span = get_current_span()
    if span.is_recording():
        _add_event(span, name, attributes, timestamp_ns)


def set_attribute(key: str, value: Any) -> None:
    """Set an attribute of the current span; any *value* is made legal, or left out."""
    span = get_current_span()
    if not span.is_recording():
        return
    attributes: dict[str, AttributeValue] = {}
    settings = runtime.settings
    put(attributes, key, value, settings.redactor, settings.string_limit, _CURRENT)
    _set_attributes(span, attributes)


def set_attributes(attributes: Mapping[str, Any]) -> None:
    """Set attributes of the current span; any value is made legal, or left out."""
    span = get_current_span()
    if span.is_recording():
        settings = runtime.settings
        _set_attributes(span, attribute_items(attributes, settings.redactor, settings.string_limit, _CURRENT))


def set_error(description: str | BaseException) -> None:
    """
    Set the current span's status to ERROR: the operation has failed without raising.

    Args:
        description: What went wrong, for people to read; or an exception that was handled, whose type is then
            `error.type`. `record_exception` adds its stack trace.
    """
    span = get_current_span()
    active = current_context().get(ACTIVE_KEY)
    if isinstance(active, ActiveSpan) and active.span is span:
        active.note_error()
    if not span.is_recording():
        return
    try:
        settings = runtime.settings
        if issubclass(type(description), BaseException):
            exc = cast("BaseException", description)
            message = _exceptions.exception_message(exc, settings.string_limit)
            said = _exceptions.status_description(exc, message, settings.string_limit)
            span.set_attribute(ERROR_TYPE, _exceptions.exception_type(exc))
        else:
            text = str(description)
            said = message_text(_exceptions.STATUS_DESCRIPTION, text, settings.string_limit, settings.redactor)
        span.set_status(StatusCode.ERROR, said)
    except FORGIVEN as error:  # a span of another SDK, a description of another type
        forgive(_CURRENT, "set_error", error)


def record_exception(exc: BaseException, attributes: Mapping[str, Any] | None = None) -> None:
    """
    Record *exc*, which was handled, as an event of the current span; the status stays as it is.

    Args:
        exc: The exception.
        attributes: More to say about it.

    Source: semantic conventions, exceptions/exceptions-spans.md.
    """
    span = get_current_span()
    if not span.is_recording():
        return
    settings = runtime.settings
    try:
        more = attribute_items(attributes, settings.redactor, settings.string_limit, _CURRENT)
        _exceptions.record(span, exc, settings.string_limit, more)
    except FORGIVEN as error:  # not an exception, or a span of another SDK
        forgive(_CURRENT, "record_exception", error)


def add_link(target: Any, attributes: Mapping[str, Any] | None = None) -> None:
    """
    Link the current span to another one.

    Args:
        target: A carrier (headers of a message), a `Context`, a `SpanContext`, a `Span` or a `Link`.
        attributes: More to say about the link.

    Source: OpenTelemetry specification, trace/api.md#add-link.
    """
    span = get_current_span()
    if not span.is_recording():
        return
    settings = runtime.settings
    try:
        link = link_to(target)
        if link.context.is_valid:
            more = attribute_items(attributes, settings.redactor, settings.string_limit, _CURRENT)
            span.add_link(link.context, {**(link.attributes or {}), **more})
    except FORGIVEN as error:  # no such thing as a link to this
        forgive(_CURRENT, "add_link", error)


@final
class lifecycle:  # noqa: N801  # reads as a verb where it is used
    """
    Say on the current span how a step went, as events: `<name>_started`, then `<name>_completed` or `<name>_failed`.

    `with lifecycle("payment", {"order_id": 7}) as payment:` and `async with` work alike. The last event has the
    attributes of the first, those given to `set`, and `duration_ms` or `error`; a cancelled step ends as
    `<name>_cancelled`. Exceptions pass untouched.

    Args:
        name: What is done; the event names begin with it.
        attributes: What is known from the start.
    """

    __slots__ = ("_attributes", "_name", "_span", "_started_ns")

    def __init__(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        self._name = attribute_name(name) or "lifecycle"
        self._attributes: dict[Any, Any] = {}
        self._span: Span = INVALID_SPAN
        self._started_ns = 0
        if attributes is not None:
            self.set(attributes)

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Add to what the last event will say."""
        try:
            self._attributes.update(attributes)
        except FORGIVEN as error:  # not a mapping
            forgive(_CURRENT, f"attributes of {self._name!r}", error)

    def __enter__(self) -> Self:
        # The span of now: the events belong together, whatever is current at the end.
        self._span = get_current_span()
        self._started_ns = time.monotonic_ns()
        if self._span.is_recording():
            _add_event(self._span, f"{self._name}_started", self._attributes)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._span.is_recording():
            return
        if exc is None:
            duration_ms = (time.monotonic_ns() - self._started_ns) / 1e6
            _add_event(self._span, f"{self._name}_completed", {**self._attributes, "duration_ms": duration_ms})
        elif _is_cut_short(exc):
            _add_event(self._span, f"{self._name}_cancelled", self._attributes)
        else:
            message = _exceptions.exception_message(exc, runtime.settings.string_limit)
            _add_event(self._span, f"{self._name}_failed", {**self._attributes, "error": message})

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def _is_cut_short(exc: BaseException) -> bool:
    return isinstance(exc, GeneratorExit) or _exceptions.is_cancellation(exc)


# The one place where events are made: OpenTelemetry is to move them from spans to logs.
def _add_event(span: Span, name: str, attributes: Mapping[str, Any] | None, timestamp_ns: int | None = None) -> None:
    settings = runtime.settings
    try:
        legal_name = attribute_name(name)
        if legal_name is None or not (timestamp_ns is None or _is_time(timestamp_ns)):
            report_failure(_CURRENT, "the name or time of an event")
            return
        clean = attribute_items(attributes, settings.redactor, settings.string_limit, _CURRENT)
        span.add_event(settings.redactor.scrub(legal_name), clean, timestamp_ns)
    except FORGIVEN as error:  # a span of another SDK
        forgive(_CURRENT, "add_event", error)


def _is_time(given: object) -> bool:
    """Tell whether *given* is nanoseconds since the epoch: OTLP has 64 bits for them, some receivers read 63."""
    return type(given) is int and 0 <= given < 1 << 63


def _set_attributes(span: Span, attributes: dict[str, AttributeValue]) -> None:
    try:
        span.set_attributes(attributes)
    except FORGIVEN as error:  # a span of another SDK
        forgive(_CURRENT, "set_attributes", error)
