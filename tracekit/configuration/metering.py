"""`configure(metrics=True)`: where the metrics of operations go, and their part in the flush and end of a pipeline."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import SpanProcessor

from tracekit._diagnostics import logger
from tracekit._fork import in_forked_child
from tracekit._metrics import OperationMetrics
from tracekit._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.resources import Resource

    from tracekit._environment import Environment
    from tracekit.configuration.exporters import ExportOptions, Sink

KNOWN: Final = ("otlp", "console", "memory", "none")
_VARIABLE: Final = "OTEL_METRICS_EXPORTER"
_ENDPOINT_VARIABLE: Final = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
_SCOPE: Final = "tracekit"
_INTERVAL_MS: Final = 60_000
_TIMEOUT_MS: Final = 30_000
_MIN_TIMEOUT_MS: Final = 100


@final
class Metering(SpanProcessor):
    """
    What measures operations; in a pipeline no span goes through it, but it is flushed and closed with the others.

    Takes the meter provider that the program has set, else makes one: with the first measurement, and once more in a
    forked child, because a reader's thread and connection do not survive a fork.

    Args:
        make_readers: Make what a provider of our own is read by.
        make_resource: What the metrics are about; asked again in a forked child.
    """

    def __init__(
        self, make_readers: Sequence[Callable[[], MetricReader]], make_resource: Callable[[], Resource]
    ) -> None:
        self._make_readers: Final = make_readers
        self._make_resource: Final = make_resource
        self._is_closed = False
        self._begin()
        # Before `metrics` asks for another meter there.
        in_forked_child(self._begin)
        self.metrics: Final = OperationMetrics(self._meter)

    def _begin(self) -> None:
        self._readers: list[MetricReader] = []
        self._provider: MeterProvider | None = None

    def _meter(self) -> Meter:
        from opentelemetry import metrics as metrics_api

        if self._is_closed:
            return metrics_api.NoOpMeterProvider().get_meter(_SCOPE)
        if self._make_readers and not has_users_provider():
            self._readers = [make() for make in self._make_readers]
            self._provider = MeterProvider(self._readers, resource=self._make_resource(), shutdown_on_exit=False)
            return self._provider.get_meter(_SCOPE, __version__)
        # The program's own, or what stands in for one that is still to be set.
        return metrics_api.get_meter(_SCOPE, __version__)

    def read(self) -> MetricsData | None:
        """Return what has been measured so far, None if it is not kept in memory."""
        if InMemoryMetricReader not in self._make_readers:
            return None
        kept = next((reader for reader in self._readers if isinstance(reader, InMemoryMetricReader)), None)
        return (kept and kept.get_metrics_data()) or MetricsData([])

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what has been measured."""
        try:
            return self._provider is None or self._provider.force_flush(timeout_millis)
        except Exception:  # noqa: BLE001  # how the SDK says that it took too long, or that _OwnExporter has failed
            return False

    def shutdown(self, timeout_millis: int = 30_000) -> None:
        """Export what has been measured, and close what it went to; raises if that fails."""
        self._is_closed = True
        if self._provider is not None:
            # Without any time it would close nothing.
            self._provider.shutdown(max(timeout_millis, _MIN_TIMEOUT_MS))


@final
class _OwnExporter(MetricExporter):
    """
    Passes metrics on, but in a forked child, where the SDK starts the thread of the parent's reader once more.

    Args:
        exporter: Where they go.
    """

    def __init__(self, exporter: MetricExporter) -> None:
        super().__init__(
            # What a reader reads too.
            preferred_temporality=exporter._preferred_temporality,  # noqa: SLF001
            preferred_aggregation=exporter._preferred_aggregation,  # noqa: SLF001
        )
        self._exporter: Final[Any] = exporter  # pyright would know nothing of its **kwargs
        self._process: Final = os.getpid()
        self._is_delivered = True

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Pass *metrics_data* on."""
        if os.getpid() != self._process:
            return MetricExportResult.SUCCESS
        self._is_delivered = False
        result: MetricExportResult = self._exporter.export(metrics_data, timeout_millis=timeout_millis, **kwargs)
        self._is_delivered = result is MetricExportResult.SUCCESS
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002  # exporters keep nothing
        """Raise if the last export has failed: a reader passes no result on."""
        if not self._is_delivered:
            msg = "the last export of metrics has failed"
            raise RuntimeError(msg)
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Close the exporter; raise if the last export has failed."""
        self._exporter.shutdown(timeout_millis, **kwargs)
        self.force_flush()


def metering_of(
    sinks: Sequence[Sink], options: ExportOptions, variables: Environment, make_resource: Callable[[], Resource]
) -> Metering:
    """
    Return the metering that sends where `OTEL_METRICS_EXPORTER` says, else where spans go.

    Args:
        sinks: Where spans go.
        options: How to send over OTLP.
        variables: What *options* leaves open.
        make_resource: What the metrics are about.

    Raises:
        ConfigurationError: If a variable cannot be read, or an extra is missing.
    """
    named = variables.choices(_VARIABLE, KNOWN)
    wanted = dict.fromkeys(named if named is not None else (sink.metrics for sink in sinks))
    make_readers: list[Callable[[], MetricReader]] = []
    if "otlp" in wanted:
        make_readers.append(_periodic(_otlp(options, variables), variables))
    if "console" in wanted:
        from tracekit.export.summary import SummaryExporter

        make_readers.append(_periodic(SummaryExporter, variables))
    if "memory" in wanted:
        make_readers.append(InMemoryMetricReader)
    if wanted and not make_readers and named is None and not has_users_provider():
        logger.warning(
            "metrics=True: no metrics leave the process, because the exporter takes spans only. Set %s to otlp or "
            "console, or a MeterProvider before the first traced call",
            _VARIABLE,
        )
    return Metering(make_readers, make_resource)


def has_users_provider() -> bool:
    """Tell whether the program has set a meter provider."""
    from opentelemetry import metrics as metrics_api

    # The stand-in for one has no public name.
    return type(metrics_api.get_meter_provider()).__name__ != "_ProxyMeterProvider"


def _otlp(options: ExportOptions, variables: Environment) -> Callable[[], MetricExporter]:
    from tracekit.export.connection import resolve_connection
    from tracekit.export.sending import otlp_metric_exporter

    # A receiver of their own: what the arguments say of that for spans (a key in the headers) is not for it.
    is_elsewhere = variables.text(_ENDPOINT_VARIABLE) is not None
    connection = resolve_connection(
        variables,
        "metrics",
        endpoint=None if is_elsewhere else options.endpoint,
        protocol=None if is_elsewhere else options.protocol,
        insecure=None if is_elsewhere else options.insecure,
        headers=None if is_elsewhere else options.headers,
        compression=options.compression,
        timeout_s=options.timeout_s,
    )
    return otlp_metric_exporter(connection)


def _periodic(make: Callable[[], MetricExporter], variables: Environment) -> Callable[[], MetricReader]:
    interval_ms = variables.integer("OTEL_METRIC_EXPORT_INTERVAL", minimum=1) or _INTERVAL_MS
    timeout_ms = variables.integer("OTEL_METRIC_EXPORT_TIMEOUT", minimum=1) or _TIMEOUT_MS
    return partial(_reader, make, interval_ms, timeout_ms)


def _reader(make: Callable[[], MetricExporter], interval_ms: int, timeout_ms: int) -> MetricReader:
    return PeriodicExportingMetricReader(_OwnExporter(make()), interval_ms, timeout_ms)
