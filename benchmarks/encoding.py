"""What encoding a span for OTLP costs: the official encoder and serialiser, and tracekit's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_officially
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.trace import Status, StatusCode

from benchmarks.harness import Case, Table
from tracekit._stats import Counters
from tracekit.export.otlp import encode_spans
from tracekit.recording import Pipeline, TracerProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

# One export batch.
SPANS: Final = 512

_OK: Final = Status(StatusCode.OK)


def tables() -> Sequence[Table]:
    """Return what is compared."""
    return [
        _table("a span with three attributes", events=0),
        _table("a span with three attributes and an event", events=1),
        _table("a span with three attributes and three events", events=3),
    ]


def _table(title: str, *, events: int) -> Table:
    sdk, own = Kept(), Kept()
    provider = SdkTracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(sdk)
    _record(provider, events)
    _record(TracerProvider(Pipeline([own], Counters())), events)
    cases = [
        Case("official", _encoding(sdk.spans, lambda spans: encode_officially(spans).SerializeToString())),
        Case("tracekit", _encoding(sdk.spans, encode_spans)),
        Case(
            "official, tracekit's spans",
            _encoding(own.spans, lambda spans: encode_officially(spans).SerializeToString()),
        ),
        Case("tracekit, tracekit's spans", _encoding(own.spans, encode_spans)),
    ]
    return Table(f"encoding {title}", cases, "official")


class Kept(SpanProcessor):
    """Keeps what has ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep *span*."""
        self.spans.append(span)


def _record(provider: SdkTracerProvider, events: int) -> None:
    tracer = provider.get_tracer("shop.orders", "1.2")
    with tracer.start_as_current_span("orders.import"):
        for number in range(SPANS - 1):
            with tracer.start_as_current_span("orders.create") as span:
                # An id that is always another one, a word of few, a number.
                span.set_attribute("order.id", 100_000 + number)
                span.set_attribute("order.channel", ("web", "shop", "phone")[number % 3])
                span.set_attribute("order.total", number * 1.25)
                for attempt in range(events):
                    span.add_event("payment_started", {"attempt": attempt})
                span.set_status(_OK)


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
