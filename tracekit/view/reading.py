"""
Trace files, read back: OTLP/JSON, one request a line, as `exporter="file:PATH"` and OpenTelemetry collectors write it.

Source: https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from tracekit.export.record import EventRecord, LinkRecord, SpanRecord, StatusName

if TYPE_CHECKING:
    from pathlib import Path

_STATUS: Final[Mapping[object, StatusName]] = {
    1: "ok",
    2: "error",
    "STATUS_CODE_OK": "ok",
    "STATUS_CODE_ERROR": "error",
}
_IS_REMOTE: Final = 0x200
_TRACE_ID_BYTES: Final = 16
_SPAN_ID_BYTES: Final = 8


@final
@dataclass(frozen=True, slots=True)
class TraceFile:
    """
    What a file says.

    Args:
        spans: All spans, in the order of the file.
        malformed_lines: How many lines could not be read: cut short by a full disk, or something else.
    """

    spans: tuple[SpanRecord, ...]
    malformed_lines: int

    def traces(self) -> list[list[SpanRecord]]:
        """Return the spans of each trace, the trace that began first first."""
        return by_trace(self.spans)


def by_trace(spans: Iterable[SpanRecord]) -> list[list[SpanRecord]]:
    """Return the *spans* of each trace, the trace that began first first."""
    traces: dict[str, list[SpanRecord]] = {}
    for span in sorted(spans, key=lambda span: span.start_time_ns):
        traces.setdefault(span.trace_id, []).append(span)
    return list(traces.values())


def read_trace_file(path: Path) -> TraceFile:
    """
    Read the file at *path*; lines that hold no spans are counted and left out.

    Raises:
        OSError: The file cannot be read.
    """
    spans: list[SpanRecord] = []
    malformed_lines = 0
    with path.open("rb") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                # All of a line or nothing.
                spans += tuple(_spans(json.loads(line)))
            # JSON of any shape, or none; nested thousands deep; with an infinite time.
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
                malformed_lines += 1
    return TraceFile(tuple(spans), malformed_lines)


def _spans(request: Any) -> Iterator[SpanRecord]:
    for of_resource in request["resourceSpans"]:
        resource = _attributes(of_resource.get("resource", {}))
        service = resource.get("service.name")
        for of_scope in of_resource.get("scopeSpans", ()):
            for span in of_scope.get("spans", ()):
                yield _span(span, service if isinstance(service, str) else "")


def _span(span: Any, service: str) -> SpanRecord:
    status = span.get("status", {})
    parent_id = span.get("parentSpanId")
    return SpanRecord(
        trace_id=_id(span["traceId"], _TRACE_ID_BYTES),
        span_id=_id(span["spanId"], _SPAN_ID_BYTES),
        name=_text(span.get("name", "")),
        parent_id=_id(parent_id, _SPAN_ID_BYTES) if parent_id else None,
        parent_is_remote=bool(int(span.get("flags", 0)) & _IS_REMOTE),
        start_time_ns=int(span.get("startTimeUnixNano", 0)),
        end_time_ns=int(span.get("endTimeUnixNano", 0)),
        attributes=_attributes(span),
        events=tuple(
            EventRecord(_text(event.get("name", "")), int(event.get("timeUnixNano", 0)), _attributes(event))
            for event in span.get("events", ())
        ),
        links=tuple(
            LinkRecord(_id(link["traceId"], _TRACE_ID_BYTES), _id(link["spanId"], _SPAN_ID_BYTES), _attributes(link))
            for link in span.get("links", ())
        ),
        status=_STATUS.get(status.get("code"), "unset"),
        description=_text(status.get("message", "")),
        service=service,
    )


def _attributes(owner: Any) -> dict[str, Any]:
    return {_text(item["key"]): _value(item.get("value", {})) for item in owner.get("attributes", ())}


def _value(value: Any) -> Any:
    for kind, content in value.items():
        if kind == "intValue":
            return int(content)
        if kind == "doubleValue":
            return float(content)  # of "NaN" and "Infinity" too
        if kind == "bytesValue":
            return base64.b64decode(content)
        if kind == "arrayValue":
            return tuple(_value(item) for item in content.get("values", ()))
        if kind == "kvlistValue":
            return {_text(item["key"]): _value(item.get("value", {})) for item in content.get("values", ())}
        return content  # stringValue, boolValue
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        msg = f"{type(value).__name__} is no text"
        raise TypeError(msg)
    return value


def _id(value: Any, size: int) -> str:
    """Return an id of *size* bytes as lower-case hex."""
    identifier = bytes.fromhex(value)
    if len(identifier) != size:
        msg = f"an id of {len(identifier)} bytes"
        raise ValueError(msg)
    return identifier.hex()
