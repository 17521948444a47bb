"""
One span as OTLP: the body of a `Span` message.

Spans are read by their fields, not their properties: that is 0.4 µs less for each. Where they have none of these names,
or have other properties than the SDK's, the official encoder takes over.

Source: opentelemetry-proto, trace/v1/trace.proto.
"""

# ruff: noqa: SLF001  # as said above

from __future__ import annotations

import struct
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import DEFAULT_TRACE_STATE, SpanKind, Status, StatusCode

from tracekit.export.otlp_attributes import AttributesField
from tracekit.export.otlp_value import BYTES, FIXED32, FIXED64, LENGTHS, VARINT, Memo, count, field, tag, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Link

_SPAN_TRACE_ID: Final = tag(1, BYTES) + b"\x10"
_SPAN_SPAN_ID: Final = tag(2, BYTES) + b"\x08"
_SPAN_TRACE_STATE: Final = tag(3, BYTES)
_SPAN_PARENT_SPAN_ID: Final = tag(4, BYTES) + b"\x08"
_SPAN_NAME: Final = tag(5, BYTES)
_SPAN_KIND: Final = tag(6, VARINT)
_SPAN_START_TIME: Final = tag(7, FIXED64)
_SPAN_END_TIME: Final = tag(8, FIXED64)
_SPAN_ATTRIBUTES: Final = AttributesField(9, dropped=10)
_SPAN_EVENTS: Final = tag(11, BYTES)
_SPAN_DROPPED_EVENTS: Final = tag(12, VARINT)
_SPAN_LINKS: Final = tag(13, BYTES)
_SPAN_DROPPED_LINKS: Final = tag(14, VARINT)
_SPAN_STATUS: Final = tag(15, BYTES)
_SPAN_FLAGS: Final = tag(16, FIXED32)
_EVENT_TIME: Final = tag(1, FIXED64)
_EVENT_NAME: Final = tag(2, BYTES)
_EVENT_ATTRIBUTES: Final = AttributesField(3, dropped=4)
_LINK_TRACE_ID: Final = tag(1, BYTES) + b"\x10"
_LINK_SPAN_ID: Final = tag(2, BYTES) + b"\x08"
_LINK_ATTRIBUTES: Final = AttributesField(4, dropped=5)
_LINK_FLAGS: Final = tag(6, FIXED32)
_STATUS_MESSAGE: Final = tag(2, BYTES)
_STATUS_CODE: Final = tag(3, VARINT)

_time: Final = struct.Struct("<cQ").pack
_two_times: Final = struct.Struct("<cQcQ").pack
_ids: Final = struct.Struct(">2sQQ2sQ").pack
_ids_below: Final = struct.Struct(">2sQQ2sQ2sQ").pack
_LOW_HALF: Final = 2**64 - 1

_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_flags: Final = struct.Struct("<I").pack
_LOCAL: Final = _flags(_HAS_IS_REMOTE)
_REMOTE: Final = _flags(_HAS_IS_REMOTE | _IS_REMOTE)
_LINK_LOCAL: Final = _LINK_FLAGS + _LOCAL
_LINK_REMOTE: Final = _LINK_FLAGS + _REMOTE
_KINDS: Final[tuple[bytes, ...]] = tuple(_SPAN_KIND + bytes([kind.value + 1]) for kind in SpanKind)
_KINDS_BELOW_LOCAL: Final[tuple[bytes, ...]] = tuple(kind + _SPAN_FLAGS + _LOCAL for kind in _KINDS)
_KINDS_BELOW_REMOTE: Final[tuple[bytes, ...]] = tuple(kind + _SPAN_FLAGS + _REMOTE for kind in _KINDS)
_STATUS_CODES: Final[tuple[bytes, ...]] = tuple(count(_STATUS_CODE, code.value) for code in StatusCode)
_STATUSES: Final[tuple[bytes, ...]] = tuple(field(_SPAN_STATUS, code) for code in _STATUS_CODES)
_SPAN_NAMES: Final[Memo[bytes]] = Memo(partial(text, _SPAN_NAME))
_SDK_EVENT: Final[Any] = Event
_EVENT_NAMES: Final[Memo[bytes]] = Memo(partial(text, _EVENT_NAME))


def _span(span: Any) -> bytes:
    """Return the body of a Span; raises if one of the fields is none that a span may have."""
    # By index: unpacking what is not quite a tuple takes 0.1 µs more.
    context, parent, status = span._context, span._parent, span._status
    trace_id, trace_state = context[0], context[4]
    kind: int = span._kind._value_
    parts = [
        _SPAN_NAMES[span._name],
        _two_times(_SPAN_START_TIME, span._start_time or 0, _SPAN_END_TIME, span._end_time or 0),
    ]
    if parent:
        parts += (
            _ids_below(
                _SPAN_TRACE_ID,
                trace_id >> 64,
                trace_id & _LOW_HALF,
                _SPAN_SPAN_ID,
                context[1],
                _SPAN_PARENT_SPAN_ID,
                parent[1],
            ),
            (_KINDS_BELOW_REMOTE if parent[2] else _KINDS_BELOW_LOCAL)[kind],
        )
    else:
        parts += (
            _ids(_SPAN_TRACE_ID, trace_id >> 64, trace_id & _LOW_HALF, _SPAN_SPAN_ID, context[1]),
            _KINDS_BELOW_LOCAL[kind],
        )
    if trace_state is not DEFAULT_TRACE_STATE and trace_state:
        parts.append(text(_SPAN_TRACE_STATE, ",".join([f"{key}={value}" for key, value in trace_state.items()])))
    if status is not None:
        code: int = status._status_code._value_
        message: str | None = status._description
        parts.append(
            _STATUSES[code]
            if message is None
            else field(_SPAN_STATUS, _STATUS_CODES[code] + text(_STATUS_MESSAGE, message))
        )
    attributes, events, links = span._attributes, span._events, span._links
    _SPAN_ATTRIBUTES.add(parts, attributes)
    if type(attributes) is not BoundedAttributes and span.dropped_attributes:
        parts.append(_SPAN_ATTRIBUTES.dropped(span.dropped_attributes))
    if events != ():
        _add_each(parts, _SPAN_EVENTS, _SPAN_DROPPED_EVENTS, events, _event)
    if links != ():
        _add_each(parts, _SPAN_LINKS, _SPAN_DROPPED_LINKS, links, _link)
    return b"".join(parts)


def _add_each(
    parts: list[bytes], each_tag: bytes, dropped_tag: bytes, messages: Any, write: Callable[[Any], bytes]
) -> None:
    # A tuple or list of a span made by hand has none. To ask for the class would take 0.1 µs.
    dropped = getattr(messages, "dropped", 0)
    if dropped:
        parts.append(count(dropped_tag, dropped))
    # To go through a BoundedList itself takes its lock and a copy: 0.4 µs.
    for message in getattr(messages, "_dq", messages) or ():
        written = write(message)
        parts += (each_tag, LENGTHS[len(written)], written)


def _event(event: Any) -> bytes:
    if type(event) is _SDK_EVENT:
        # Its properties take 0.1 µs more than its fields.
        name, time_ns, attributes = event._name, event._timestamp, event._attributes
    else:
        name, time_ns, attributes = event.name, event.timestamp, event.attributes
    parts = [_EVENT_NAMES[name], _time(_EVENT_TIME, time_ns or 0)]
    _EVENT_ATTRIBUTES.add(parts, attributes)
    return b"".join(parts)


def _link(link: Link) -> bytes:
    context = link.context
    trace_id = context[0]
    parts = [
        _ids(_LINK_TRACE_ID, trace_id >> 64, trace_id & _LOW_HALF, _LINK_SPAN_ID, context[1]),
        _LINK_REMOTE if context[2] else _LINK_LOCAL,
    ]
    _LINK_ATTRIBUTES.add(parts, link.attributes)
    return b"".join(parts)


# --- spans unlike others ---------------------------------------------------------------------------------------------

_READ_AS_FIELDS: Final = (
    *("name", "context", "parent", "kind", "start_time", "end_time"),
    *("attributes", "events", "links", "status"),
)


@lru_cache(64)
def _is_as_the_sdk_has_it(cls: type) -> bool:
    return all(getattr(cls, name, None) is getattr(ReadableSpan, name) for name in _READ_AS_FIELDS)


def encode_span(span: Any) -> bytes:
    """Return the body of a Span; raises if there is no way to write it."""
    try:
        if _is_as_the_sdk_has_it(type(span)):  # type: ignore[arg-type]  # pyright: ignore[reportUnknownArgumentType]  # hashable
            return _span(span)
    except Exception:  # noqa: BLE001, S110  # the next two do what they can
        pass
    try:
        return _official_span(span)
    except Exception:  # noqa: BLE001  # it takes no field of a wrong type
        return _span(_repaired(span))


def _official_span(span: ReadableSpan) -> bytes:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as official

    message: Any = official([span]).resource_spans[0].scope_spans[0].spans[0]
    return bytes(message.SerializeToString())


def _repaired(span: ReadableSpan) -> ReadableSpan:
    """Return a copy of *span* whose fields have the types they should have."""
    kind, status = cast("Any", span.kind), cast("Any", span.status)
    is_status = isinstance(status, Status) and isinstance(cast("Any", status.status_code), StatusCode)
    return ReadableSpan(
        name=as_text(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=[Event(as_text(event.name), event.attributes, _as_time(event.timestamp)) for event in span.events],
        links=span.links,
        kind=kind if isinstance(kind, SpanKind) else SpanKind.INTERNAL,
        status=status if is_status else Status(),
        start_time=_as_time(span.start_time),
        end_time=_as_time(span.end_time),
    )


def as_text(value: Any) -> str:
    """Return *value* if it is text, else what it is."""
    if isinstance(value, str):
        return value
    return "" if value is None else f"<{type(value).__name__}>"


def _as_time(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and 0 <= value < 2**64 else 0
