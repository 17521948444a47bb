"""What `configure()` returns: the handle on the pipeline it has set up."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Final, final

from typing_extensions import Self

from tracekit._diagnostics import diagnostics
from tracekit.errors import ConfigurationError
from tracekit.recording import end_open_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import TracerProvider

    from tracekit._stats import Stats
    from tracekit.configuration.metering import Metering
    from tracekit.recording import Pipeline

DEFAULT_TIMEOUT_S: Final = 5.0


@final
class Tracing:
    """
    The pipeline that `configure()` has set up. As a context manager it shuts the pipeline down at the end.

    Args:
        pipeline: What spans go through.
        provider: What makes them; None where tracing is switched off.
        memory: What `spans` reads.
        metering: What `metrics` reads.
        effective: The settings in effect, for a reader; holds no secrets.
        on_shutdown: Called after the pipeline has been shut down.
    """

    __slots__ = ("_effective", "_memory", "_metering", "_on_shutdown", "_pipeline", "provider")

    def __init__(
        self,
        pipeline: Pipeline,
        provider: TracerProvider | None,
        memory: InMemorySpanExporter | None,
        metering: Metering | None,
        effective: Mapping[str, object],
        on_shutdown: Callable[[], None],
    ) -> None:
        self._pipeline: Final = pipeline
        self.provider: Final = provider
        self._memory: Final = memory
        self._metering: Final = metering
        self._effective: Final = effective
        self._on_shutdown: Final = on_shutdown

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended so far, if they are kept: `configure(exporter="memory")`."""
        if self._memory is None:
            msg = 'Tracing.spans needs spans that are kept in memory. Write configure(exporter="memory").'
            raise ConfigurationError(msg)
        return self._memory.get_finished_spans()

    @property
    def metrics(self) -> MetricsData:
        """What has been measured so far, if it is kept: `configure(exporter="memory", metrics=True)`."""
        measured = None if self._metering is None else self._metering.read()
        if measured is None:
            msg = 'Tracing.metrics needs metrics in memory. Write configure(exporter="memory", metrics=True).'
            raise ConfigurationError(msg)
        return measured

    @property
    def stats(self) -> Stats:
        """What became of the spans so far."""
        stats = self._pipeline.counters.snapshot(internal_errors=diagnostics.internal_errors)
        return dataclasses.replace(stats, started=stats.sampled + stats.not_sampled)

    def flush(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> bool:
        """
        Export all spans that have ended.

        Args:
            timeout_s: Longest wait, in seconds, for all exporters together.

        Returns:
            Whether all of them were exported: False if one was lost or the time was up.
        """
        return self._pipeline.flush(_milliseconds(timeout_s))

    def shutdown(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> bool:
        """
        Export all spans and close the exporters; spans that start later are dropped and counted.

        Spans that are open are ended, with the attribute `tracekit.incomplete`.

        Args:
            timeout_s: Longest wait, in seconds, for all exporters together.

        Returns:
            Whether all spans were exported: False if one was lost or the time was up.
        """
        found = end_open_spans(self._pipeline)
        kept = self._pipeline.close(_milliseconds(timeout_s)) and found
        self._on_shutdown()
        return kept

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"Tracing({', '.join(f'{name}={value!r}' for name, value in self._effective.items())})"


def _milliseconds(timeout_s: float) -> int:
    """Return what the SDK's interfaces ask for; anything below zero, and NaN, is no wait at all."""
    return int(min(timeout_s, threading.TIMEOUT_MAX) * 1000) if timeout_s > 0 else 0
