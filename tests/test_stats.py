"""Counting spans: exact whatever threads and signal handlers do meanwhile."""

from __future__ import annotations

import inspect
import io
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tracekit._stats import Counters, Stats
from tracekit.export.batch import BatchProcessor
from tracekit.export.console import TreeProcessor
from tracekit.export.immediate import ImmediateProcessor

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def _busy_switching() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_figures_are_what_was_added() -> None:
    counters = Counters()
    counters.add("started", 3)
    counters.add("sampled")
    counters.add("started", -1)
    counters.drop("queue_full", 2)
    counters.drop("export_failed")
    assert counters.snapshot() == Stats(started=2, sampled=1, dropped={"queue_full": 2, "export_failed": 1})
    assert counters.snapshot(internal_errors=4).internal_errors == 4


def test_a_snapshot_stays_as_it_was_taken() -> None:
    counters = Counters()
    counters.drop("queue_full")
    before = counters.snapshot()
    counters.drop("queue_full")
    assert before.dropped == {"queue_full": 1}


def test_included_books_are_added() -> None:
    counters = Counters()
    counters.add("sampled", 5)
    counters.drop("queue_full")
    counters.include(lambda: Stats(exported=4, queued=1, dropped={"queue_full": 2}))
    assert counters.snapshot() == Stats(sampled=5, exported=4, queued=1, dropped={"queue_full": 3})


@pytest.mark.usefixtures("_busy_switching")
def test_nothing_is_lost_between_threads() -> None:
    counters = Counters()
    start = threading.Barrier(5)

    def count() -> None:
        start.wait()
        for _ in range(10_000):
            counters.add("started")
            counters.drop("queue_full")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        counters.snapshot()
    for thread in threads:
        thread.join()
    assert counters.snapshot() == Stats(started=40_000, dropped={"queue_full": 40_000})


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_nothing_is_lost_to_a_signal_handler_that_counts_too() -> None:
    counters = Counters()
    handled = 0

    def handle(*_: object) -> None:
        nonlocal handled
        handled += 1
        counters.add("started")
        counters.drop("queue_full")
        counters.snapshot()

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    counted = 0
    try:
        while handled < 2_000:
            counters.add("started")
            counters.drop("queue_full")
            counted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert counters.snapshot() == Stats(started=counted + handled, dropped={"queue_full": counted + handled})


def test_a_forked_child_starts_from_zero() -> None:
    counters = Counters()
    counters.add("started")
    counters.drop("queue_full")
    counters.reset_after_fork()
    counters.add("started")
    assert counters.snapshot() == Stats(started=1)


def test_what_is_counted_and_never_asked_for_takes_no_memory() -> None:
    counters = Counters()
    for _ in range(10_000):
        counters.add("started")
    assert len(counters._changes) <= 1_024


@pytest.mark.parametrize("kind", ["immediate", "batch", "tree"])
def test_a_span_that_ends_at_the_recursion_limit_is_accounted_for(kind: str) -> None:
    counters = Counters()
    exporter = InMemorySpanExporter()
    processor: Any = {
        "immediate": lambda: ImmediateProcessor(exporter, counters),
        "batch": lambda: BatchProcessor(exporter, counters, max_queue_size=10),
        "tree": lambda: TreeProcessor(io.StringIO(), counters=counters),
    }[kind]()
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    limit = sys.getrecursionlimit()
    came, entered = 0, 0
    for room in [*range(2, 120), 500]:
        span = tracer.start_span("s")
        span.end()
        try:
            sys.setrecursionlimit(len(inspect.stack()) + room)
        except RecursionError:  # less than there is already
            continue
        came += 1
        try:
            processor.on_end(span)
            entered += 1
        except RecursionError:  # before anything of it ran, or when the span was safe
            continue
        finally:
            sys.setrecursionlimit(limit)
    processor.force_flush()
    stats = counters.snapshot()
    assert entered <= stats.exported + sum(stats.dropped.values()) <= came
    assert came >= entered > came - 20
    processor.shutdown()
