"""
Spans around messages: `producing`, `consuming`, `consuming_batch`, named by the messaging conventions.

Only this module knows how the spans of producers and consumers are related. No messaging library is imported for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, TypeAlias, cast, final

from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, INVALID_SPAN_CONTEXT, Link, Span, SpanKind
from typing_extensions import TypeVar

from tracekit._attributes import attribute_items, attribute_value
from tracekit._config import DEFAULT_STRING_LIMIT, runtime
from tracekit._context import ACTIVE_KEY, SPAN_KEY, current_context
from tracekit._diagnostics import report_failure
from tracekit._operation import Operation, Options, checked_exceptions
from tracekit._relations import link_to
from tracekit._semconv import (
    MESSAGING_BATCH_MESSAGE_COUNT,
    MESSAGING_CONSUMER_GROUP_NAME,
    MESSAGING_DESTINATION_NAME,
    MESSAGING_DESTINATION_PARTITION_ID,
    MESSAGING_DESTINATION_TEMPLATE,
    MESSAGING_MESSAGE_BODY_SIZE,
    MESSAGING_MESSAGE_CONVERSATION_ID,
    MESSAGING_MESSAGE_ID,
    MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE,
    MESSAGING_SYSTEM,
)
from tracekit._span import ActiveSpan, start
from tracekit.errors import InstrumentationError
from tracekit.propagation import ContextBlock, extract, inject, use_context

__all__ = ["MessageBlock", "consuming", "consuming_batch", "producing"]

Expected: TypeAlias = "type[BaseException] | tuple[type[BaseException], ...]"
GivenT = TypeVar("GivenT")
CarrierT = TypeVar("CarrierT", default="dict[str, str]")


class _Origin(NamedTuple):
    """Where the span of a consumer begins: in which context (None: the current one), and linked to what."""

    context: Context | None = None
    links: tuple[Link, ...] = ()


@final
class MessageBlock(Generic[GivenT]):
    """A span around messages, for `with` or `async with`; each use makes a new span."""

    __slots__ = ("_entered", "_give", "_origin", "_spans")

    def __init__(self, spans: _Spans, origin: Callable[[], _Origin], give: Callable[[], GivenT]) -> None:
        self._spans = spans
        self._origin = origin
        self._give = give
        self._entered: list[tuple[ActiveSpan | None, ContextBlock | None]] = []

    def __enter__(self) -> GivenT:
        context, links = self._origin()
        # Around the span: where none is made, what is sent from inside still belongs to the message's trace.
        around = None if context is None else use_context(context)
        if around is not None:
            around.__enter__()
        active = start(self._spans.operation(links), (), self._spans.attributes)
        self._entered.append((active, around))
        return self._give()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Entered more than once, perhaps by several tasks: the one that is current here is the one that ends.
        current = current_context().get(ACTIVE_KEY)
        index = next((index for index, (active, _) in enumerate(self._entered) if active is current), -1)
        active, around = self._entered.pop(index)
        if active is not None:
            active.finish(exc)
        if around is not None:
            around.__exit__(exc_type, exc, traceback)

    async def __aenter__(self) -> GivenT:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def producing(
    destination: str,
    carrier: CarrierT | None = None,
    *,
    system: str,
    operation: str = "send",
    destination_template: str | None = None,
    partition_id: str | int | None = None,
    message_id: str | None = None,
    conversation_id: str | None = None,
    body_size: int | None = None,
    message_count: int | None = None,
    baggage: bool = True,
    attributes: Mapping[str, Any] | None = None,
    expected: Expected = (),
) -> MessageBlock[CarrierT]:
    """
    Trace the sending of a message, and give the headers to send: whoever consumes the message continues this trace.

    Args:
        destination: The queue, topic, exchange or subject.
        carrier: Headers to write into, in any common shape; None for a new dict.
        system: What carries the message: "rabbitmq", "kafka", "redis", "nats", "mqtt", "aws_sqs".
        operation: What the system calls it; the span's name is this and the destination: `send orders`.
        destination_template: Stands for the destination in the span's name where there are many: "replies.{client}".
        partition_id: The partition it is sent to.
        message_id: The message's id, if it is known before it is sent.
        conversation_id: The correlation id.
        body_size: Bytes of the body.
        message_count: How many messages are sent at once with the same headers; None for a single one.
        baggage: Whether baggage may leave with it.
        attributes: More attributes, given at the start of the span.
        expected: Exception classes that are recorded but leave the status unset.

    Raises:
        InstrumentationError: *destination*, *system*, *operation* or *expected* is wrong.

    Source: semantic conventions, messaging/messaging-spans.md.
    """
    own = {
        MESSAGING_DESTINATION_PARTITION_ID: _text(partition_id),
        MESSAGING_MESSAGE_ID: _text(message_id),
        MESSAGING_MESSAGE_CONVERSATION_ID: _text(conversation_id),
        MESSAGING_MESSAGE_BODY_SIZE: body_size,
        MESSAGING_BATCH_MESSAGE_COUNT: message_count,
    }
    spans = _Spans(
        SpanKind.PRODUCER, "send", operation, system, destination, destination_template, own, attributes, expected
    )
    return MessageBlock(spans, _Origin, lambda: cast("CarrierT", inject(carrier, baggage=baggage)))


def consuming(
    destination: str,
    carrier: object,
    *,
    system: str,
    operation: str = "process",
    link: bool = False,
    destination_template: str | None = None,
    partition_id: str | int | None = None,
    consumer_group: str | None = None,
    message_id: str | None = None,
    conversation_id: str | None = None,
    body_size: int | None = None,
    attributes: Mapping[str, Any] | None = None,
    expected: Expected = (),
) -> MessageBlock[Span]:
    """
    Trace the processing of a message, whose *carrier* says where it comes from.

    The span continues the trace of the producer, and its baggage; the span current outside, if any, is linked to. A
    message without a trace is processed in the current trace, or in a new one.

    Args:
        destination: The queue, topic or subject.
        carrier: The message's headers in any common shape, or the message that has them.
        system: What carried the message: "rabbitmq", "kafka", "redis", "nats", "mqtt", "aws_sqs".
        operation: What the system calls it; the span's name is this and the destination: `process orders`.
        link: Begin a new trace that is linked to the producer's, where consuming is no part of what was asked for.
        destination_template: Stands for the destination in the span's name where there are many: "replies.{client}".
        partition_id: The partition it comes from.
        consumer_group: The group of consumers that share the messages.
        message_id: The message's id.
        conversation_id: The correlation id.
        body_size: Bytes of the body.
        attributes: More attributes, given at the start of the span.
        expected: Exception classes that are recorded but leave the status unset.

    Raises:
        InstrumentationError: *destination*, *system*, *operation* or *expected* is wrong.

    Source: semantic conventions, messaging/messaging-spans.md.
    """
    own = {
        MESSAGING_CONSUMER_GROUP_NAME: _text(consumer_group),
        MESSAGING_DESTINATION_PARTITION_ID: _text(partition_id),
        MESSAGING_MESSAGE_ID: _text(message_id),
        MESSAGING_MESSAGE_CONVERSATION_ID: _text(conversation_id),
        MESSAGING_MESSAGE_BODY_SIZE: body_size,
    }
    spans = _Spans(
        SpanKind.CONSUMER, "process", operation, system, destination, destination_template, own, attributes, expected
    )
    return MessageBlock(spans, lambda: _origin_of(carrier, is_linked=link), trace_api.get_current_span)


def consuming_batch(
    destination: str,
    carriers: Iterable[object],
    *,
    system: str,
    operation: str = "process",
    destination_template: str | None = None,
    partition_id: str | int | None = None,
    consumer_group: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    expected: Expected = (),
) -> MessageBlock[Span]:
    """
    Trace the processing of several messages at once, linked to the producer of each.

    The span belongs to the current trace, or begins a new one: no message of the batch is more its parent than another.

    Args:
        destination: The queue, topic or subject.
        carriers: For each message its headers, or the message that has them; or a `Link` with attributes of its own.
        system: What carried the messages: "rabbitmq", "kafka", "redis", "nats", "mqtt", "aws_sqs".
        operation: What the system calls it; the span's name is this and the destination: `process orders`.
        destination_template: Stands for the destination in the span's name where there are many: "replies.{client}".
        partition_id: The partition they come from.
        consumer_group: The group of consumers that share the messages.
        attributes: More attributes, given at the start of the span.
        expected: Exception classes that are recorded but leave the status unset.

    Raises:
        InstrumentationError: *destination*, *system*, *operation* or *expected* is wrong, or *carriers* is but one.

    Source: semantic conventions, messaging/messaging-spans.md.
    """
    messages = _listed(carriers)
    own = {
        MESSAGING_CONSUMER_GROUP_NAME: _text(consumer_group),
        MESSAGING_DESTINATION_PARTITION_ID: _text(partition_id),
        MESSAGING_BATCH_MESSAGE_COUNT: len(messages),
    }
    spans = _Spans(
        SpanKind.CONSUMER, "process", operation, system, destination, destination_template, own, attributes, expected
    )
    return MessageBlock(spans, lambda: _Origin(links=_links_to(messages)), trace_api.get_current_span)


@final
class _Spans:
    """What the spans of one block have in common: checked when the block is made, named by the conventions."""

    __slots__ = ("_expected", "_kind", "_name", "attributes")

    def __init__(
        self,
        kind: SpanKind,
        operation_type: str,
        operation: str,
        system: str,
        destination: object,
        template: object,
        own: Mapping[str, object],
        attributes: Mapping[str, Any] | None,
        expected: Expected,
    ) -> None:
        checked = _checked("operation", operation, operation_type), _checked("system", system, "rabbitmq")
        place, pattern = _place("destination", destination), _place("destination_template", template)
        self._kind = kind
        self._name = " ".join(part for part in (checked[0], pattern or place) if part)
        self._expected = checked_exceptions(expected, f"expected of {self._name}")
        settings = runtime.settings
        self.attributes: Mapping[str, object] = {
            MESSAGING_SYSTEM: checked[1],
            MESSAGING_OPERATION_NAME: checked[0],
            MESSAGING_OPERATION_TYPE: operation_type,
            MESSAGING_DESTINATION_NAME: place or None,
            MESSAGING_DESTINATION_TEMPLATE: pattern,
            **own,
            **attribute_items(attributes, settings.redactor, settings.string_limit, self._name),
        }

    def operation(self, links: tuple[Link, ...]) -> Operation:
        """Return the operation that starts a span with *links*."""
        if links:
            return _operation(self._name, self._kind, self._expected, links)
        return _cached_operation(self._name, self._kind, self._expected)


def _operation(
    name: str, kind: SpanKind, expected: tuple[type[BaseException], ...], links: tuple[Link, ...] | None = None
) -> Operation:
    options: Options = {"is_full_name": True, "kind": kind, "expected": expected, "links": links}
    return Operation(None, name, "", options)


# Compiling an operation takes 10 µs. Bounded, as destinations may be made at run time.
_cached_operation: Final = lru_cache(maxsize=1_024)(_operation)


def _origin_of(carrier: object, *, is_linked: bool) -> _Origin:
    current, message = current_context(), extract(carrier)
    outside, creation = (trace_api.get_current_span(context).get_span_context() for context in (current, message))
    values: dict[str, Any] = {**current, **message}
    parent = creation if creation.is_valid else outside
    if is_linked:
        parent, values[SPAN_KEY] = INVALID_SPAN_CONTEXT, INVALID_SPAN
    related = {context.span_id: context for context in (creation, outside) if context.is_valid}
    related.pop(parent.span_id, None)
    return _Origin(Context(values), tuple(Link(context) for context in related.values()))


def _links_to(carriers: list[object]) -> tuple[Link, ...]:
    # Nobody would see them without a tracer.
    links = (link_to(carrier) for carrier in carriers) if runtime.provider is not None else ()
    return tuple(link for link in links if link.context.is_valid)


def _listed(carriers: Iterable[object] | None) -> list[object]:
    if carriers is None:  # a poll that found nothing
        return []
    if isinstance(carriers, (str, bytes, Mapping)) or not hasattr(carriers, "__iter__"):
        msg = (
            f"consuming_batch got {carriers!r:.100} as carriers, expected one for each message. "
            f"Write [message.headers for message in messages]."
        )
        raise InstrumentationError(msg)
    try:
        return list(carriers)
    except Exception as error:  # noqa: BLE001  # the user's, of any type
        report_failure("tracekit.messaging", f"reading the carriers in a {type(carriers).__name__}", error)
        return []


def _text(value: object) -> str | None:
    """Return *value* as the text that the conventions ask for, whatever a client library gives: bytes, a number."""
    clean = attribute_value(value, DEFAULT_STRING_LIMIT)
    return None if clean is None else str(clean)


def _place(option: str, given: object) -> str | None:
    """Return *given* as text, None where a message has no such place."""
    text = attribute_value(given, DEFAULT_STRING_LIMIT)
    if given is None or (isinstance(text, str) and not isinstance(given, Mapping)):
        return None if given is None else str(text)
    msg = f"{option} got {given!r:.100}, expected the name of a queue, topic or subject. Write {option}='orders'."
    raise InstrumentationError(msg)


def _checked(option: str, given: object, example: str) -> str:
    if isinstance(given, str) and given.strip():
        return given
    msg = f"{option} got {given!r}, expected a non-empty string. Write {option}={example!r}."
    raise InstrumentationError(msg)
