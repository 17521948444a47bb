"""Traces that sampling drops, kept once they fail or are slow: as a whole, within bounds, and in the books."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace as trace_api
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tracekit._ratio import start_operation_span
from tracekit._stats import Counters, Stats
from tracekit.errors import ConfigurationError
from tracekit.sampling import TailBuffer, TailPolicy, sampler_from

ERROR: Final = Status(StatusCode.ERROR, "boom")


class Service:
    """A process whose head sampling drops every new trace, and what it exported."""

    def __init__(self, sample: Any = 0, *more: SpanProcessor, **policy: Any) -> None:
        self.now = 0.0
        self.counters = Counters()
        self.exporter = InMemorySpanExporter()
        self.buffer = TailBuffer(
            TailPolicy(**{"keep_errors": True, **policy}),
            [*more, SimpleSpanProcessor(self.exporter)],
            self.counters,
            clock=lambda: self.now,
        )
        self.provider = TracerProvider(sampler=sampler_from(sample, record_dropped=True), shutdown_on_exit=False)
        self.provider.add_span_processor(self.buffer)
        self.tracer = self.provider.get_tracer("test")

    def start(self, name: str, parent: Span | None = None, **options: Any) -> Span:
        context = set_span_in_context(trace_api.INVALID_SPAN if parent is None else parent)
        return self.tracer.start_span(name, context, **options)

    @property
    def exported(self) -> list[str]:
        return [span.name for span in self.exporter.get_finished_spans()]

    @property
    def stats(self) -> Stats:
        return self.counters.snapshot()


def _end(span: Span, *, fails: bool) -> None:
    if fails:
        span.set_status(ERROR)
    span.end()


def _fail(span: Span) -> None:
    _end(span, fails=True)


def _remote(*, sampled: bool, trace_id: int = 7) -> Span:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return NonRecordingSpan(SpanContext(trace_id, 1, is_remote=True, trace_flags=flags))


# What is kept


def test_a_trace_that_went_well_is_dropped() -> None:
    service = Service()
    root = service.start("root")
    service.start("child", root).end()
    root.end()
    assert service.exported == []
    assert service.stats == Stats(), "it was not sampled, as counted when it started"


def test_a_trace_that_failed_is_kept_as_a_whole() -> None:
    service = Service()
    root = service.start("root")
    service.start("before", root).end()
    _fail(service.start("failed", root))
    service.start("after", root).end()
    root.end()
    assert service.exported == ["before", "failed", "after", "root"]
    assert (service.stats.sampled, service.stats.not_sampled) == (4, -4), "moved in the books"


def test_an_error_of_the_root_keeps_its_trace() -> None:
    service = Service()
    root = service.start("root")
    service.start("child", root).end()
    _fail(root)
    assert service.exported == ["child", "root"]


def test_without_keep_errors_a_failed_trace_is_dropped() -> None:
    service = Service(keep_errors=False, keep_slower_than_s=1)
    _fail(service.start("root"))
    assert service.exported == []


@pytest.mark.parametrize(("took_s", "kept"), [(0.999, []), (1.0, ["child", "root"]), (60, ["child", "root"])])
def test_a_trace_is_kept_when_its_local_root_was_slow(took_s: float, kept: list[str]) -> None:
    service = Service(keep_slower_than_s=1.0)
    root = service.start("root", start_time=0)
    service.start("child", root).end()
    root.end(end_time=int(took_s * 1e9))
    assert service.exported == kept


def test_a_slow_trace_is_exported_before_its_root_ends() -> None:
    service = Service(keep_slower_than_s=1.0)
    root = service.start("root")
    service.start("child", root).end()
    service.now = 2.0
    service.start("child", root).end()
    assert service.exported == ["child", "child"]
    root.end()
    assert service.exported == ["child", "child", "root"]


def test_spans_that_are_sampled_pass_at_once() -> None:
    service = Service(1.0)
    root = service.start("root")
    service.start("child", root).end()
    assert service.exported == ["child"]
    root.end()
    assert service.exported == ["child", "root"]
    assert service.stats == Stats()


def test_late_spans_follow_the_decision() -> None:
    service = Service()
    dropped, kept = service.start("dropped"), service.start("kept")
    early_dropped, early_kept = service.start("late", dropped), service.start("late", kept)
    dropped.end()
    _fail(kept)
    _fail(early_dropped)
    _fail(service.start("later", dropped))
    assert service.exported == ["kept"], "an error after the decision does not keep half a trace"
    early_kept.end()
    service.start("later", kept).end()
    assert service.exported == ["kept", "late", "later"]


def test_all_local_roots_of_a_trace_are_decided_together() -> None:
    service = Service()
    first, second = (service.start(name, _remote(sampled=False)) for name in ("first", "second"))
    first.end()
    assert service.exported == []
    _fail(second)
    assert service.exported == ["first", "second"]


def test_a_new_local_root_of_a_dropped_trace_gets_a_chance_of_its_own() -> None:
    service = Service()
    service.start("first", _remote(sampled=False)).end()
    _fail(service.start("second", _remote(sampled=False)))
    service.start("third", _remote(sampled=False)).end()
    assert service.exported == ["second", "third"]


# Flags


@pytest.mark.parametrize("remote", [None, False])
def test_what_is_propagated_stays_not_sampled(remote: bool | None) -> None:
    service = Service()
    root = service.start("root", None if remote is None else _remote(sampled=remote))
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(root))
    assert int(carrier["traceparent"][-2:], 16) & TraceFlags.SAMPLED == 0
    _fail(root)
    assert not root.get_span_context().trace_flags.sampled, "also for calls that are still to come"


def test_exported_spans_of_a_kept_trace_carry_the_sampled_flag() -> None:
    service = Service(keep_errors=True)
    root = service.start("root", attributes={"a": 1})
    root.add_event("event")
    _fail(root)
    (span,) = service.exporter.get_finished_spans()
    given_context = root.get_span_context()
    assert span.context is not None
    assert span.context.trace_flags == given_context.trace_flags | TraceFlags.SAMPLED
    assert (span.context.trace_id, span.context.span_id) == (given_context.trace_id, given_context.span_id)
    assert (span.attributes, [event.name for event in span.events], span.status) == ({"a": 1}, ["event"], ERROR)
    assert span.resource is service.provider.resource
    assert span.end_time is not None


def test_a_sampled_remote_parent_needs_no_tail() -> None:
    service = Service()
    service.start("root", _remote(sampled=True)).end()
    assert service.exported == ["root"]


def test_a_call_that_an_operations_ratio_left_out_is_kept_when_it_fails() -> None:
    service = Service(1.0)
    root = service.start("root")
    for iteration in range(3):
        operation = start_operation_span(service.tracer, 0.0, f"iteration {iteration}", set_span_in_context(root))
        child = service.start("child", operation)
        _end(child, fails=iteration == 1)
        operation.end()
    root.end()
    assert service.exported == ["child", "iteration 1", "root"]


# Bounds


def test_the_oldest_trace_makes_room_for_new_ones() -> None:
    service = Service(max_traces=2)
    roots = [service.start(f"root {number}") for number in range(3)]
    for root in roots:
        service.start("child", root).end()
        _fail(root)
    assert service.exported == ["child", "root 1", "child", "root 2"]
    assert service.stats.dropped == {"tail_overflow": 2}


def test_spans_held_back_are_bounded() -> None:
    service = Service(max_spans=10)
    large, small = service.start("large"), service.start("small")
    service.start("child", small).end()
    for _ in range(50):
        service.start("child", large).end()
    assert service.stats.dropped["tail_overflow"] >= 40
    _fail(large)
    assert service.exported == [], "as a whole or not at all"
    assert service.stats.dropped["tail_overflow"] == 51
    _fail(small)
    assert service.exported == ["child", "small"]


def test_a_trace_is_held_back_for_so_long_at_most() -> None:
    service = Service(max_age_s=60)
    stuck = service.start("stuck")
    service.start("child", stuck).end()
    service.now = 61
    service.start("other").end()
    _fail(stuck)
    assert service.exported == []
    assert service.stats.dropped == {"tail_overflow": 2}


def test_a_trace_that_outlives_the_bound_is_kept_if_slow_ones_are() -> None:
    service = Service(keep_slower_than_s=1, max_age_s=60)
    job = service.start("job")
    service.start("child", job).end()
    service.now = 61
    service.start("other").end()
    assert service.exported == ["child"]
    job.end()
    assert service.exported == ["child", "job"]
    assert service.stats.dropped == {}


def test_remembered_decisions_are_bounded() -> None:
    service = Service(max_traces=2)
    kept = [service.start(f"root {number}") for number in range(3)]
    for root in reversed(kept):
        _fail(root)
    assert service.exported == ["root 2", "root 1"], "opening the third made the first overflow"
    for _ in range(10):
        _fail(service.start("root"))
    assert len(service.buffer._decided) <= 2


Step = tuple[int, int, bool]


@settings(max_examples=200)
@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), max_size=80),
    seed=st.integers(),
    max_traces=st.integers(1, 6),
    max_spans=st.integers(1, 30),
)
def test_nothing_is_held_beyond_the_bounds_and_every_span_is_in_the_books(
    steps: list[Step], seed: int, max_traces: int, max_spans: int
) -> None:
    """Any traffic: trees of spans that end in any order, some failing, within any bounds."""
    service = Service(max_traces=max_traces, max_spans=max_spans)
    shuffle = random.Random(seed)
    open_spans: list[Span] = []
    for action, depth, fails in steps:
        if action < 3 or not open_spans:
            open_spans.append(service.start("span", open_spans[-depth] if 0 < depth <= len(open_spans) else None))
        else:
            span = open_spans.pop(shuffle.randrange(len(open_spans)))
            _end(span, fails=fails and action == 5)
        assert len(service.buffer._held) <= max_traces
        assert service.buffer._held_spans <= max_spans
        assert service.buffer._held_spans == sum(len(trace.spans) for trace in service.buffer._held.values())
    spans = service.exporter.get_finished_spans()
    stats = service.stats
    assert stats.sampled == -stats.not_sampled == len(spans) + stats.dropped.get("tail_overflow", 0)
    assert len({span.context.span_id for span in spans if span.context}) == len(spans), "none twice"


def test_wide_bounds_keep_exactly_the_traces_that_failed_in_time() -> None:
    service = Service()
    expected: list[str] = []
    shuffle = random.Random(3)
    for number in range(300):
        root = service.start(f"{number}")
        children = [service.start(f"{number}", root) for _ in range(shuffle.randrange(5))]
        failing = shuffle.random() < 0.2
        for child in children:
            _end(child, fails=failing and child is children[-1])
        _end(root, fails=failing and not children)
        expected += [f"{number}"] * (len(children) + 1) if failing else []
    assert service.exported == expected
    assert not service.buffer._held


# Other processors, threads, forks, shutdown


class Recorder(SpanProcessor):
    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.started.append(span.name)
        span.set_attribute("seen", value=True)

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span.name)


class Failing(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise KeyError

    def on_end(self, span: ReadableSpan) -> None:
        raise KeyError


def test_processors_see_every_start_and_only_kept_ends() -> None:
    recorder = Recorder()
    service = Service(0, recorder)
    service.start("dropped").end()
    _fail(service.start("kept"))
    assert (recorder.started, recorder.ended) == (["dropped", "kept"], ["kept"])
    assert service.exporter.get_finished_spans()[0].attributes == {"seen": True}


def test_a_failing_processor_does_not_cost_the_others_a_span() -> None:
    service = Service(0, Failing())
    root = service.start("root")
    service.start("child", root).end()
    _fail(root)
    assert service.exported == ["child", "root"]


def test_threads_may_share_a_trace() -> None:
    service = Service()
    roots = [service.start("root") for _ in range(4)]

    def work() -> None:
        for _ in range(100):
            for root in roots:
                service.start("child", root).end()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _fail(roots[0])
    for root in roots[1:]:
        root.end()
    assert service.exported == ["child"] * 400 + ["root"]
    assert service.buffer._held_spans == 0


def test_a_span_ended_by_the_garbage_collector_may_come_at_any_moment() -> None:
    service = Service()

    class Cycle:
        def __init__(self, span: Span) -> None:
            self.span, self.me = span, self

        def __del__(self) -> None:
            _fail(self.span)

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            root = service.start("root")
            Cycle(service.start("collected", root))
            service.start("child", root).end()
            root.end()
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    ids = [span.context.span_id for span in service.exporter.get_finished_spans() if span.context]
    assert len(ids) == len(set(ids))
    assert not service.buffer._held


def test_shutdown_gives_each_processor_its_share_of_the_time() -> None:
    shares: list[float] = []

    class Timed(SpanProcessor):
        def shutdown(self, timeout_millis: float = 0) -> None:
            shares.append(timeout_millis)

    class Failing(SpanProcessor):
        def force_flush(self, timeout_millis: int = 0) -> bool:
            shares.append(timeout_millis)
            raise ValueError

    TailBuffer(TailPolicy(keep_errors=True), [Timed(), Failing(), Timed()], Counters()).shutdown(3_000)
    assert len(shares) == 3
    assert shares[0] <= 1_000
    assert shares[1] <= 1_500
    assert 0 < shares[2] <= 3_000


def test_shutdown_drops_what_is_still_open() -> None:
    service = Service()
    root = service.start("root")
    service.start("child", root).end()
    assert service.buffer.force_flush(1_000)
    service.provider.shutdown()
    _fail(root)
    assert service.exported == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_leaves_the_parents_traces_to_the_parent() -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_tail_sampling import Service, _fail
service = Service()
root = service.start("parents")
service.start("child", root).end()
child = os.fork()
if child == 0:
    _fail(service.start("own"))
    service.start("late", root).end()
    print(service.exported, flush=True)
    os._exit(0)
os.waitpid(child, 0)
_fail(root)
print(service.exported)
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout == "['own']\n['child', 'parents']\n"


# Options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keep_errors": 1}, "keep_errors is 1, expected a bool. Write keep_errors=True"),
        ({"keep_slower_than_s": 0}, "keep_slower_than_s is 0, expected a number above 0"),
        ({"keep_slower_than_s": True}, "keep_slower_than_s is True"),
        ({"keep_slower_than_s": float("nan")}, "keep_slower_than_s is nan"),
        ({"keep_slower_than_s": "1s"}, "keep_slower_than_s is '1s'"),
        ({"max_spans": -1}, "max_spans is -1"),
        ({"max_age_s": None}, "max_age_s is None"),
    ],
)
def test_a_wrong_policy_says_what_to_write(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        TailPolicy(**options)


def test_a_policy_is_true_if_there_is_something_to_keep() -> None:
    assert not TailPolicy()
    assert TailPolicy(keep_errors=True)
    assert TailPolicy(keep_slower_than_s=0.5)
