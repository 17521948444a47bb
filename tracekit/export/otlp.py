"""
Spans as OTLP: the bytes of an `ExportTraceServiceRequest`, written without message objects.

Source: opentelemetry-proto, collector/trace/v1/trace_service.proto, trace/v1/trace.proto, resource/v1/resource.proto.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, final

from tracekit._diagnostics import report_failure
from tracekit.export.otlp_attributes import AttributesField
from tracekit.export.otlp_span import as_text, encode_span
from tracekit.export.otlp_value import BYTES, LENGTHS, field, tag, text

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
_RESOURCE_ATTRIBUTES: Final = AttributesField(1)
_SCOPE_SPANS_SCOPE: Final = tag(1, BYTES)
_SCOPE_SPANS_SPANS: Final = tag(2, BYTES)
_SCOPE_SPANS_SCHEMA_URL: Final = tag(3, BYTES)
_SCOPE_NAME: Final = tag(1, BYTES)
_SCOPE_VERSION: Final = tag(2, BYTES)
_SCOPE_ATTRIBUTES: Final = AttributesField(3)


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
            written, resource, scope = encode_span(span), span.resource, span.instrumentation_scope
            if not request.takes(resource, scope, written):
                full, request = request, _Builder(max_bytes)
                request.takes(resource, scope, written)
                yield full.build()
        except Exception as error:  # noqa: BLE001  # made by hand; it must not cost the others
            report_failure("OTLP", "a span", error)
            on_unencodable()
    if request.spans:
        yield request.build()


@final
class _Builder:
    """A request being made: spans by scope by resource, each where it comes first, as the official encoder has it."""

    __slots__ = ("_max_bytes", "_resource", "_resources", "_scope", "_scopes", "_spans", "size", "spans")

    def __init__(self, max_bytes: int) -> None:
        self.size = 0
        self.spans = 0
        self._max_bytes: Final = max_bytes
        self._resources: dict[object, tuple[bytes, dict[object, list[bytes]]]] = {}
        # By identity: comparing resources serialises them.
        self._scopes: dict[tuple[int, int], list[bytes]] = {}
        # Those of the last span, which are those of the next one mostly.
        self._resource: object = self
        self._scope: object = self
        self._spans: list[bytes] = []

    def takes(self, resource: Resource, scope: InstrumentationScope | None, span: bytes) -> bool:
        """Add *span* if the request has room for it, or nothing but it."""
        growth = len(span) + _FRAME_BYTES
        if resource is not self._resource or scope is not self._scope:
            spans = self._scopes.get((id(resource), id(scope)))
            if spans is None:
                of_resource, of_scope = _resource(resource), _scope(scope)
                if self.size and self.size + growth + len(of_resource) + len(of_scope) + _FRAME_BYTES > self._max_bytes:
                    return False
                self.size += len(of_resource) + len(of_scope) + _FRAME_BYTES
                _, scopes = self._resources.setdefault(_key(resource), (of_resource, {}))
                spans = scopes.setdefault(_key(scope), [of_scope])
                self._scopes[id(resource), id(scope)] = spans
            self._resource, self._scope, self._spans = resource, scope, spans
        if self.spans and self.size + growth > self._max_bytes:
            return False
        self._spans += (_SCOPE_SPANS_SPANS, LENGTHS[len(span)], span)
        self.size += growth
        self.spans += 1
        return True

    def build(self) -> Request:
        """Return what has been added."""
        parts: list[bytes] = []
        for resource, scopes in self._resources.values():
            of_scopes = [field(_RESOURCE_SPANS_SCOPE_SPANS, b"".join(spans)) for spans in scopes.values()]
            parts.append(field(_REQUEST_RESOURCE_SPANS, b"".join([resource, *of_scopes])))
        return Request(b"".join(parts), self.spans)


def _key(value: object) -> object:
    try:
        hash(value)
    except TypeError:  # a resource with bytes
        return id(value)
    return value


def _resource(resource: Resource) -> bytes:
    """Return the fields of a ResourceSpans that are not its spans."""
    parts: list[bytes] = []
    _RESOURCE_ATTRIBUTES.add(parts, dict(resource.attributes))
    return field(_RESOURCE_SPANS_RESOURCE, b"".join(parts)) + text(
        _RESOURCE_SPANS_SCHEMA_URL, as_text(resource.schema_url)
    )


def _scope(scope: InstrumentationScope | None) -> bytes:
    """Return the fields of a ScopeSpans that are not its spans."""
    if scope is None:
        return field(_SCOPE_SPANS_SCOPE, b"")
    parts = [text(_SCOPE_NAME, as_text(scope.name)), text(_SCOPE_VERSION, as_text(scope.version))]
    _SCOPE_ATTRIBUTES.add(parts, dict(scope.attributes or {}))
    return field(_SCOPE_SPANS_SCOPE, b"".join(parts)) + text(_SCOPE_SPANS_SCHEMA_URL, as_text(scope.schema_url))
