"""The whole of tracing, set up to send over OTLP/HTTP: as the guide does it by hand, and by `configure()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

STOCK: Final = "stock"
TRACEKIT: Final = "tracekit"


def set_up(stack: str, endpoint: str) -> Callable[[], object]:
    """
    Set *stack* up to send to *endpoint*.

    Returns:
        What sends all that is left, and ends it.
    """
    return _stock(endpoint) if stack == STOCK else _tracekit(endpoint)


def _stock(endpoint: str) -> Callable[[], object]:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "benchmarks"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _tracekit(endpoint: str) -> Callable[[], object]:
    import tracekit

    return tracekit.configure(service="benchmarks", endpoint=endpoint, protocol="http/protobuf").shutdown
