"""What a span takes in memory while it is open, and while it waits in the queue of the batch processor."""

from __future__ import annotations

import gc
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks.harness import Effort, take_turns
from benchmarks.providers import engine, stock
from benchmarks.tables import Table, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import TracerProvider

_SPANS: Final = 2_000
_SDK: Final = "the SDK"
_OWN: Final = "tracekit"


def tables(effort: Effort) -> Iterator[Table]:
    """Measure open spans, and queued ones."""
    for title, measured in (("an open span, two attributes", _open), ("a queued span, two attributes", _queued)):
        if effort.wants(title):
            # Queues that take them all, and send none of them.
            providers = {
                _SDK: stock(queue_size=2 * _SPANS, batch_size=2 * _SPANS),
                _OWN: engine(queue_size=2 * _SPANS, batch_size=2 * _SPANS),
            }
            samples = take_turns(
                {name: partial(measured, provider) for name, provider in providers.items()},
                effort.turns(5, 2),
            )
            yield Table(title, "bytes", samples, _SDK, [Target(_OWN, _SDK, 1.0)])


def _open(provider: TracerProvider) -> float:
    return _growth(provider, keep=True)


def _queued(provider: TracerProvider) -> float:
    return _growth(provider, keep=False)


def _growth(provider: TracerProvider, *, keep: bool) -> float:
    """Return by how many bytes a span makes the process grow that is kept open, or ended and queued."""
    tracer = provider.get_tracer("benchmarks")
    tracer.start_span("warm").end()
    provider.force_flush()
    kept: list[Any] = [None] * _SPANS
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(_SPANS):
            span = tracer.start_span("orders.create")
            span.set_attribute("order.id", 100_000 + number)
            span.set_attribute("order.channel", f"channel {number}")
            if keep:
                kept[number] = span
            else:
                span.end()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for span in filter(None, kept):
        span.end()
    provider.force_flush()
    return (after - before) / _SPANS
