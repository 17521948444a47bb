"""OTLP requests in protobuf as span records. Needs the extra `otlp`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracekit.export.record import EventRecord, LinkRecord, SpanRecord
from tracekit.view.requests import IS_REMOTE, KINDS, STATUSES, Received, checked, service_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

_TRACE_ID_BYTES: Final = 16
_SPAN_ID_BYTES: Final = 8


def receive_message(request: ExportTraceServiceRequest) -> Received:
    """Return the spans of *request*; a span without proper ids costs no other."""
    spans: list[SpanRecord] = []
    rejections: list[str] = []
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            scope = " ".join(part for part in (of_scope.scope.name, of_scope.scope.version) if part)
            for span in of_scope.spans:
                try:
                    spans.append(checked(_span(span, resource, scope)))
                except ValueError as error:
                    rejections.append(str(error))
    return Received(tuple(spans), tuple(rejections))


def _span(span: Span, resource: Mapping[str, Any], scope: str) -> SpanRecord:
    return SpanRecord(
        trace_id=_id(span.trace_id, _TRACE_ID_BYTES),
        span_id=_id(span.span_id, _SPAN_ID_BYTES),
        name=span.name,
        parent_id=_id(span.parent_span_id, _SPAN_ID_BYTES) if any(span.parent_span_id) else None,
        parent_is_remote=bool(span.flags & IS_REMOTE),
        start_time_ns=span.start_time_unix_nano,
        end_time_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=tuple(
            EventRecord(event.name, event.time_unix_nano, _attributes(event.attributes)) for event in span.events
        ),
        links=tuple(
            LinkRecord(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes)) for link in span.links
        ),
        status=STATUSES.get(span.status.code, "unset"),
        description=span.status.message,
        service=service_of(resource),
        kind=KINDS.get(span.kind, "internal"),
        resource=resource,
        scope=scope,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind)


def _id(value: bytes, size: int) -> str:
    if len(value) != size:
        msg = f"an id of {len(value)} bytes"
        raise ValueError(msg)
    return value.hex()
