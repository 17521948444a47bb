"""
Spans as OTLP: the bytes of an `ExportTraceServiceRequest`, written without message objects.

Source: opentelemetry-proto, collector/trace/v1/trace_service.proto, trace/v1/trace.proto, resource/v1/resource.proto.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, final

from tracekit._diagnostics import report_failure
from tracekit.export.otlp_span import as_text, encode_span
from tracekit.export.otlp_value import BYTES, add_attributes, field, tag, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

# What receivers of gRPC take by default; those of HTTP take more.
MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024

# Tags and lengths around the spans of a scope, at most.
_FRAME_BYTES: Final = 24

_REQUEST_RESOURCE_SPANS: Final = tag(1, BYTES)
_RESOURCE_SPANS_RESOURCE: Final = tag(1, BYTES)
_RESOURCE_SPANS_SCOPE_SPANS: Final = tag(2, BYTES)
_RESOURCE_SPANS_SCHEMA_URL: Final = tag(3, BYTES)
_RESOURCE_ATTRIBUTES: Final = tag(1, BYTES)
_SCOPE_SPANS_SCOPE: Final = tag(1, BYTES)
_SCOPE_SPANS_SPANS: Final = tag(2, BYTES)
_SCOPE_SPANS_SCHEMA_URL: Final = tag(3, BYTES)
_SCOPE_NAME: Final = tag(1, BYTES)
_SCOPE_VERSION: Final = tag(2, BYTES)
_SCOPE_ATTRIBUTES: Final = tag(3, BYTES)


@final
class Request:
    """
    One `ExportTraceServiceRequest`.

    Args:
        body: Its bytes.
        spans: How many spans are in it.
    """

    __slots__ = ("body", "spans")

    def __init__(self, body: bytes, spans: int) -> None:
        self.body: Final = body
        self.spans: Final = spans

    def __len__(self) -> int:
        return self.spans

    def halves(self) -> tuple[Request, ...]:
        """Return the first and the second half of the spans; nothing, if there is but one."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        if self.spans < 2:  # noqa: PLR2004  # what has halves
            return ()
        first = self.spans // 2
        parts = ExportTraceServiceRequest(), ExportTraceServiceRequest()
        seen = 0
        for resource_spans in ExportTraceServiceRequest.FromString(self.body).resource_spans:
            for scope_spans in resource_spans.scope_spans:
                here = min(len(scope_spans.spans), max(0, first - seen))
                seen += len(scope_spans.spans)
                for part, spans in zip(parts, (scope_spans.spans[:here], scope_spans.spans[here:]), strict=True):
                    if spans:
                        of_resource = part.resource_spans.add(
                            resource=resource_spans.resource, schema_url=resource_spans.schema_url
                        )
                        of_resource.scope_spans.add(
                            scope=scope_spans.scope, schema_url=scope_spans.schema_url, spans=spans
                        )
        return tuple(
            Request(part.SerializeToString(), spans)
            for part, spans in zip(parts, (first, self.spans - first), strict=True)
        )


def joined(requests: Sequence[Request]) -> Request:
    """Return one request with the spans of *requests*: what is repeated in a message adds up."""
    return Request(b"".join([request.body for request in requests]), sum(request.spans for request in requests))


def encode_spans(spans: Iterable[ReadableSpan]) -> bytes:
    """Return *spans* as the bytes of one `ExportTraceServiceRequest`; those that cannot be written are left out."""
    return b"".join([request.body for request in chunks(spans, sys.maxsize)])


def chunks(
    spans: Iterable[ReadableSpan],
    max_bytes: int = MAX_REQUEST_BYTES,
    on_unencodable: Callable[[], object] = bool,
) -> Iterator[Request]:
    """
    Yield *spans* as requests, in their order.

    Args:
        spans: What is to be sent.
        max_bytes: Size of a request at most, in bytes; a span that is larger by itself has a request by itself.
        on_unencodable: Called for each span that cannot be written and is left out.
    """
    request = _Builder(max_bytes)
    for span in spans:
        try:
            written = field(_SCOPE_SPANS_SPANS, encode_span(span))
            if not request.takes(span.resource, span.instrumentation_scope, written):
                full, request = request, _Builder(max_bytes)
                request.takes(span.resource, span.instrumentation_scope, written)
                yield full.build()
        except Exception as error:  # noqa: BLE001  # made by hand; it must not cost the others
            report_failure("OTLP", "a span", error)
            on_unencodable()
    if request.size:
        yield request.build()


@final
class _Builder:
    """A request being made: spans by scope by resource, each where it comes first, as the official encoder has it."""

    __slots__ = ("_last_scope", "_max_bytes", "_resources", "_scopes", "size")

    def __init__(self, max_bytes: int) -> None:
        self.size = 0
        self._max_bytes: Final = max_bytes
        self._resources: dict[object, tuple[bytes, dict[object, list[bytes]]]] = {}
        # By identity: comparing resources serialises them.
        self._scopes: dict[tuple[int, int], list[bytes]] = {}
        self._last_scope: tuple[object, object, list[bytes]] = (None, None, [])

    def takes(self, resource: Resource, scope: InstrumentationScope | None, span: bytes) -> bool:
        """Add *span* if the request has room for it, or nothing but it."""
        growth = len(span)
        last_resource, last_scope, spans = self._last_scope
        is_new = False
        if resource is not last_resource or scope is not last_scope:
            known = self._scopes.get((id(resource), id(scope)))
            is_new = known is None
            spans = [_scope(scope)] if known is None else known
            if is_new:
                growth += len(_resource(resource)) + len(spans[0]) + _FRAME_BYTES
        if self.size and self.size + growth > self._max_bytes:
            return False
        if is_new:
            _, scopes = self._resources.setdefault(_key(resource), (_resource(resource), {}))
            spans = scopes.setdefault(_key(scope), spans)
            self._scopes[id(resource), id(scope)] = spans
        self._last_scope = resource, scope, spans
        spans.append(span)
        self.size += growth
        return True

    def build(self) -> Request:
        """Return what has been added."""
        parts: list[bytes] = []
        number = 0
        for resource, scopes in self._resources.values():
            of_scopes = [field(_RESOURCE_SPANS_SCOPE_SPANS, b"".join(spans)) for spans in scopes.values()]
            parts.append(field(_REQUEST_RESOURCE_SPANS, b"".join([resource, *of_scopes])))
            number += sum(len(spans) - 1 for spans in scopes.values())
        return Request(b"".join(parts), number)


def _key(value: object) -> object:
    try:
        hash(value)
    except TypeError:  # a resource with bytes
        return id(value)
    return value


def _resource(resource: Resource) -> bytes:
    """Return the fields of a ResourceSpans that are not its spans."""
    parts: list[bytes] = []
    add_attributes(parts, _RESOURCE_ATTRIBUTES, b"", dict(resource.attributes))
    return field(_RESOURCE_SPANS_RESOURCE, b"".join(parts)) + text(
        _RESOURCE_SPANS_SCHEMA_URL, as_text(resource.schema_url)
    )


def _scope(scope: InstrumentationScope | None) -> bytes:
    """Return the fields of a ScopeSpans that are not its spans."""
    if scope is None:
        return field(_SCOPE_SPANS_SCOPE, b"")
    parts = [text(_SCOPE_NAME, as_text(scope.name)), text(_SCOPE_VERSION, as_text(scope.version))]
    add_attributes(parts, _SCOPE_ATTRIBUTES, b"", dict(scope.attributes or {}))
    return field(_SCOPE_SPANS_SCOPE, b"".join(parts)) + text(_SCOPE_SPANS_SCHEMA_URL, as_text(scope.schema_url))
