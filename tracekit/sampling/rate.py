"""A number of traces per second, however many there are."""

from __future__ import annotations

import math
import reprlib
import threading
import time
from typing import TYPE_CHECKING, final

from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from typing_extensions import override

from tracekit._fork import in_forked_child
from tracekit._ratio import number_of
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.sampling import SamplingResult
    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes


@final
class RateLimited(ParentBased):
    """
    Samples at most *per_second* new traces a second in this process; spans with a parent follow it.

    Args:
        per_second: Traces per second on average; may be below 1 (0.1: one in ten seconds).
        burst: Traces that may come at once after a quiet time (None: those of one second, at least one).
        clock: Seconds that never go back.

    Raises:
        ConfigurationError: *per_second* is no positive number, or *burst* is below 1.
    """

    def __init__(
        self, per_second: float, *, burst: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        rate = _positive(per_second, "per_second", "RateLimited(10); for nothing at all, sample=0")
        size = max(1.0, rate) if burst is None else _positive(burst, "burst", "RateLimited(10, burst=20)", least=1)
        super().__init__(root=_TokenBucket(rate, size, clock))

    @override
    def get_description(self) -> str:
        return self._root.get_description()


@final
class _TokenBucket(Sampler):
    def __init__(self, per_second: float, size: float, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._size = size
        self._clock = clock
        self._tokens = size
        self._filled_at = clock()
        # Re-entrant: a signal handler may start a trace while this thread holds it.
        self._lock = threading.RLock()
        in_forked_child(self._renew_lock)

    @override
    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,  # the SDK's signature
    ) -> SamplingResult:
        sampler = ALWAYS_ON if self._take() else ALWAYS_OFF
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)

    @override
    def get_description(self) -> str:
        return f"RateLimited{{{self._per_second:g}/s}}"

    def _take(self) -> bool:
        with self._lock:
            now = self._clock()
            self._tokens = min(self._size, self._tokens + max(0.0, now - self._filled_at) * self._per_second)
            self._filled_at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()


def _positive(value: object, option: str, write: str, *, least: float = 0) -> float:
    number = number_of(value)
    if number is not None and math.isfinite(number) and number > 0 and number >= least:
        return number
    msg = f"RateLimited: {option} is {reprlib.repr(value)}, expected a number above 0. Write {write}."
    raise ConfigurationError(msg)
