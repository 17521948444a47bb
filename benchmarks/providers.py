"""What makes the spans: the SDK's provider as applications set it up, and tracekit's as `configure()` does."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from tracekit._config import runtime
from tracekit._environment import Environment
from tracekit._stats import Counters
from tracekit.configuration.limits import span_limits
from tracekit.export.batch import BatchProcessor
from tracekit.recording import CountedSampler, Pipeline, TracerProvider
from tracekit.sampling import sampler_from

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from opentelemetry.trace import TracerProvider as ApiTracerProvider

# Below the size of an export batch: the processors' threads stay asleep while a round is measured.
MOST_SPANS: Final = 400

_NEVER_S: Final = 3_600


@final
class Discard(SpanExporter):
    """An exporter that takes everything and keeps nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002  # the interface's name
        """Take *spans*."""
        return SpanExportResult.SUCCESS


def stock(ratio: float = 1.0, *, queue_size: int = 2_048, batch_size: int = 512) -> SdkTracerProvider:
    """Return the SDK's provider with its batch processor and an exporter that discards."""
    provider = SdkTracerProvider(sampler=ParentBasedTraceIdRatio(ratio), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(
            Discard(),
            max_queue_size=queue_size,
            max_export_batch_size=batch_size,
            schedule_delay_millis=_NEVER_S * 1000,
        )
    )
    return provider


def engine(ratio: float = 1.0, *, queue_size: int = 100_000, batch_size: int = 512) -> TracerProvider:
    """Return the provider of `configure(sample=ratio)` with an exporter that discards."""
    # Put together as `configure()` does, which closes the provider before: here several are open at once.
    counters, variables = Counters(), Environment()
    batch = BatchProcessor(
        Discard(), counters, max_queue_size=queue_size, max_batch_size=batch_size, schedule_delay_s=_NEVER_S
    )
    sampler = CountedSampler(sampler_from(ratio, record_dropped=False, variables=variables), counters)
    return TracerProvider(Pipeline([batch], counters, sampler=sampler, limits=span_limits(variables)))


@contextmanager
def made_by(provider: ApiTracerProvider) -> Generator[None]:
    """Let *provider* make the spans of `@traced` in here, as the one that was configured."""
    undo = runtime.capture(provider)
    try:
        yield
    finally:
        undo()
