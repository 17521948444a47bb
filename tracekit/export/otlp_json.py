"""
Spans as OTLP/JSON: the JSON form of the OTLP protobuf messages, made without protobuf.

As the proto3 JSON mapping has it: camelCase names, 64-bit integers as strings, enums as integers, fields of default
value left out; and as OTLP has it: ids in lower-case hex, not base64.

Source: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.trace import SpanKind, StatusCode

from tracekit._diagnostics import report_failure

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, Status
    from opentelemetry.util.types import Attributes

_KINDS: Final = {
    SpanKind.INTERNAL: 1,
    SpanKind.SERVER: 2,
    SpanKind.CLIENT: 3,
    SpanKind.PRODUCER: 4,
    SpanKind.CONSUMER: 5,
}
_STATUS_CODES: Final = {StatusCode.OK: 1, StatusCode.ERROR: 2}
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200

# Receivers that decode protobuf give up at 100 messages inside each other; a nested value takes up to three.
_MAX_DEPTH: Final = 24
_MAX_DECIMAL_BITS: Final = 1_024
_TOO_DEEP: Final = "[nested too deeply]"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_Json = dict[str, Any]


def spans_to_json(spans: Iterable[ReadableSpan]) -> _Json:
    """Return *spans* as an `ExportTraceServiceRequest`; a span that cannot be written is left out and reported."""
    resources: dict[int, tuple[Resource, dict[object, tuple[InstrumentationScope | None, list[_Json]]]]] = {}
    for span in spans:
        try:
            encoded = _span(span)
            resource, scope = span.resource, span.instrumentation_scope
            # By identity: comparing resources serialises them, and a provider has one.
            _, scopes = resources.setdefault(id(resource), (resource, {}))
            key = None if scope is None else (scope.name, scope.version, scope.schema_url, str(scope.attributes))
            scopes.setdefault(key, (scope, []))[1].append(encoded)
        except Exception as error:  # noqa: BLE001  # made by hand; it must not cost the others
            report_failure("OTLP/JSON", "a span", error)
    return {
        "resourceSpans": [
            {
                "resource": _present(attributes=_attributes(resource.attributes)),
                "scopeSpans": [
                    {"scope": _scope(scope), "spans": encoded} | _present(schemaUrl=scope and _text(scope.schema_url))
                    for scope, encoded in scopes.values()
                ],
            }
            | _present(schemaUrl=_text(resource.schema_url))
            for resource, scopes in resources.values()
        ]
    }


def _span(span: ReadableSpan) -> _Json:
    context, parent = span.context, span.parent
    if context is None:
        msg = "a span without context has no ids"
        raise ValueError(msg)
    return {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "name": _text(span.name),
        "kind": _KINDS.get(span.kind, 0),
        "startTimeUnixNano": _time(span.start_time),
        "endTimeUnixNano": _time(span.end_time),
        "status": _status(span.status),
        "flags": _flags(parent),
    } | _present(
        parentSpanId=parent and f"{parent.span_id:016x}",
        traceState=_trace_state(context),
        attributes=_attributes(span.attributes),
        events=[_event(event) for event in span.events],
        links=[_link(link) for link in span.links],
        droppedAttributesCount=span.dropped_attributes,
        droppedEventsCount=span.dropped_events,
        droppedLinksCount=span.dropped_links,
    )


def _event(event: Event) -> _Json:
    return {"timeUnixNano": _time(event.timestamp), "name": _text(event.name)} | _present(
        attributes=_attributes(event.attributes), droppedAttributesCount=event.dropped_attributes
    )


def _link(link: Link) -> _Json:
    context = link.context
    return {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "flags": _flags(context),
    } | _present(
        traceState=_trace_state(context),
        attributes=_attributes(link.attributes),
        droppedAttributesCount=link.dropped_attributes,
    )


def _scope(scope: InstrumentationScope | None) -> _Json:
    if scope is None:
        return {}
    return _present(name=_text(scope.name), version=_text(scope.version), attributes=_attributes(scope.attributes))


def _status(status: Status) -> _Json:
    return _present(code=_STATUS_CODES.get(status.status_code), message=_text(status.description))


def _flags(context: SpanContext | None) -> int:
    return _HAS_IS_REMOTE | (_IS_REMOTE if context is not None and context.is_remote else 0)


def _trace_state(context: SpanContext) -> str:
    return _text(",".join(f"{key}={value}" for key, value in context.trace_state.items()))


def _present(**fields: object) -> _Json:
    """Return the *fields* that have another value than the default of their type."""
    return {name: value for name, value in fields.items() if value}


def _attributes(attributes: Attributes) -> list[_Json]:
    if not attributes:
        return []
    return [{"key": _text(key), "value": _value(value, _MAX_DEPTH)} for key, value in attributes.items()]


def _value(value: object, depth: int) -> _Json:
    if value is None:
        return {}
    if isinstance(value, str):
        return {"stringValue": _text(value)}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue" if -(2**63) <= value < 2**63 else "stringValue": _digits(value)}
    if isinstance(value, float):
        return {"doubleValue": _double(value)}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode("ascii")}
    if not depth:
        return {"stringValue": _TOO_DEEP}
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {"kvlistValue": {"values": [{"key": _text(k), "value": _value(v, depth - 1)} for k, v in items]}}
    if isinstance(value, Sequence):
        return {"arrayValue": {"values": [_value(item, depth - 1) for item in cast("Sequence[object]", value)]}}
    return {"stringValue": f"<{type(value).__name__}>"}


def _digits(value: int) -> str:
    # Python refuses to write thousands of digits in decimal; in hex it does not.
    return int.__repr__(value) if value.bit_length() <= _MAX_DECIMAL_BITS else hex(value)


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _text(value: object) -> str:
    """Return *value* if it is text that UTF-8 can carry; the SDK takes any object for a name."""
    if not isinstance(value, str):
        return "" if value is None else f"<{type(value).__name__}>"
    return str.__str__(value) if value.isascii() else _SURROGATE.sub("\ufffd", value)


def _time(value: object) -> str:
    return str(int(value)) if isinstance(value, (int, float)) and 0 <= value < 2**64 else "0"
