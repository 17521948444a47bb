"""How long operations take and how often they fail, for OpenTelemetry's metrics. Nothing else measures operations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, final

from opentelemetry.context import Context

from tracekit._context import SPAN_KEY
from tracekit._fork import in_forked_child
from tracekit._semconv import ERROR_TYPE, METRIC_OVERFLOW, TRACEKIT_OPERATION_NAME

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram, Meter
    from opentelemetry.trace import Span

    _Instruments: TypeAlias = "tuple[Histogram, Counter] | tuple[()]"

DURATION: Final = "tracekit.operation.duration"
ERRORS: Final = "tracekit.operation.errors"

# Source: semantic conventions, http/http-metrics.md, which the conventions for other durations take over.
_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# Each pair of operation and error is a time series for the life of the process, and a program may make names at run
# time. Source: OpenTelemetry specification, metrics/sdk.md#cardinality-limits.
_MAX_SERIES: Final = 2_000
_OVERFLOW: Final[Mapping[str, bool]] = {METRIC_OVERFLOW: True}


@final
class OperationMetrics:
    """
    A duration histogram and an error counter, fed by every call.

    Args:
        meter: Makes the meter; asked at the first measurement, and once more in a forked child.
    """

    __slots__ = ("__weakref__", "_instruments", "_is_opening", "_lock", "_meter", "_series")

    def __init__(self, meter: Callable[[], Meter]) -> None:
        self._meter: Final = meter
        self._begin()
        in_forked_child(self._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._is_opening = False
        self._instruments: _Instruments | None = None
        self._series: dict[tuple[str, str | None], Mapping[str, str | bool]] = {}

    def measure(self, operation: str, duration_s: float, error_type: str | None, span: Span) -> None:
        """
        Count one call of *operation*.

        Args:
            operation: Its name.
            duration_s: How long it took, in seconds.
            error_type: What it failed with, None if it has not.
            span: Its span, which the measurement points to (as an exemplar) if it is sampled.
        """
        instruments = self._opened() if self._instruments is None else self._instruments
        if not instruments:
            return
        duration, errors = instruments
        attributes = self._series.get((operation, error_type)) or self._new_series(operation, error_type)
        context = Context({SPAN_KEY: span})
        duration.record(duration_s, attributes, context)
        if error_type is not None:
            errors.add(1, attributes, context)

    def _opened(self) -> _Instruments:
        with self._lock:
            if self._instruments is None and not self._is_opening:
                self._is_opening = True
                try:
                    self._instruments = _instruments_of(self._meter())
                except BaseException:
                    # Trying again would slow down every call.
                    self._instruments = ()
                    raise
            # None still: what opens is traced itself.
            return self._instruments or ()

    def _new_series(self, operation: str, error_type: str | None) -> Mapping[str, str | bool]:
        if len(self._series) >= _MAX_SERIES:
            return _OVERFLOW
        attributes: dict[str, str | bool] = {TRACEKIT_OPERATION_NAME: operation}
        if error_type is not None:
            attributes[ERROR_TYPE] = error_type
        return self._series.setdefault((operation, error_type), attributes)


def _instruments_of(meter: Meter) -> _Instruments:
    return (
        meter.create_histogram(
            DURATION,
            unit="s",
            description="Duration of calls of an operation.",
            explicit_bucket_boundaries_advisory=_BUCKETS_S,
        ),
        meter.create_counter(ERRORS, unit="{error}", description="Number of calls of an operation that failed."),
    )
