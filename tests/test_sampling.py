"""Which traces are sampled: ratios, rules, rate limits, the environment, and operations with a ratio of their own."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as trace_api
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from tracekit._diagnostics import diagnostics
from tracekit._environment import Environment
from tracekit._ratio import start_operation_span
from tracekit.errors import ConfigurationError
from tracekit.sampling import RateLimited, Rule, sampler_from, sampler_from_environment, samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

TRACE_IDS = st.integers(1, (1 << 128) - 1)
RATIOS = st.floats(0, 1)


def _is_sampled(sampler: Sampler, name: str = "orders.create", context: Context | None = None, **more: Any) -> bool:
    trace_id = more.pop("trace_id", 0) or random.getrandbits(128) or 1
    return sampler.should_sample(context, trace_id, name, **more).decision is Decision.RECORD_AND_SAMPLE


def _below(*, sampled: bool, is_remote: bool, trace_id: int = 7) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    parent = SpanContext(trace_id, 1, is_remote, flags, TraceState([("vendor", "1")]))
    return set_span_in_context(NonRecordingSpan(parent))


class Pipeline:
    """A provider of the stock SDK, and the spans it exported."""

    def __init__(self, sampler: Sampler) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = self.provider.get_tracer("test")

    def operation(self, ratio: float, parent: Span | None = None) -> Span:
        return start_operation_span(self.tracer, ratio, "operation", _context(parent))

    def child(self, parent: Span) -> Span:
        return self.tracer.start_span("child", _context(parent))

    @property
    def exported(self) -> list[str]:
        return [span.name for span in self._exporter.get_finished_spans()]


def _context(span: Span | None) -> Context:
    return set_span_in_context(trace_api.INVALID_SPAN if span is None else span)


# Ratios


@given(TRACE_IDS, RATIOS)
def test_a_ratio_decides_as_the_sdk_does_for_the_same_id(trace_id: int, ratio: float) -> None:
    expected = _is_sampled(TraceIdRatioBased(ratio), trace_id=trace_id)
    assert samples(ratio, trace_id) is expected
    assert _is_sampled(sampler_from(ratio), trace_id=trace_id) is expected


@given(TRACE_IDS, RATIOS, RATIOS)
def test_a_trace_a_small_ratio_keeps_is_kept_by_each_larger_one(trace_id: int, one: float, other: float) -> None:
    assert not samples(min(one, other), trace_id) or samples(max(one, other), trace_id)


def test_one_in_ten_of_a_million_ids_is_sampled() -> None:
    draw = random.Random(20_260_101).getrandbits
    kept = sum(samples(0.1, draw(128)) for _ in range(1_000_000))
    assert abs(kept - 100_000) < 1_500, "five standard deviations"


def test_another_process_decides_alike() -> None:
    ids = [random.Random(1).getrandbits(128) for _ in range(1)] + [random.getrandbits(128) for _ in range(200)]
    code = "import sys; from tracekit._ratio import samples; print([samples(0.3, int(i)) for i in sys.argv[1:]])"
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, ids)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "3"},
    )
    assert run.stdout.strip() == str([samples(0.3, trace_id) for trace_id in ids])


@pytest.mark.parametrize("is_remote", [True, False])
@pytest.mark.parametrize("sample", [0, 1, 0.5, {"*": 0}, {"*": 1}, [Rule(ratio=0)], RateLimited(0.001)])
def test_a_span_with_a_parent_follows_it(sample: Any, is_remote: bool) -> None:
    sampler = sampler_from(sample)
    assert _is_sampled(sampler, context=_below(sampled=True, is_remote=is_remote))
    assert not _is_sampled(sampler, context=_below(sampled=False, is_remote=is_remote))


def test_the_parents_trace_state_goes_on() -> None:
    for sample in (0.5, {"*": 0}, ALWAYS_ON, RateLimited(1)):
        result = sampler_from(sample).should_sample(_below(sampled=True, is_remote=True), 7, "orders.create")
        assert result.trace_state == {"vendor": "1"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.1, 1.1, 10, True, "0.1", [], {}, [0.1], object(), b"1"])
def test_a_wrong_sample_says_what_to_write(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)^sample is .*expected .*Write sample=0\.1"):
        sampler_from(bad)


def test_a_sampler_is_used_as_it_is() -> None:
    class EveryCheckout(Sampler):
        def should_sample(self, parent_context: Any, trace_id: int, name: str, *args: Any, **kwargs: Any) -> Any:
            return SamplingResult(Decision.RECORD_AND_SAMPLE if name == "checkout" else Decision.DROP, {"why": name})

        def get_description(self) -> str:
            return "EveryCheckout"

    sampler = sampler_from(EveryCheckout())
    assert _is_sampled(sampler, "checkout", _below(sampled=False, is_remote=False))
    assert not _is_sampled(sampler, "search", _below(sampled=True, is_remote=True))
    assert sampler.should_sample(None, 1, "checkout").attributes == {"why": "checkout"}
    assert sampler.get_description() == "EveryCheckout"


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF, TraceIdRatioBased(0.5), DEFAULT_ON])
@given(trace_id=TRACE_IDS, remote_flag=st.booleans())
def test_the_sdks_samplers_decide_as_ever(sampler: Sampler, trace_id: int, remote_flag: bool) -> None:
    for context in (None, _below(sampled=remote_flag, is_remote=True, trace_id=trace_id)):
        theirs = sampler.should_sample(context, trace_id, "orders.create", attributes={"a": 1})
        ours = sampler_from(sampler).should_sample(context, trace_id, "orders.create", attributes={"a": 1})
        assert (ours.decision, ours.attributes, ours.trace_state) == (
            theirs.decision,
            theirs.attributes,
            theirs.trace_state,
        )
    assert sampler_from(sampler).get_description() == sampler.get_description()


class Failing(Sampler):
    def should_sample(self, *args: Any, **kwargs: Any) -> Any:
        raise KeyError

    def get_description(self) -> str:
        raise KeyError


@pytest.mark.parametrize(
    "answer",
    [Failing(), type("Silent", (Failing,), {"should_sample": lambda *_: None})()],
    ids=["raises", "answers None"],
)
def test_a_failing_sampler_leaves_new_traces_out_and_lets_others_follow_their_parent(answer: Sampler) -> None:
    before = diagnostics.internal_errors
    sampler = sampler_from(answer)
    assert not _is_sampled(sampler)
    assert _is_sampled(sampler, context=_below(sampled=True, is_remote=True))
    assert not _is_sampled(sampler, context=_below(sampled=False, is_remote=True))
    assert diagnostics.internal_errors == before + 3
    assert sampler.get_description() in ("Failing", "Silent")


# Rules


def test_the_first_rule_whose_pattern_matches_decides() -> None:
    sampler = sampler_from({"health.*": 0, "orders.*": 1.0, "*": 0})
    assert _is_sampled(sampler, "orders.create")
    assert not _is_sampled(sampler, "health.ping")
    assert not _is_sampled(sampler, "search.run")
    assert not _is_sampled(sampler_from({"*": 0, "orders.*": 1}), "orders.create")


def test_what_no_rule_matches_is_sampled() -> None:
    assert _is_sampled(sampler_from({"health.*": 0}), "orders.create")


def test_patterns_are_case_sensitive_globs_of_the_whole_name() -> None:
    sampler = sampler_from({"GET /o?ders/[0-9]*": 0})
    assert not _is_sampled(sampler, "GET /orders/7")
    assert _is_sampled(sampler, "get /orders/7")
    assert _is_sampled(sampler, "GET /orders/x")
    assert _is_sampled(sampler, "a GET /orders/7")


def test_rules_see_the_attributes_a_span_starts_with() -> None:
    sampler = sampler_from(
        [
            Rule(name="GET *", attributes={"url.path": "/health*", "http.response.status_code": 200}, ratio=0),
            Rule(attributes={"customer.tier": "gold"}, ratio=1),
            Rule(ratio=0),
        ]
    )
    assert not _is_sampled(
        sampler, "GET /", attributes={"url.path": "/healthz", "http.response.status_code": 200, "customer.tier": "gold"}
    )
    assert _is_sampled(sampler, "GET /", attributes={"url.path": "/healthz", "customer.tier": "gold"})
    assert not _is_sampled(sampler, "GET /", attributes={"customer.tier": 1})
    assert not _is_sampled(sampler, "GET /")


def test_rules_decide_at_the_root_only() -> None:
    pipeline = Pipeline(sampler_from({"child": 0, "*": 1}))
    root = pipeline.tracer.start_span("root")
    pipeline.child(root).end()
    root.end()
    assert pipeline.exported == ["child", "root"]


def test_a_rule_may_hold_a_sampler() -> None:
    sampler = sampler_from({"search.*": RateLimited(1, clock=lambda: 0.0), "*": 0})
    assert [_is_sampled(sampler, "search.run") for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: sampler_from({"orders.*": 1.5}), r"ratio of 'orders\.\*' is 1\.5.*Write \{'orders\.\*': 0\.1\}"),
        (lambda: sampler_from({"orders.*": True}), "is True, expected a number"),
        (lambda: sampler_from({7: 0.1}), "pattern is 7, expected a str"),  # type: ignore[dict-item]
        (lambda: Rule(name="a", ratio="all"), "is 'all', expected a number"),  # type: ignore[arg-type]
        (lambda: Rule(name="a", ratio=1, attributes=["x"]), r"attributes is \['x'\], expected a mapping"),  # type: ignore[arg-type]
        (lambda: sampler_from([Rule(ratio=1), 0.5]), "sample is"),  # type: ignore[list-item]
    ],
)
def test_a_wrong_rule_says_what_to_write(make: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make()


# RateLimited


def test_a_rate_limit_lets_so_many_traces_through_each_second() -> None:
    now = [100.0]
    sampler = sampler_from(RateLimited(5, clock=lambda: now[0]))
    passed = []
    for _ in range(10):
        passed.append(sum(_is_sampled(sampler) for _ in range(50)))
        now[0] += 1.0
    assert passed == [5] * 10


def test_a_rate_below_one_is_one_trace_in_several_seconds() -> None:
    now = [0.0]
    sampler = RateLimited(0.25, clock=lambda: now[0])
    times = []
    for _ in range(20):
        if _is_sampled(sampler):
            times.append(now[0])
        now[0] += 1.0
    assert times == [0.0, 4.0, 8.0, 12.0, 16.0]


def test_a_burst_is_what_comes_at_once_after_a_quiet_time() -> None:
    now = [0.0]
    sampler = RateLimited(1, burst=10, clock=lambda: now[0])
    assert sum(_is_sampled(sampler) for _ in range(20)) == 10
    now[0] = 3.0
    assert sum(_is_sampled(sampler) for _ in range(20)) == 3


@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.1, 20))
def test_a_rate_limit_never_exceeds_rate_times_time_plus_burst(steps: list[float], rate: float) -> None:
    now = [0.0]
    sampler = RateLimited(rate, clock=lambda: now[0])
    passed = 0
    for step in steps:
        now[0] += step
        passed += _is_sampled(sampler) + _is_sampled(sampler)
    assert passed <= rate * now[0] + max(1.0, rate) + 1e-6


def test_threads_share_one_rate_limit() -> None:
    sampler = RateLimited(100, clock=lambda: 0.0)
    passed: list[bool] = []

    def run() -> None:
        passed.extend([_is_sampled(sampler) for _ in range(100)])

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed.count(True) == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_forked_while_the_limit_is_held_goes_on() -> None:
    # In a process of its own: a fork beside pytest's threads would be a warning.
    code = """
import os, threading
from tracekit.sampling import RateLimited

sampler = RateLimited(10)
with sampler._root._lock:
    child = os.fork()
    if child == 0:
        # On another thread: the forking thread may enter its own lock again.
        asking = threading.Thread(target=sampler.should_sample, args=(None, 1, "orders.create"), daemon=True)
        asking.start()
        asking.join(30)
        os._exit(8 if asking.is_alive() else 7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "7"


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), True, "5", None])
def test_a_wrong_rate_says_what_to_write(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"per_second is .*Write RateLimited\(10\)"):
        RateLimited(bad)


# The environment


@pytest.mark.parametrize(
    ("variables", "like"),
    [
        ({}, "ParentBased{root:AlwaysOnSampler"),
        ({"OTEL_TRACES_SAMPLER": " "}, "ParentBased{root:AlwaysOnSampler"),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, "AlwaysOnSampler"),
        ({"OTEL_TRACES_SAMPLER": "ALWAYS_OFF", "OTEL_TRACES_SAMPLER_ARG": "ignored"}, "AlwaysOffSampler"),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, "ParentBased{root:AlwaysOnSampler"),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, "ParentBased{root:AlwaysOffSampler"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, "TraceIdRatioBased{0.25}"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio"}, "TraceIdRatioBased{1.0}"),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": " 0.5 "},
            "ParentBased{root:TraceIdRatioBased{0.5}",
        ),
    ],
    ids=str,
)
def test_the_environment_names_the_sampler(variables: dict[str, str], like: str) -> None:
    assert sampler_from(None, variables=Environment(variables)).get_description().startswith(like)


@pytest.mark.parametrize("argument", ["half", "1.5", "-0.1", "nan", "inf"])
@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
def test_a_wrong_ratio_in_the_environment_is_named(sampler: str, argument: str) -> None:
    variables = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    with pytest.raises(ConfigurationError, match=f"OTEL_TRACES_SAMPLER_ARG='{argument}'"):
        sampler_from_environment(Environment(variables))


def test_an_unknown_sampler_in_the_environment_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"OTEL_TRACES_SAMPLER='sometimes': expected one of always_on"):
        sampler_from_environment(Environment({"OTEL_TRACES_SAMPLER": "sometimes"}))


def test_an_argument_beats_the_environment() -> None:
    variables = Environment({"OTEL_TRACES_SAMPLER": "sometimes"})
    assert _is_sampled(sampler_from(1.0, variables=variables))


def test_an_installed_sampler_is_found_by_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "shop_sampler-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-sampler\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[opentelemetry_traces_sampler]\n"
        "shop = shop_sampler:make\nbroken = shop_sampler:broken\nodd = shop_sampler:str\n"
    )
    (tmp_path / "shop_sampler.py").write_text(
        "from opentelemetry.sdk.trace.sampling import TraceIdRatioBased\n"
        "def make(argument): return TraceIdRatioBased(float(argument))\n"
        "def broken(argument): raise KeyError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def named(name: str) -> Sampler:
        variables = {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": "0.125"}
        return sampler_from_environment(Environment(variables))

    assert named("shop").get_description() == "TraceIdRatioBased{0.125}"
    with pytest.raises(ConfigurationError, match=r"OTEL_TRACES_SAMPLER='broken'.*KeyError"):
        named("broken")
    with pytest.raises(ConfigurationError, match=r"OTEL_TRACES_SAMPLER='odd'"):
        named("odd")


# Operations with a ratio of their own


@pytest.fixture(params=[0.0, ALWAYS_OFF, ALWAYS_ON, TraceIdRatioBased(0), {"*": 0}])
def ours(request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    pipeline = Pipeline(sampler_from(request.param))
    yield pipeline
    pipeline.provider.shutdown()


def test_an_operation_keeps_its_share_of_new_traces_whatever_is_configured(ours: Pipeline) -> None:
    kept = sum(ours.operation(0.2).get_span_context().trace_flags.sampled for _ in range(2_000))
    assert 310 < kept < 490, "five standard deviations"


def test_an_operation_that_is_kept_keeps_its_whole_subtree(ours: Pipeline) -> None:
    root = ours.operation(1.0)
    child = ours.child(root)
    for span in (ours.child(child), child, root):
        span.end()
    assert ours.exported == ["child", "child", "operation"]


def test_an_operation_that_is_left_out_leaves_its_whole_subtree_out(ours: Pipeline) -> None:
    root = ours.operation(0.0)
    child = ours.child(root)
    grandchild = ours.operation(1.0, child)
    for span in (grandchild, child, root):
        assert span.get_span_context().is_valid
        assert span.get_span_context().trace_id == root.get_span_context().trace_id
        assert not span.get_span_context().trace_flags.sampled
        span.end()
    assert ours.exported == []


@pytest.mark.parametrize("sampler", [sampler_from(1.0), DEFAULT_ON], ids=["ours", "the stock one"])
def test_one_trace_keeps_its_share_of_an_operations_calls(sampler: Sampler) -> None:
    pipeline = Pipeline(sampler)
    root = pipeline.tracer.start_span("root")
    for _ in range(2_000):
        operation = pipeline.operation(0.1, root)
        pipeline.child(operation).end()
        operation.end()
    root.end()
    kept = pipeline.exported.count("operation")
    assert 130 < kept < 270, "five standard deviations"
    assert pipeline.exported.count("child") == kept
    assert pipeline.exported[-1] == "root"


def test_an_operation_below_an_unsampled_parent_is_not_sampled() -> None:
    for sampler in (sampler_from(1.0), DEFAULT_ON):
        tracer = Pipeline(sampler).tracer
        span = start_operation_span(tracer, 1.0, "operation", _below(sampled=False, is_remote=True))
        assert not span.get_span_context().trace_flags.sampled
        assert span.get_span_context().trace_id == 7


def test_under_another_sampler_an_operations_ratio_comes_first() -> None:
    pipeline = Pipeline(ParentBasedTraceIdRatio(0.5))
    kept = 0
    for _ in range(2_000):
        span = pipeline.operation(0.2)
        pipeline.child(span).end()
        span.end()
        kept += span.is_recording() or span.get_span_context().trace_flags.sampled
    assert 130 < kept < 270, "five standard deviations"
    assert pipeline.exported.count("operation") == pipeline.exported.count("child") == kept


def test_an_operations_ratio_is_not_passed_down_to_its_children() -> None:
    pipeline = Pipeline(sampler_from(1.0))
    root = pipeline.operation(1.0)
    with trace_api.use_span(root):
        kept = sum(pipeline.tracer.start_span("child").is_recording() for _ in range(100))
    assert kept == 100


def test_a_programs_random_seed_does_not_decide() -> None:
    pipeline = Pipeline(sampler_from(1.0))
    root = pipeline.tracer.start_span("root")

    def draws() -> list[bool]:
        random.seed(7)
        return [pipeline.operation(0.5, root).is_recording() for _ in range(64)]

    assert draws() != draws()
