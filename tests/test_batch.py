"""Batches and single spans on their way to an exporter: none is lost unseen, and nobody waits for it."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value
from opentelemetry.sdk.trace import Event, ReadableSpan, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanContext

from tracekit._diagnostics import diagnostics
from tracekit._stats import Counters, Stats
from tracekit.errors import ConfigurationError
from tracekit.export.batch import BatchProcessor
from tracekit.export.immediate import ImmediateProcessor

WAIT_S = 20.0


class Exporter(SpanExporter):
    """Remembers batches and does what a test tells it to."""

    def __init__(self, answer: Callable[[], Any] = lambda: SpanExportResult.SUCCESS) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()
        self.is_suppressed: list[object] = []
        self.shutdowns = 0

    @property
    def names(self) -> list[str]:
        return [name for batch in self.batches for name in batch]

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.threads.add(threading.current_thread().name)
        self.is_suppressed.append(get_value(_SUPPRESS_INSTRUMENTATION_KEY))
        result = self.answer()
        self.batches.append([span.name for span in spans])
        return result

    def shutdown(self) -> None:
        self.shutdowns += 1

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class Gate:
    """An exporter's answer that waits until it is let through."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> SpanExportResult:
        self.reached.set()
        assert self.open.wait(WAIT_S)
        return SpanExportResult.SUCCESS


class Pipe:
    """A provider with one processor, and what it counted."""

    def __init__(self, make: Callable[[Counters], Any], **options: Any) -> None:
        self.counters = Counters()
        self.processor = make(self.counters)
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(self.processor)
        self.tracer: Tracer = self.provider.get_tracer("test")

    @property
    def stats(self) -> Stats:
        return self.counters.snapshot()

    def end(self, *names: str) -> None:
        for name in names:
            self.tracer.start_span(name).end()


@pytest.fixture
def batching() -> Iterator[Callable[..., Pipe]]:
    pipes: list[Pipe] = []

    def make(exporter: SpanExporter, **options: Any) -> Pipe:
        options = {"schedule_delay_s": 3_600.0, **options}
        pipe = Pipe(lambda counters: BatchProcessor(exporter, counters, **options))
        pipes.append(pipe)
        return pipe

    yield make
    for pipe in pipes:
        pipe.processor.shutdown()


@pytest.fixture(autouse=True)
def _forget_reports() -> Iterator[None]:
    diagnostics.reset()
    yield
    diagnostics.reset()


def ended_span(name: str) -> ReadableSpan:
    """A span to end again and again: the SDK itself would hang if a span ended at certain points of its code."""
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span(name)
    span.end()
    return span


def figures(stats: Stats) -> tuple[int, int, dict[str, int]]:
    return stats.exported, stats.queued, dict(stats.dropped)


def test_spans_go_in_full_batches_and_the_rest_at_a_flush(batching: Callable[..., Pipe]) -> None:
    full = threading.Semaphore(0)
    exporter = Exporter(full.release)
    pipe = batching(exporter, max_batch_size=3)
    pipe.end(*"abcdefg")
    assert full.acquire(timeout=WAIT_S)
    assert full.acquire(timeout=WAIT_S)
    assert pipe.processor.force_flush()
    assert exporter.batches == [list("abc"), list("def"), ["g"]]
    assert figures(pipe.stats) == (7, 0, {})


def test_a_span_waits_for_its_batch_no_longer_than_the_delay(batching: Callable[..., Pipe]) -> None:
    came = threading.Event()
    pipe = batching(Exporter(came.set), schedule_delay_s=0.0)
    pipe.end("a")
    assert came.wait(WAIT_S)


def test_spans_are_exported_on_a_thread_of_their_own_that_starts_with_the_first(batching: Callable[..., Pipe]) -> None:
    before = set(threading.enumerate())
    exporter = Exporter()
    pipe = batching(exporter)
    assert pipe.processor.force_flush()
    assert set(threading.enumerate()) == before
    pipe.end("a")
    assert pipe.processor.force_flush()
    assert exporter.threads == {"tracekit-export"}


def test_instrumentation_is_suppressed_while_exporting(batching: Callable[..., Pipe]) -> None:
    exporter, immediate = Exporter(), Exporter()
    pipe = batching(exporter)
    pipe.provider.add_span_processor(ImmediateProcessor(immediate, Counters()))
    pipe.end("a")
    pipe.processor.force_flush()
    assert exporter.is_suppressed == immediate.is_suppressed == [True]
    assert not get_value(_SUPPRESS_INSTRUMENTATION_KEY)


def test_spans_beyond_the_queue_are_dropped_counted_and_said_once(
    batching: Callable[..., Pipe], caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    exporter = Exporter(gate)
    pipe = batching(exporter, max_queue_size=5, max_batch_size=2)
    pipe.end("a", "b")
    assert gate.reached.wait(WAIT_S)
    pipe.end(*"cdefgxyz")
    assert figures(pipe.stats) == (0, 7, {"queue_full": 3})
    gate.open.set()
    assert not pipe.processor.force_flush()
    assert exporter.names == list("abcdefg")
    assert figures(pipe.stats) == (7, 0, {"queue_full": 3})
    pipe.processor.shutdown()
    assert [record.getMessage() for record in caplog.records] == [
        "tracekit: spans dropped: 1 (queue_full)",
        "tracekit: spans dropped: 2 (queue_full), 3 so far",
    ]


def weighing(kilobytes: int, *, trace_id: int | None = None) -> ReadableSpan:
    """A span with so much text, in a trace of its own or in *trace_id*."""
    context = ended_span("s").context
    assert context is not None
    if trace_id is not None:
        context = SpanContext(trace_id, context.span_id, is_remote=False, trace_flags=context.trace_flags)
    return ReadableSpan("s", context, attributes={"text": "x" * kilobytes * 1024}, events=[Event("e", {"n": 1})])


def test_the_queue_is_bounded_by_bytes_too(batching: Callable[..., Pipe]) -> None:
    gate = Gate()
    pipe = batching(Exporter(gate), max_queue_bytes=1_024 * 1_024, max_batch_size=1)
    pipe.processor.on_end(weighing(1))
    assert gate.reached.wait(WAIT_S)
    for _ in range(50):
        pipe.processor.on_end(weighing(100))
    assert figures(pipe.stats) == (0, 11, {"queue_full": 40})
    for _ in range(3):
        pipe.processor.on_end(weighing(1_025))
    assert figures(pipe.stats) == (0, 11, {"queue_full": 43})
    gate.open.set()
    assert not pipe.processor.force_flush()
    # There is as much room as before.
    for _ in range(9):
        pipe.processor.on_end(weighing(100))
    assert pipe.processor.force_flush()
    assert figures(pipe.stats) == (20, 0, {"queue_full": 43})


def test_a_few_heavy_spans_do_not_wait_to_be_many(batching: Callable[..., Pipe]) -> None:
    came = threading.Event()
    pipe = batching(Exporter(came.set), max_queue_bytes=1_024 * 1_024)
    for _ in range(3):
        pipe.processor.on_end(weighing(60))
    assert came.wait(WAIT_S)


def test_room_goes_to_traces_that_can_still_be_whole(batching: Callable[..., Pipe]) -> None:
    gate = Gate()
    exporter = Exporter(gate)
    pipe = batching(exporter, max_queue_size=10, max_batch_size=5)
    pipe.end(*"aaaaa")
    assert gate.reached.wait(WAIT_S)
    for number in range(14):
        pipe.processor.on_end(weighing(0, trace_id=1 + number % 2 if number >= 10 else 9))
    assert figures(pipe.stats) == (0, 15, {"queue_full": 4})
    gate.open.set()
    assert not pipe.processor.force_flush()
    # Traces 1 and 2 have lost spans: there is room, but not for the rest of them.
    for trace_id in (1, 2, 3, 9):
        pipe.processor.on_end(weighing(0, trace_id=trace_id))
    assert not pipe.processor.force_flush()
    assert figures(pipe.stats) == (17, 0, {"queue_full": 6})


@given(
    limit=st.integers(1, 40),
    steps=st.lists(st.one_of(st.integers(0, 20), st.sampled_from(["flush", "shutdown"])), max_size=60),
)
def test_every_span_is_accounted_for_whatever_it_weighs(limit: int, steps: list[int | str]) -> None:
    exporter = Exporter()
    counters = Counters()
    processor = BatchProcessor(
        exporter, counters, max_queue_bytes=limit * 1_024, max_batch_size=7, schedule_delay_s=3_600.0
    )
    ended = 0
    for step in steps:
        if isinstance(step, int):
            processor.on_end(weighing(step, trace_id=1 + step % 3))
            ended += 1
        elif step == "flush":
            processor.force_flush()
        else:
            processor.shutdown()
        stats = counters.snapshot()
        assert stats.exported + stats.queued + sum(stats.dropped.values()) == ended
    processor.shutdown()
    assert counters.snapshot().exported == len(exporter.names)


def test_a_flush_says_whether_anything_was_lost_since_the_last_one(batching: Callable[..., Pipe]) -> None:
    exporter = Exporter(lambda: SpanExportResult.FAILURE)
    pipe = batching(exporter)
    pipe.end("a")
    assert not pipe.processor.force_flush()
    assert pipe.processor.force_flush()
    exporter.answer = lambda: SpanExportResult.SUCCESS
    pipe.end("b")
    assert pipe.processor.force_flush()
    assert figures(pipe.stats) == (1, 0, {"export_failed": 1})


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), RecursionError()])
def test_an_exporter_that_raises_costs_its_batch_and_nothing_else(
    batching: Callable[..., Pipe], error: BaseException
) -> None:
    def fail() -> None:
        raise error

    exporter = Exporter(fail)
    pipe = batching(exporter)
    pipe.end("a", "b")
    assert not pipe.processor.force_flush()
    exporter.answer = lambda: SpanExportResult.SUCCESS
    pipe.end("c")
    assert pipe.processor.force_flush()
    assert exporter.names == ["c"]
    assert figures(pipe.stats) == (1, 0, {"export_failed": 2})
    assert diagnostics.internal_errors == 1


def test_a_hanging_exporter_holds_up_neither_flush_nor_shutdown(batching: Callable[..., Pipe]) -> None:
    gate = Gate()
    exporter = Exporter(gate)
    pipe = batching(exporter, max_batch_size=2)
    pipe.end("a", "b", "c")
    assert gate.reached.wait(WAIT_S)
    assert not pipe.processor.force_flush(10)
    assert figures(pipe.stats) == (0, 3, {})
    pipe.processor.shutdown(10)
    assert figures(pipe.stats) == (0, 0, {"shutdown": 3})
    pipe.end("late")
    gate.open.set()
    for thread in threading.enumerate():
        if thread.name == "tracekit-export":
            thread.join(WAIT_S)
    # What the exporter said after it was given up changes nothing, and what it had not begun it never gets.
    assert figures(pipe.stats) == (0, 0, {"shutdown": 3, "after_shutdown": 1})
    assert exporter.names == ["a", "b"]
    assert exporter.shutdowns == 1


def test_shutdown_exports_what_is_queued_and_closes_the_exporter_once(batching: Callable[..., Pipe]) -> None:
    exporter = Exporter()
    pipe = batching(exporter)
    open_span = pipe.tracer.start_span("open")
    pipe.end("a")
    pipe.processor.shutdown()
    pipe.processor.shutdown()
    open_span.end()
    assert exporter.names == ["a"]
    assert exporter.shutdowns == 1
    assert figures(pipe.stats) == (1, 0, {"after_shutdown": 1})


def test_shutdown_without_any_span_closes_the_exporter(batching: Callable[..., Pipe]) -> None:
    exporter = Exporter()
    batching(exporter).processor.shutdown()
    assert exporter.shutdowns == 1


def test_a_failing_flush_or_close_of_the_exporter_stays_with_it(batching: Callable[..., Pipe]) -> None:
    class Failing(Exporter):
        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            raise SystemExit

        def shutdown(self) -> None:
            raise SystemExit

    pipe = batching(Failing())
    pipe.end("a")
    assert not pipe.processor.force_flush()
    pipe.processor.shutdown()
    assert figures(pipe.stats) == (1, 0, {})


class RecordOnly(Sampler):
    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        return "RecordOnly"


@pytest.mark.parametrize("kind", [BatchProcessor, ImmediateProcessor])
def test_spans_that_only_record_are_not_exported(kind: Callable[..., Any]) -> None:
    exporter = Exporter()
    pipe = Pipe(lambda counters: kind(exporter, counters), sampler=RecordOnly())
    pipe.end("a")
    pipe.processor.force_flush()
    pipe.processor.shutdown()
    assert exporter.names == []
    assert figures(pipe.stats) == (0, 0, {})


def test_a_log_handler_may_trace_its_own_work(batching: Callable[..., Pipe]) -> None:
    pipe = batching(Exporter(), max_queue_size=1, max_batch_size=1)
    gate = Gate()
    pipe.processor._exporter.answer = gate

    class Tracing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            pipe.end("log")

    handler = Tracing()
    logging.getLogger("tracekit").addHandler(handler)
    try:
        pipe.end("a")
        assert gate.reached.wait(WAIT_S)
        pipe.end("b", "c")  # c is dropped, which is logged, which ends a span, which is dropped
        assert figures(pipe.stats) == (0, 2, {"queue_full": 2})
        gate.open.set()
        pipe.processor.force_flush()
    finally:
        logging.getLogger("tracekit").removeHandler(handler)


def test_finalizers_may_end_spans_anywhere(batching: Callable[..., Pipe]) -> None:
    exporter = Exporter()
    pipe = batching(exporter, max_batch_size=7)

    plain, finalizer = ended_span("plain"), ended_span("finalizer")

    class Traced:
        def __del__(self) -> None:
            pipe.processor.on_end(finalizer)

    threshold = gc.get_threshold()
    gc.set_threshold(10)
    try:
        for _ in range(500):
            cycle: list[Any] = [Traced()]
            cycle.append(cycle)
            pipe.processor.on_end(plain)
        del cycle
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert pipe.processor.force_flush()
    assert sorted(exporter.names) == ["finalizer"] * 500 + ["plain"] * 500


def test_threads_and_a_busy_exporter_lose_nothing_between_them(batching: Callable[..., Pipe]) -> None:
    exporter = Exporter()
    pipe = batching(exporter, max_batch_size=16)
    wrong: list[Stats] = []

    def work() -> None:
        for _ in range(500):
            pipe.end("a")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        stats = pipe.stats
        if stats.exported + stats.queued > 4_000:
            wrong.append(stats)
    assert pipe.processor.force_flush()
    assert figures(pipe.stats) == (4_000, 0, {})
    assert len(exporter.names) == 4_000
    assert not wrong


@given(
    size=st.integers(1, 8),
    batch=st.integers(1, 12),
    steps=st.lists(st.sampled_from(["end", "flush", "fail", "raise", "succeed", "shutdown"]), max_size=40),
)
def test_every_span_is_exported_queued_or_dropped(size: int, batch: int, steps: list[str]) -> None:
    def fail() -> None:
        raise OSError

    answers = {"fail": lambda: SpanExportResult.FAILURE, "raise": fail, "succeed": lambda: SpanExportResult.SUCCESS}
    exporter = Exporter()
    pipe = Pipe(
        lambda counters: BatchProcessor(
            exporter, counters, max_queue_size=size, max_batch_size=batch, schedule_delay_s=3_600.0
        )
    )
    ended = 0
    for step in steps:
        if step == "end":
            pipe.end("a")
            ended += 1
        elif step == "flush":
            pipe.processor.force_flush()
        elif step == "shutdown":
            pipe.processor.shutdown()
        else:
            exporter.answer = answers[step]
        stats = pipe.stats
        assert stats.exported + stats.queued + sum(stats.dropped.values()) == ended
    pipe.processor.shutdown()
    assert pipe.stats.queued == 0


@pytest.mark.parametrize(
    "options",
    [
        {"max_queue_size": 0},
        {"max_queue_bytes": 0},
        {"max_batch_size": 0},
        {"max_batch_size": 1.5},
        {"schedule_delay_s": -1},
        {"schedule_delay_s": float("nan")},
        {"export_timeout_s": "30"},
        {"export_timeout_s": float("inf")},
    ],
)
def test_sizes_and_times_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(options))}=.*expected"):
        BatchProcessor(Exporter(), Counters(), **options)


def test_each_span_is_exported_at_once_where_that_is_asked() -> None:
    exporter = Exporter()
    pipe = Pipe(lambda counters: ImmediateProcessor(exporter, counters))
    pipe.end("a")
    assert exporter.batches == [["a"]]
    pipe.processor.shutdown()
    pipe.processor.shutdown()
    pipe.end("late")
    assert exporter.shutdowns == 1
    assert figures(pipe.stats) == (1, 0, {"after_shutdown": 1})


def test_an_exporter_that_fails_at_once_costs_its_span_only() -> None:
    def fail() -> None:
        raise ValueError

    exporter = Exporter(fail)
    pipe = Pipe(lambda counters: ImmediateProcessor(exporter, counters))
    pipe.end("a")
    exporter.answer = lambda: SpanExportResult.FAILURE
    pipe.end("b")
    assert not pipe.processor.force_flush()
    exporter.answer = lambda: SpanExportResult.SUCCESS
    pipe.end("c")
    assert pipe.processor.force_flush()
    assert figures(pipe.stats) == (1, 0, {"export_failed": 2})


def test_ctrl_c_during_an_immediate_export_is_the_programs_and_counted() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    pipe = Pipe(lambda counters: ImmediateProcessor(Exporter(interrupt), counters))
    with pytest.raises(KeyboardInterrupt):
        pipe.end("a")
    assert figures(pipe.stats) == (0, 0, {"export_failed": 1})


def test_an_exporter_that_is_traced_itself_does_not_feed_itself() -> None:
    exporter = Exporter()
    pipe = Pipe(lambda counters: ImmediateProcessor(exporter, counters))
    exporter.answer = lambda: pipe.end("own")
    pipe.end("a")
    assert exporter.names == ["a"]
    assert figures(pipe.stats) == (1, 0, {"while_exporting": 1})


PRELUDE = """
import json, os, signal, sys, threading
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from tracekit._stats import Counters
from tracekit.export.batch import BatchProcessor

class Exporter(SpanExporter):
    def export(self, spans):
        os.write(1, json.dumps([os.getpid(), [span.name for span in spans]]).encode() + b"\\n")
        return SpanExportResult.SUCCESS

counters = Counters()
processor = BatchProcessor(Exporter(), counters, schedule_delay_s=3600)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(processor)
end = lambda name: provider.get_tracer("t").start_span(name).end()

# To end again and again: the SDK itself would hang where a handler, or a child, makes a span at certain points.
def ended_span(name):
    span = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span(name)
    span.end()
    return span
"""


def run(program: str) -> list[tuple[int, str]]:
    """Return the process and name of each exported span."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [(pid, name) for pid, names in map(json.loads, done.stdout.splitlines()) for name in names]


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@needs_fork
def test_a_forked_child_exports_its_own_spans_and_not_its_parents() -> None:
    exported = run(
        """
end("parent.queued")
child = os.fork()
if not child:
    end("child")
    processor.force_flush()
    os._exit(counters.snapshot().exported != 1)
assert os.waitpid(child, 0)[1] == 0
processor.shutdown()
assert counters.snapshot().exported == 1
"""
    )
    assert sorted(name for _, name in exported) == ["child", "parent.queued"]
    assert len({pid for pid, _ in exported}) == 2


@needs_fork
def test_a_child_forked_while_others_end_spans_is_not_hung_by_their_locks() -> None:
    exported = run(
        """
stop = threading.Event()
small = BatchProcessor(Exporter(), Counters(), max_queue_size=1, schedule_delay_s=3600)  # loses most of its spans
small._exporter.export = lambda spans: SpanExportResult.FAILURE
noise = ended_span("noise")
def work():
    while not stop.is_set():
        small.on_end(noise)
threads = [threading.Thread(target=work) for _ in range(3)]
import logging
logging.getLogger("tracekit").addHandler(logging.NullHandler())
logging.getLogger("tracekit").propagate = False
for thread in threads:
    thread.start()
for number in range(20):
    child = os.fork()
    if not child:
        signal.alarm(20)
        end(f"child.{number}")
        small.on_end(noise)
        small.shutdown()
        processor.shutdown()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
"""
    )
    assert [name for _, name in exported] == [f"child.{number}" for number in range(20)]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
def test_signal_handlers_may_end_spans_and_flush_anywhere() -> None:
    exported = run(
        """
plain, in_handler = ended_span("plain"), ended_span("signal")
fired = 0
def handler(*_):
    global fired
    processor.on_end(in_handler)
    assert processor.force_flush(20_000)
    fired += 1
    if fired < 50:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
ended = 0
while fired < 50:
    processor.on_end(plain)
    ended += 1
processor.shutdown()
stats = counters.snapshot()
assert (stats.exported, stats.queued, dict(stats.dropped)) == (fired + ended, 0, {}), stats
"""
    )
    assert sum(name == "signal" for _, name in exported) == 50


def test_spans_that_end_while_the_interpreter_exits_are_exported() -> None:
    exported = run(
        """
import atexit
atexit.register(processor.shutdown)
atexit.register(end, "at exit")  # from Python 3.12 on no thread can be started any more
"""
    )
    assert [name for _, name in exported] == ["at exit"]
