"""The span engine: to everybody else, the SDK's own spans."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import random
import sys
import threading
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as trace_api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON, TraceIdRatioBased
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

import tracekit
from tracekit._stats import Counters
from tracekit.export.batch import BatchProcessor
from tracekit.recording import CountedSampler, Pipeline, TracerProvider
from tracekit.recording.course import Course
from tracekit.sampling import HeadSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.sampling import Sampler

pytestmark = pytest.mark.engine("they are what the engine is compared with")


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """The SDK warns of each value it drops: tens of thousands of lines here."""
    loggers = [logging.getLogger(name) for name in ("opentelemetry.attributes", "opentelemetry.sdk.trace")]
    for logger in loggers:
        logger.disabled = True
    yield
    for logger in loggers:
        logger.disabled = False


class Ended(SpanProcessor):
    """Keeps what has ended, as it came."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.started: list[SdkSpan] = []

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        self.started.append(span)

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def engine(limits: SpanLimits | None = None, sampler: Sampler = DEFAULT_ON) -> tuple[TracerProvider, Ended]:
    ended, counters = Ended(), Counters()
    counted = CountedSampler(HeadSampler(sampler), counters)
    return TracerProvider(Pipeline([ended], counters, sampler=counted, limits=limits)), ended


def stock(limits: SpanLimits | None = None, sampler: Sampler = DEFAULT_ON) -> tuple[SdkTracerProvider, Ended]:
    ended = Ended()
    provider = SdkTracerProvider(
        sampler=sampler, resource=Resource.get_empty(), span_limits=limits or SpanLimits(), shutdown_on_exit=False
    )
    provider.add_span_processor(ended)
    return provider, ended


# --- the same spans as the SDK's ----------------------------------------------------------------------------------

KEYS: Final = st.sampled_from(["a", "b", "c", "d", "e", ""])
ATOMS: Final = st.one_of(
    st.text(max_size=12), st.integers(), st.booleans(), st.floats(allow_nan=False), st.none(), st.binary(max_size=4)
)
VALUES: Final = st.one_of(
    ATOMS, st.lists(ATOMS, max_size=3), st.dictionaries(st.text(min_size=1, max_size=3), ATOMS, max_size=2)
)
ATTRIBUTES: Final = st.dictionaries(KEYS, VALUES, max_size=6)
CONTEXTS: Final = st.sampled_from(
    [
        SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)),
        SpanContext(3, 4, is_remote=False),
        SpanContext(0, 0, is_remote=False),
    ]
)
STATUSES: Final = st.sampled_from(list(StatusCode))
STEPS: Final = st.one_of(
    st.tuples(st.just("set_attribute"), KEYS, VALUES),
    st.tuples(st.just("set_attributes"), ATTRIBUTES),
    st.tuples(st.just("add_event"), st.sampled_from(["x", "y"]), ATTRIBUTES, st.integers(1, 9)),
    st.tuples(st.just("add_link"), CONTEXTS, ATTRIBUTES),
    st.tuples(st.just("set_status"), STATUSES, st.none()),
    st.tuples(st.just("set_status"), st.just(StatusCode.ERROR), st.text(max_size=5)),
    st.tuples(st.just("set_status"), st.just(Status(StatusCode.ERROR, "why"))),
    st.tuples(st.just("set_status"), st.just(Status(StatusCode.OK))),
    st.tuples(st.just("update_name"), st.text(min_size=1, max_size=5)),
    st.tuples(st.just("is_recording")),
    st.tuples(st.just("end"), st.integers(10, 20)),
)
LIMITS: Final = st.one_of(
    st.none(),
    st.builds(
        SpanLimits,
        max_span_attributes=st.integers(0, 3),
        max_event_attributes=st.integers(0, 2),
        max_link_attributes=st.integers(0, 2),
        max_events=st.integers(0, 2),
        max_links=st.integers(0, 2),
        max_attribute_length=st.integers(0, 5),
        max_span_attribute_length=st.integers(0, 5),
    ),
)


def facts(span: ReadableSpan) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind,
        "times": (span.start_time, span.end_time),
        "attributes": list((span.attributes or {}).items()),
        "events": [(e.name, e.timestamp, dict(e.attributes or {}), e.dropped_attributes) for e in span.events],
        "links": [(link.context, dict(link.attributes or {}), link.dropped_attributes) for link in span.links],
        "status": (span.status.status_code, span.status.description),
        "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
        "scope": span.instrumentation_scope,
    }


@pytest.mark.skipif(
    version("opentelemetry-sdk") < "1.45", reason="the SDK counted a None over the limit as dropped then"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@given(
    limits=LIMITS,
    attributes=ATTRIBUTES,
    links=st.lists(st.builds(Link, CONTEXTS, ATTRIBUTES), max_size=3),
    steps=st.lists(STEPS, max_size=12),
)
def test_a_span_ends_up_as_the_sdks_does(
    limits: SpanLimits | None, attributes: dict[str, Any], links: list[Link], steps: list[tuple[Any, ...]]
) -> None:
    ended: list[dict[str, Any]] = []
    answers: list[list[Any]] = []
    for make in (stock, engine):
        provider, kept = make(limits)
        given_links = [Link(link.context, link.attributes) for link in links]
        span = provider.get_tracer("shop", "1.0", "https://schema", {"a": 1}).start_span(
            "work", attributes=attributes, links=given_links, start_time=5
        )
        answers.append([getattr(span, method)(*arguments) for method, *arguments in steps])
        span.end(30)
        ended.append(facts(kept.spans[0]))
        assert len(kept.spans) == 1
    assert ended[0] == ended[1]
    assert answers[0] == answers[1]


def test_a_span_is_the_sdks_to_isinstance() -> None:
    provider, kept = engine()
    tracer = provider.get_tracer("shop")
    with tracer.start_as_current_span("work") as span:
        assert trace_api.get_current_span() is span
    assert isinstance(tracer, SdkTracer)
    assert isinstance(span, SdkSpan)
    assert isinstance(kept.spans[0], ReadableSpan)
    assert '"name": "work"' in kept.spans[0].to_json()


def test_the_same_tracer_is_handed_out_again() -> None:
    provider, _ = engine()
    assert provider.get_tracer("shop", "1") is provider.get_tracer("shop", "1")
    assert provider.get_tracer("shop", "1") is not provider.get_tracer("shop", "2")


def test_a_copy_of_an_ended_span_is_a_span_of_its_own() -> None:
    provider, kept = engine()
    provider.get_tracer("shop").start_span("work", attributes={"a": 1}).end()
    twin = copy.copy(kept.spans[0])
    twin._context = SpanContext(1, 2, is_remote=False)
    assert facts(twin) == facts(kept.spans[0])
    assert twin.context != kept.spans[0].context


def test_exporters_of_the_sdk_take_its_spans() -> None:
    provider, _ = engine()
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("shop").start_span("work").end()
    assert [span.name for span in exporter.get_finished_spans()] == ["work"]


# --- the relations of spans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [stock, engine])
@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_a_child_takes_trace_flags_and_state_from_its_parent(make: Callable[[], Any], flags: int) -> None:
    provider, _ = make()
    state = trace_api.TraceState([("vendor", "1")])
    parent = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(flags), trace_state=state)
    context = trace_api.set_span_in_context(trace_api.NonRecordingSpan(parent))
    child = provider.get_tracer("shop").start_span("child", context)
    own = child.get_span_context()
    assert (own.trace_id, own.trace_flags, own.trace_state) == (7, flags, state)
    assert child.is_recording() == bool(flags & 1)
    grandchild = provider.get_tracer("shop").start_span("below", trace_api.set_span_in_context(child))
    assert grandchild.get_span_context().trace_flags == flags
    assert grandchild.get_span_context().trace_state == state


@pytest.mark.parametrize("sampler", [TraceIdRatioBased(0.5), ALWAYS_OFF])
def test_below_a_span_that_is_left_out_nothing_is_sampled(sampler: Sampler) -> None:
    provider, kept = engine(sampler=sampler)
    tracer = provider.get_tracer("shop")
    for _ in range(50):
        root = tracer.start_span("root")
        child = tracer.start_span("child", trace_api.set_span_in_context(root))
        assert child.get_span_context().trace_flags.sampled == root.get_span_context().trace_flags.sampled
        child.end()
        root.end()
    assert len(kept.spans) % 2 == 0


# --- time ---------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_gives_no_negative_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, kept = engine()
    tracer = provider.get_tracer("shop")
    root = tracer.start_span("root")
    an_hour_ago = time.time_ns() - 3_600_000_000_000
    monkeypatch.setattr("tracekit.recording.tracer.time_ns", lambda: an_hour_ago)
    child = tracer.start_span("child", trace_api.set_span_in_context(root))
    child.add_event("seen")
    child.end()
    root.end()
    for span in kept.spans:
        assert (span.start_time or 0) <= (span.end_time or 0)
    below, above = kept.spans
    assert (above.start_time or 0) <= (below.start_time or 0) <= below.events[0].timestamp <= (below.end_time or 0)
    assert (below.end_time or 0) <= (above.end_time or 0)


def test_a_root_starts_at_the_time_of_day() -> None:
    provider, kept = engine()
    before = time.time_ns()
    provider.get_tracer("shop").start_span("root").end()
    # Two clocks are read one after the other.
    assert before - 1_000_000 <= (kept.spans[0].start_time or 0) <= time.time_ns() + 1_000_000


# --- ids ----------------------------------------------------------------------------------------------------------


def test_seeding_random_does_not_repeat_ids() -> None:
    provider, kept = engine()
    for _ in range(10):
        random.seed(1)
        provider.get_tracer("shop").start_span("root").end()
    assert len({span.context.trace_id for span in kept.spans if span.context}) == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_processes_make_ids_of_their_own() -> None:
    provider, _ = engine()
    tracer = provider.get_tracer("shop")
    tracer.start_span("drawn ahead").end()
    reading, writing = os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            os.write(writing, b"%032x" % tracer.start_span("root").get_span_context().trace_id)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    own = b"%032x" % tracer.start_span("root").get_span_context().trace_id
    assert len({own, *(told[at : at + 32] for at in range(0, len(told), 32))}) == 5


def test_threads_make_different_ids() -> None:
    provider, kept = engine()
    tracer = provider.get_tracer("shop")

    def work() -> None:
        for _ in range(500):
            tracer.start_span("root").end()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({span.context.span_id for span in kept.spans if span.context}) == 4_000


# --- what the SDK does wrong --------------------------------------------------------------------------------------


class Hostile:
    """Nothing one can ask of it works."""

    def __str__(self) -> str:
        msg = "no text"
        raise RuntimeError(msg)

    __repr__ = __str__


def test_a_value_that_raises_costs_itself_only() -> None:
    provider, kept = engine()
    span: Any = provider.get_tracer("shop").start_span("work", attributes={"a": 1, "bad": Hostile()})  # type: ignore[dict-item]
    span.set_attribute("bad", Hostile())
    span.set_attributes({"b": 2, "bad": Hostile(), "c": 3})
    span.add_event("seen", {"bad": Hostile(), "d": 4})
    span.record_exception(ValueError(Hostile()))
    span.end()
    assert dict(kept.spans[0].attributes or {}) == {"a": 1, "b": 2, "c": 3}
    assert dict(kept.spans[0].events[0].attributes or {}) == {"d": 4}


def test_an_exception_whose_text_raises_leaves_a_with_block_untouched() -> None:
    provider, kept = engine()
    error = ValueError(Hostile())
    with pytest.raises(ValueError) as raised, provider.get_tracer("shop").start_span("work"):  # noqa: PT011  # has no text
        raise error
    assert raised.value is error
    assert kept.spans[0].status.status_code is StatusCode.ERROR


def test_a_span_ended_by_many_threads_ends_once() -> None:
    provider, kept = engine()
    for _ in range(50):
        span = provider.get_tracer("shop").start_span("work")
        barrier = threading.Barrier(4)

        def end(span: trace_api.Span = span, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            span.end()

        threads = [threading.Thread(target=end) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(kept.spans) == 50


def test_a_pipeline_that_comes_while_a_tracer_settles_gets_the_next_span() -> None:
    provider, _ = engine()
    tracer = provider.get_tracer("shop")
    successor = Ended()

    def meanwhile(frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code is Course.__init__.__code__:
            sys.setprofile(None)
            provider.use(Pipeline([successor], Counters()))

    sys.setprofile(meanwhile)
    try:
        tracer.start_span("first").end()
    finally:
        sys.setprofile(None)
    tracer.start_span("second").end()
    assert [span.name for span in successor.spans] == ["second"]


class Delegating(Ended):
    """Hands on what it lets through, and whatever else it is asked for."""

    def __init__(self, processor: SpanProcessor) -> None:
        super().__init__()
        self.processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)


def test_a_processor_that_hands_on_what_it_is_asked_for_is_not_passed_by() -> None:
    batch = BatchProcessor(InMemorySpanExporter(), Counters())
    delegating = Delegating(batch)
    provider = TracerProvider(
        Pipeline([delegating], Counters(), sampler=CountedSampler(HeadSampler(DEFAULT_ON), Counters()))
    )
    with tracekit.traced_block("orders.create", tracer_provider=provider):
        pass
    assert [span.name for span in delegating.spans] == ["orders.create"]
    batch.shutdown()


class Sent(SpanExporter):
    """Keeps what is exported, in batches."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


@pytest.mark.parametrize("processors", [1, 2])
@pytest.mark.parametrize("is_measured", [False, True])
def test_at_the_recursion_limit_spans_end_once_and_calls_that_return_do_not_raise(
    processors: int, is_measured: bool
) -> None:
    exporters = [Sent() for _ in range(processors)]
    with tracekit.configure(service="shop", exporter=exporters, metrics=is_measured) as tracing:
        returned: list[int] = []

        @tracekit.traced(capture_result={"order.id": lambda result: result})
        def create(room: int) -> int:
            returned.append(room)
            return room

        create(0)
        limit = sys.getrecursionlimit()
        raised: list[int] = []
        for room in range(2, 90):
            try:
                sys.setrecursionlimit(len(inspect.stack()) + room)
            except RecursionError:  # less than there is already
                continue
            try:
                create(room)
            except RecursionError:
                raised.append(room)
            finally:
                sys.setrecursionlimit(limit)
        assert tracing.flush()
        assert not {*raised} & {*returned}
        for exporter in exporters:
            ids = [span.get_span_context().span_id for span in exporter.spans]
            assert len(ids) == len({*ids}) == tracing.stats.sampled


ROOMS: Final = ("operation_span.py", "_span.py", "_exceptions.py", "<tracekit wrapper>")


def interrupted(call: Callable[[], object], after: int) -> bool:
    """Call with a Ctrl-C after so many calls of C functions, where signals are looked at; tells whether it came."""
    left = after

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        if event == "c_return" and frame.f_code.co_filename.endswith(ROOMS):
            left -= 1
            if not left:
                raise KeyboardInterrupt

    sys.setprofile(count)
    try:
        call()
    except KeyboardInterrupt:
        return True
    except ValueError:
        pass
    finally:
        sys.setprofile(None)
    return False


@pytest.mark.parametrize("sample", [0.0, 1.0])
@pytest.mark.parametrize("is_measured", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_wherever_ctrl_c_comes_in_the_making_of_a_span_it_ends_and_is_not_current_any_more(
    order: int, sample: float, *, is_measured: bool
) -> None:
    @tracekit.traced(capture_result={"order.id": lambda result: result})
    def create() -> int:
        if order < 0:
            raise ValueError(order)
        return order

    with tracekit.configure(service="shop", exporter=Sent(), sample=sample, metrics=is_measured) as tracing:
        after = 1
        while interrupted(create, after):
            assert trace_api.get_current_span() is trace_api.INVALID_SPAN, after
            after += 1
        assert after > 3
        assert tracing.flush()
        assert tracing.stats.exported == tracing.stats.sampled


def test_configure_makes_its_spans_with_the_engine() -> None:
    with tracekit.configure(service="shop", exporter="memory") as tracing:
        with tracekit.traced_block("orders.create"):
            span = trace_api.get_current_span()
        assert type(span).__module__.startswith("tracekit.recording.")
        assert [span.name for span in tracing.spans] == ["orders.create"]
