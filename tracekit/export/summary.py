"""Metrics of operations for a reader: a table on stderr."""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO, final

from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
)

from tracekit._metrics import ERRORS
from tracekit._semconv import METRIC_OVERFLOW, TRACEKIT_OPERATION_NAME
from tracekit.export.text import columns_of, duration_text, fitted, for_encoding, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER: Final = "Operation"
_MAX_NAME: Final = 60


@final
@dataclass(slots=True)
class _Row:
    calls: int = 0
    errors: int | float = 0
    total_s: float = 0.0
    longest_s: float = 0.0


@final
class SummaryExporter(MetricExporter):
    """
    Prints calls, errors, mean and longest duration of each operation since the start, when they have changed.

    Args:
        stream: Where to print; None for what `sys.stderr` is at that time.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream: Final = stream
        self._printed = ""

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,  # noqa: ARG002  # the SDK's signature
        **kwargs: Any,  # noqa: ARG002  # as above
    ) -> MetricExportResult:
        """Print the table."""
        table = summary(metrics_data)
        if table != self._printed:
            stream = self._stream or sys.stderr
            stream.write(for_encoding(table, getattr(stream, "encoding", None)))
            stream.flush()
            self._printed = table
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002  # the SDK's signature
        """Return True: nothing is kept here."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Do nothing: the stream is not ours to close."""


def summary(metrics_data: MetricsData) -> str:
    """Return the metrics of operations in *metrics_data* as a table; empty if there are none."""
    rows: defaultdict[str, _Row] = defaultdict(_Row)
    for metric_name, point in _points(metrics_data):
        attributes = point.attributes or {}
        name = "(others)" if METRIC_OVERFLOW in attributes else attributes.get(TRACEKIT_OPERATION_NAME)
        if not isinstance(name, str):
            continue
        row = rows[name]
        if isinstance(point, HistogramDataPoint):
            row.calls += point.count
            row.total_s += point.sum
            row.longest_s = max(row.longest_s, point.max)
        elif metric_name == ERRORS:
            row.errors += point.value
    if not rows:
        return ""
    names = {name: printable(name, _MAX_NAME) for name in rows}
    width = max(map(columns_of, (_HEADER, *names.values())))
    lines = [f"{_HEADER:<{width}}  {'calls':>7}  {'errors':>7}  {'mean':>7}  {'longest':>7}"]
    for name, row in rows.items():
        mean = duration_text(round(row.total_s / row.calls * 1e9)) if row.calls else ""
        longest = duration_text(round(row.longest_s * 1e9))
        lines.append(f"{fitted(names[name], width)}  {row.calls:>7}  {row.errors:>7}  {mean:>7}  {longest:>7}")
    return "\n".join(lines) + "\n"


def _points(metrics_data: MetricsData) -> Iterator[tuple[str, HistogramDataPoint | NumberDataPoint]]:
    for resource in metrics_data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    if isinstance(point, (HistogramDataPoint, NumberDataPoint)):
                        yield metric.name, point
