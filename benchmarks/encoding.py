"""What encoding a span for OTLP costs: the official encoder and serialiser, and tracekit's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_officially
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.trace import SpanContext, Status, StatusCode

from benchmarks.harness import Case, Effort, measure
from benchmarks.tables import Table, Target
from tracekit._stats import Counters
from tracekit.export.otlp import encode_spans
from tracekit.recording import Pipeline, TracerProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span

# One export batch.
SPANS: Final = 512

OFFICIAL: Final = "official encoder and serialiser"
OFFICIAL_OWN_SPANS: Final = "official encoder and serialiser, the engine's spans"
OWN_SDK_SPANS: Final = "tracekit, the SDK's spans"
OWN: Final = "tracekit, the engine's spans"

_TARGETS: Final = (Target(OWN, OFFICIAL, 0.2), Target(OWN_SDK_SPANS, OFFICIAL, 0.2))

_OK: Final = Status(StatusCode.OK)
_OTHER: Final = SpanContext(2**127 + 5, 2**63 + 7, is_remote=True)


def _three_attributes(span: Span, number: int) -> None:
    # An id that is always another one, a word of few, a number.
    span.set_attribute("order.id", 100_000 + number)
    span.set_attribute("order.channel", ("web", "shop", "phone")[number % 3])
    span.set_attribute("order.total", number * 1.25)
    span.set_status(_OK)


def _three_events(span: Span, number: int) -> None:
    _three_attributes(span, number)
    for attempt in range(3):
        span.add_event("payment_started", {"attempt": attempt, "order.id": number})


def _an_exception(span: Span, number: int) -> None:
    _three_attributes(span, number)
    try:
        int("x")
    except ValueError as error:
        span.record_exception(error)


def _like_a_request(span: Span, number: int) -> None:
    # What an instrumented web framework records, and a caller elsewhere.
    span.set_attributes(
        {
            "http.request.method": "GET",
            "http.route": "/orders/{order_id}",
            "http.response.status_code": 200,
            "url.scheme": "https",
            "url.path": f"/orders/{number}",
            "url.query": f"page={number % 7}",
            "server.address": "shop.example.com",
            "server.port": 443,
            "client.address": f"10.0.{number % 250}.7",
            "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "network.protocol.version": "1.1",
            "http.response.header.content-type": ["application/json", "charset=utf-8"],
        }
    )
    span.add_link(_OTHER, {"reason": "retry"})


SHAPES: Final = {
    "encoding a span with three attributes": _three_attributes,
    "encoding a span with three attributes and three events": _three_events,
    "encoding a span with three attributes and an exception": _an_exception,
    "encoding a span with twelve attributes, one a list, and a link": _like_a_request,
}


def tables(effort: Effort) -> Iterator[Table]:
    """Measure a table for each shape of span."""
    for title, record in SHAPES.items():
        if effort.wants(title):
            yield measure(title, list(_cases(record)), OFFICIAL, _TARGETS, rounds=effort.turns(60, 10))


def _cases(record: Callable[[Span, int], None]) -> Iterator[Case]:
    sdk, own = Kept(), Kept()
    provider = SdkTracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(sdk)
    _record(provider, record)
    _record(TracerProvider(Pipeline([own], Counters())), record)
    for name, spans in ((OFFICIAL, sdk.spans), (OFFICIAL_OWN_SPANS, own.spans)):
        yield Case(name, _encoding(spans, lambda spans: encode_officially(spans).SerializeToString()))
    for name, spans in ((OWN_SDK_SPANS, sdk.spans), (OWN, own.spans)):
        yield Case(name, _encoding(spans, encode_spans))


class Kept(SpanProcessor):
    """Keeps what has ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep *span*."""
        self.spans.append(span)


def _record(provider: SdkTracerProvider, record: Callable[[Span, int], None]) -> None:
    tracer = provider.get_tracer("shop.orders", "1.2")
    with tracer.start_as_current_span("orders.import"):
        for number in range(SPANS - 1):
            with tracer.start_as_current_span("orders.create") as span:
                record(span, number)


def _encoding(
    spans: Sequence[ReadableSpan], encode: Callable[[Sequence[ReadableSpan]], object]
) -> Callable[[int], Any]:
    def run(times: int) -> None:
        whole, rest = divmod(times, len(spans))
        for _ in range(whole):
            encode(spans)
        if rest:
            encode(spans[:rest])

    return run
