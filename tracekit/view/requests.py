"""
OTLP/JSON requests as span records; whatever the request says.

Source: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, final

from tracekit.export.record import EventRecord, KindName, LinkRecord, SpanRecord, StatusName

# What reading JSON of any shape, or none, nested thousands deep, with an infinite time, may raise.
MALFORMED: Final = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)

KINDS: Final[Mapping[object, KindName]] = {
    2: "server",
    3: "client",
    4: "producer",
    5: "consumer",
    "SPAN_KIND_SERVER": "server",
    "SPAN_KIND_CLIENT": "client",
    "SPAN_KIND_PRODUCER": "producer",
    "SPAN_KIND_CONSUMER": "consumer",
}
STATUSES: Final[Mapping[object, StatusName]] = {
    1: "ok",
    2: "error",
    "STATUS_CODE_OK": "ok",
    "STATUS_CODE_ERROR": "error",
}
IS_REMOTE: Final = 0x200
_TRACE_ID_BYTES: Final = 16
_SPAN_ID_BYTES: Final = 8
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_NO_PARENT: Final = "0" * 16
_MAX_TIME_NS: Final = 2**63


@final
@dataclass(frozen=True, slots=True)
class Received:
    """What a request brings: its *spans*, and why each of the others was not taken."""

    spans: tuple[SpanRecord, ...]
    rejections: tuple[str, ...] = ()


def spans_of(request: Any) -> Iterator[SpanRecord]:
    """
    Yield the spans of *request*, an `ExportTraceServiceRequest` as parsed JSON.

    Raises:
        MALFORMED: One of these: the request, or a span of it, is none.
    """
    for span, resource, scope in _parts(request["resourceSpans"]):
        yield _span(span, resource, scope)


def receive(request: Any) -> Received:
    """
    Return the spans of *request*, parsed JSON; a span that cannot be read costs no other.

    Raises:
        MALFORMED: One of these: it is no request.
    """
    spans: list[SpanRecord] = []
    rejections: list[str] = []
    for span, resource, scope in _parts(request.get("resourceSpans") or ()):
        try:
            spans.append(checked(_span(span, resource, scope)))
        except MALFORMED as error:
            rejections.append(f"{type(error).__name__}: {error}")
    return Received(tuple(spans), tuple(rejections))


def checked(span: SpanRecord) -> SpanRecord:
    """
    Return *span* if its ids are ids.

    Raises:
        ValueError: One is all zeros.
    """
    if not span.trace_id.strip("0") or not span.span_id.strip("0"):
        msg = "an id of zeros"
        raise ValueError(msg)
    return span


def service_of(resource: Mapping[str, Any]) -> str:
    """Return the name of the service that *resource* describes, or nothing."""
    service = resource.get("service.name")
    return service if isinstance(service, str) else ""


def _parts(resource_spans: Any) -> Iterator[tuple[Any, dict[str, Any], str]]:
    """Yield each span as it stands there, with its resource and its scope."""
    for of_resource in resource_spans:
        resource = _attributes(of_resource.get("resource") or _NOTHING)
        # Scopes were instrumentation libraries before OTLP 0.15, and old files keep.
        for of_scope in of_resource.get("scopeSpans") or of_resource.get("instrumentationLibrarySpans") or ():
            scope = of_scope.get("scope") or of_scope.get("instrumentationLibrary") or _NOTHING
            named = " ".join(_text(part) for part in (scope.get("name", ""), scope.get("version", "")) if part)
            for span in of_scope.get("spans") or ():
                yield span, resource, named


def _span(span: Any, resource: Mapping[str, Any], scope: str) -> SpanRecord:
    status = span.get("status") or _NOTHING
    parent_id = span.get("parentSpanId")
    parent_id = _id(parent_id, _SPAN_ID_BYTES) if parent_id else None
    start, end = _time(span.get("startTimeUnixNano")), _time(span.get("endTimeUnixNano"))
    return SpanRecord(
        trace_id=_id(span["traceId"], _TRACE_ID_BYTES),
        span_id=_id(span["spanId"], _SPAN_ID_BYTES),
        name=_text(span.get("name") or ""),
        parent_id=None if parent_id == _NO_PARENT else parent_id,
        parent_is_remote=bool(int(span.get("flags") or 0) & IS_REMOTE),
        start_time_ns=start,
        # What has begun and has no end was open when it was written.
        end_time_ns=end if end or not start else None,
        attributes=_attributes(span),
        events=tuple(
            EventRecord(_text(event.get("name") or ""), _time(event.get("timeUnixNano")), _attributes(event))
            for event in span.get("events") or ()
        ),
        links=tuple(
            LinkRecord(_id(link["traceId"], _TRACE_ID_BYTES), _id(link["spanId"], _SPAN_ID_BYTES), _attributes(link))
            for link in span.get("links") or ()
        ),
        status=STATUSES.get(status.get("code"), "unset"),
        description=_text(status.get("message") or ""),
        service=service_of(resource),
        kind=KINDS.get(span.get("kind"), "internal"),
        resource=resource,
        scope=scope,
    )


def _attributes(owner: Any) -> dict[str, Any]:
    return {_text(item["key"]): _value(item.get("value") or _NOTHING) for item in owner.get("attributes") or ()}


def _value(value: Any) -> Any:
    for kind, content in value.items():
        if kind == "intValue":
            return int(content)
        if kind == "doubleValue":
            return float(content)  # of "NaN" and "Infinity" too
        if kind == "bytesValue":
            return base64.b64decode(content)
        if kind == "arrayValue":
            return tuple(_value(item) for item in content.get("values") or ())
        if kind == "kvlistValue":
            return {_text(item["key"]): _value(item.get("value") or _NOTHING) for item in content.get("values") or ()}
        return content  # stringValue, boolValue
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        msg = f"{type(value).__name__} is no text"
        raise TypeError(msg)
    return value


def _time(value: Any) -> int:
    """Return nanoseconds since the epoch; 0, which is unknown, for a time that a signed 64-bit integer cannot hold."""
    time = int(value or 0)
    return time if 0 <= time < _MAX_TIME_NS else 0


def _id(value: Any, size: int) -> str:
    """Return an id of *size* bytes as lower-case hex."""
    # Base64 is how protobuf's own JSON writes it, and some backends.
    identifier = bytes.fromhex(value) if len(value) == 2 * size else base64.b64decode(value, validate=True)
    if len(identifier) != size:
        msg = f"an id of {len(identifier)} bytes"
        raise ValueError(msg)
    return identifier.hex()
