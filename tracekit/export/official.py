"""The official exporters, but sending requests that are bytes already; where that cannot be, as they are."""

from __future__ import annotations

from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from tracekit.export.otlp import Request


def http_exporter() -> tuple[type[SpanExporter], bool]:
    """
    Return the class of exporters for HTTP, and whether its `export` takes a `Request` in place of spans.

    Raises:
        ImportError: If the extra is missing.
    """
    # Not `from ... import trace_exporter`, which a package without that module, but with the name, would answer.
    trace_exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")

    official = trace_exporter.OTLPSpanExporter
    export = cast("FunctionType", official.export)
    if "encode_spans" not in export.__code__.co_names or export.__closure__:
        return official, False
    # Its `export` encodes, sends and sends again. This one is the same, in a module whose `encode_spans` has nothing
    # to do.
    names = {**vars(trace_exporter), "encode_spans": _encoded}
    return type("OTLPSpanExporter", (official,), {"export": FunctionType(export.__code__, names, "export")}), True


def grpc_exporter() -> tuple[type[SpanExporter], bool]:
    """
    Return the class of exporters for gRPC, and whether its `export` takes a `Request` in place of spans.

    Raises:
        ImportError: If the extra is missing.
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    official: Any = OTLPSpanExporter
    if not (hasattr(official, "_initialize_channel_and_stub") and hasattr(official, "_translate_data")):
        return official, False

    class _Stub:
        """A `TraceServiceStub` that is given bytes."""

        def __init__(self, channel: Any) -> None:
            self.Export = channel.unary_unary(
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                response_deserializer=ExportTraceServiceResponse.FromString,
            )

    class RequestExporter(official):  # type: ignore[misc]  # a class that may change
        def _initialize_channel_and_stub(self) -> None:
            super()._initialize_channel_and_stub()  # pyright: ignore[reportUnknownMemberType]  # as above
            self._client = _Stub(self._channel)

        def _translate_data(self, data: Request) -> bytes:
            return data.body

    return RequestExporter, True


def _encoded(request: Request) -> Request:
    return request
