"""The encoder of OTLP: what it writes is what the official encoder writes, and no span costs the others."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_officially
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from otlp_receiver import Answer, GrpcReceiver, Receiver

from tracekit._stats import Counters
from tracekit.configuration.lending import LentExporter
from tracekit.export import otlp_span
from tracekit.export.batch import BatchProcessor
from tracekit.export.otlp import chunks, encode_spans
from tracekit.export.otlp_value import Memo
from tracekit.export.sending import otlp_exporter
from tracekit.recording import Pipeline, TracerProvider

NEEDS_ENGINE: Final = pytest.mark.engine("there are no others")
CONTEXT: Final = SpanContext(2**127 + 5, 2**63 + 7, is_remote=False, trace_flags=TraceFlags(1))


class Number(IntEnum):
    ONE = 1


class Word(str):
    __slots__ = ()


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
times = st.none() | st.integers(0, 2**64 - 1)
ids = st.integers(0, 2**64 - 1)
scalars = st.one_of(
    texts,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=200),
    st.none(),
    st.sampled_from([0, 1, True, 1.0, False, 0.0, -0.0, "", "1", b"", Number.ONE, Word("w"), 127, 128, 65_535, 65_536]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
# The same keys and values again and again: what is remembered must not be taken for something else.
attributes = st.dictionaries(st.sampled_from(["a", "b", "é" * 70]) | texts, values, max_size=6)
tracestates = st.sampled_from([TraceState(), TraceState([("a", "1")]), TraceState([("b", "2"), ("a@c", "3")])])
contexts = st.builds(SpanContext, st.integers(0, 2**128 - 1), ids, st.booleans(), st.just(TraceFlags(1)), tracestates)
statuses = st.sampled_from([Status(), Status(StatusCode.OK), Status(StatusCode.ERROR)]) | st.builds(
    Status, st.just(StatusCode.ERROR), texts
)
resources = st.builds(Resource, attributes, st.none() | texts)
scopes = st.none() | st.builds(InstrumentationScope, texts, st.none() | texts, st.none() | texts, attributes)
by_hand = st.builds(
    ReadableSpan,
    name=st.sampled_from(["a", "b"]) | texts,
    context=contexts,
    parent=st.none() | contexts,
    attributes=st.none() | attributes,
    events=st.lists(st.builds(Event, texts, st.none() | attributes, times), max_size=3),
    links=st.lists(st.builds(Link, contexts, st.none() | attributes), max_size=3),
    kind=st.sampled_from(SpanKind),
    status=statuses,
    start_time=times,
    end_time=times,
)


def decoded(body: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(body)


def assert_same(spans: Sequence[ReadableSpan]) -> None:
    # As bytes, made by protobuf from both: NaN is not equal to itself.
    official = encode_officially(spans)
    assert decoded(encode_spans(spans)).SerializeToString(deterministic=True) == official.SerializeToString(
        deterministic=True
    )


@st.composite
def batches(draw: st.DrawFn) -> Sequence[ReadableSpan]:
    """Spans of few resources and scopes, some of which are equal, in any order."""
    some_attributes = draw(attributes.filter(lambda found: not _has_bytes(found)))
    some_resources = [Resource(some_attributes), Resource(dict(some_attributes)), Resource({"a": 1}, "https://x/1")]
    some_scopes = [draw(scopes), InstrumentationScope("s", "1"), InstrumentationScope("s", "1")]
    spans = draw(st.lists(by_hand, max_size=6))
    for span in spans:
        span._resource = draw(st.sampled_from(some_resources))
        span._instrumentation_scope = draw(st.sampled_from(some_scopes))
    return spans


def _has_bytes(value: Any) -> bool:
    """Whether the official encoder fails for a resource with this."""
    if isinstance(value, Mapping):
        return any(map(_has_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_bytes, value))
    return isinstance(value, bytes)


@given(batches())
@settings(deadline=None, max_examples=50)
def test_any_batch_is_what_the_official_encoder_makes_of_it(spans: Sequence[ReadableSpan]) -> None:
    assert_same(spans)


@given(resources.filter(lambda resource: not _has_bytes(resource.attributes)), scopes)
@settings(deadline=None, max_examples=50)
def test_any_resource_and_scope_is_what_the_official_encoder_makes_of_it(
    resource: Resource, scope: InstrumentationScope | None
) -> None:
    assert_same([ReadableSpan("s", CONTEXT, resource=resource, instrumentation_scope=scope)])


@st.composite
def recordings(draw: st.DrawFn) -> Sequence[Any]:
    """What a program does to a span: calls of its methods, with arguments."""
    calls = st.one_of(
        st.tuples(st.just("set_attribute"), texts, values),
        st.tuples(st.just("set_attributes"), attributes),
        st.tuples(st.just("add_event"), texts, attributes, st.none() | st.integers(0, 2**63)),
        st.tuples(st.just("add_link"), contexts, attributes),
        st.tuples(st.just("set_status"), statuses),
        st.tuples(st.just("update_name"), texts),
        st.tuples(st.just("record_exception"), st.builds(ValueError, texts)),
    )
    return draw(st.lists(calls, max_size=12))


LIMITS: Final = (
    SpanLimits(),
    SpanLimits(max_attribute_length=3, max_span_attributes=2, max_events=1, max_links=1, max_event_attributes=1),
    SpanLimits(max_span_attributes=0, max_events=0, max_links=0, max_link_attributes=0),
)


class Ended(SpanProcessor):
    """Keeps what has ended, as it came."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def recorded(calls: Sequence[Any], limits: SpanLimits, *, by_engine: bool) -> Sequence[ReadableSpan]:
    ended = Ended()
    if by_engine:
        provider: SdkTracerProvider = TracerProvider(Pipeline([ended], Counters(), limits=limits))
    else:
        provider = SdkTracerProvider(resource=Resource.get_empty(), span_limits=limits, shutdown_on_exit=False)
        provider.add_span_processor(ended)
    tracer = provider.get_tracer("shop", "1", "https://x/1", {"a": 1})
    with tracer.start_as_current_span("parent", kind=SpanKind.CONSUMER):
        child = tracer.start_span("child", attributes={"a": 1})
        for name, *args in calls:
            getattr(child, name)(*args)
        child.end()
    assert len(ended.spans) == 2
    return ended.spans


@pytest.fixture
def _quiet() -> Iterator[None]:
    """The SDK warns of each value it drops: tens of thousands of lines here."""
    loggers = [logging.getLogger(name) for name in ("opentelemetry.attributes", "opentelemetry.sdk.trace")]
    for logger in loggers:
        logger.disabled = True
    yield
    for logger in loggers:
        logger.disabled = False


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("by_engine", [False, pytest.param(True, marks=NEEDS_ENGINE)])
@pytest.mark.parametrize("limits", LIMITS)
def test_whatever_a_program_records_is_what_the_official_encoder_makes_of_it(
    limits: SpanLimits, by_engine: bool
) -> None:
    @given(recordings())
    @settings(deadline=None, max_examples=20)
    def check(calls: Sequence[Any]) -> None:
        assert_same(recorded(calls, limits, by_engine=by_engine))

    check()


@pytest.mark.parametrize("by_engine", [False, pytest.param(True, marks=NEEDS_ENGINE)])
def test_the_official_encoder_is_not_needed_for_spans_of_the_sdk(
    by_engine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_span: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(otlp_span, "_official_span", refuse)
    monkeypatch.setattr(otlp_span, "_repaired", refuse)
    calls = [("add_event", "e", {"a": [1, {"b": None}]}), ("set_status", Status(StatusCode.ERROR, "no"))]
    spans = recorded([*calls, ("add_link", CONTEXT, {"a": b"x"})], SpanLimits(), by_engine=by_engine)
    assert_same(spans)


class Renamed(ReadableSpan):
    """A span as a processor might wrap it."""

    @property
    def name(self) -> str:
        return "renamed"


def test_a_span_with_properties_of_its_own_is_left_to_the_official_encoder() -> None:
    span = Renamed("s", CONTEXT, attributes={"a": 1})
    assert_same([span])
    assert names_in(encode_spans([span])) == ["renamed"]


def names_in(body: bytes) -> list[str]:
    return [
        span.name
        for of_resource in decoded(body).resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def hand_made(**fields: Any) -> ReadableSpan:
    fields = {"name": "hostile", "context": CONTEXT, "resource": Resource.get_empty()} | fields
    return ReadableSpan(**fields)


class Angry:
    def __str__(self) -> str:
        raise RuntimeError


def deep(inner: Any, levels: int, wrap: Any) -> Any:
    for _ in range(levels):
        inner = wrap(inner)
    return inner


MENDED: Final = {
    "surrogate in name": {"name": "caf\udce9"},
    "int as name": {"name": 5},
    "bytes as name": {"name": b"x"},
    "unhashable name": {"name": ["x"]},
    "surrogate in event name": {"events": [Event("caf\udce9", {}, 1)]},
    "int as event name": {"events": [Event(7, {}, 1)]},  # type: ignore[arg-type]
    "surrogate in description": {"status": Status(StatusCode.ERROR, "caf\udce9")},
    "surrogate in attribute": {"attributes": {"a": "caf\udce9", "b\udce9": 1}},
    "int outside int64": {"attributes": {"a": 2**63, "b": -(2**63) - 1, "c": 10**5000}},
    "object as attribute": {"attributes": {"a": Angry(), "b": [Angry()]}},
    "key that is no text": {"attributes": {5: "a", None: "b"}},
    "float as event time": {"events": [Event("e", {}, 1.5)]},  # type: ignore[arg-type]
    "text as event time": {"events": [Event("e", {}, "now")]},  # type: ignore[arg-type]
    "negative event time": {"events": [Event("e", {}, -1)]},
    "float as start": {"start_time": 1.5},
    "text as start": {"start_time": "now"},
    "negative end": {"end_time": -1},
    "no kind": {"kind": None},
    "int as kind": {"kind": 3},
    "status of text": {"status": "OK"},
    "deep list": {"attributes": {"a": deep(1, 60, lambda inner: [inner])}},
    "deep dict": {"attributes": {"a": deep(1, 60, lambda inner: {"b": inner})}},
    "deep in an event": {"events": [Event("e", {"a": deep(1, 60, lambda inner: {"b": [inner]})}, 1)]},
    "scope of numbers": {"instrumentation_scope": InstrumentationScope(1, 2, 3)},  # type: ignore[arg-type]
    "bytes in resource": {"resource": Resource({"a": b"x"})},
}


@pytest.mark.parametrize("fields", MENDED.values(), ids=MENDED.keys())
def test_a_hostile_field_costs_neither_its_span_nor_the_others(fields: dict[str, Any]) -> None:
    good = [ReadableSpan(name, CONTEXT, resource=Resource.get_empty()) for name in ("before", "after")]
    unencodable: list[None] = []
    (request,) = chunks([good[0], hand_made(**fields), good[1]], on_unencodable=lambda: unencodable.append(None))
    assert len(request) == 3
    assert {"before", "after"} < set(names_in(request.body)) | {"?"}
    assert not unencodable


@pytest.mark.parametrize(
    ("wrap", "most"), [(lambda inner: [inner], 46), (lambda inner: {"b": inner}, 31)], ids=["list", "dict"]
)
def test_a_value_is_as_deep_as_receivers_can_read(wrap: Any, most: int) -> None:
    assert_same([hand_made(events=[Event("e", {"a": deep(1, most, wrap)}, 1)])])
    (request,) = chunks([hand_made(events=[Event("e", {"a": deep(1, most + 1, wrap)}, 1)])])
    assert "[nested too deeply]" in str(decoded(request.body))


def test_a_span_without_ids_is_left_out_and_counted(otlp: Receiver) -> None:
    counters = Counters()
    protocol = "grpc" if isinstance(otlp, GrpcReceiver) else "http/protobuf"
    processor = BatchProcessor(LentExporter(otlp_exporter(endpoint=otlp.endpoint, protocol=protocol)), counters)
    for span in (hand_made(name="good"), hand_made(parent=(1, 2)), hand_made(name="also good")):
        processor.on_end(span)
    assert not processor.force_flush()
    processor.shutdown()
    assert sorted(span.name for span in otlp.spans) == ["also good", "good"]
    stats = counters.snapshot()
    assert (stats.exported, dict(stats.dropped)) == (2, {"unencodable": 1})


def test_a_batch_that_is_too_large_is_sent_in_several_requests(otlp: Receiver) -> None:
    counters = Counters()
    protocol = "grpc" if isinstance(otlp, GrpcReceiver) else "http/protobuf"
    processor = BatchProcessor(otlp_exporter(endpoint=otlp.endpoint, protocol=protocol), counters)
    for number in range(9):
        processor.on_end(hand_made(name=str(number), attributes={"a": "x" * 1_000_000}))
    assert processor.force_flush()
    processor.shutdown()
    assert [span.name for span in otlp.spans] == [str(number) for number in range(9)]
    assert len(otlp.requests) == 3
    assert counters.snapshot().exported == 9


def test_of_a_batch_in_several_requests_only_the_refused_one_is_lost(otlp: Receiver) -> None:
    otlp.answer(Answer(), Answer(http=400, grpc="INVALID_ARGUMENT"))
    counters = Counters()
    protocol = "grpc" if isinstance(otlp, GrpcReceiver) else "http/protobuf"
    processor = BatchProcessor(otlp_exporter(endpoint=otlp.endpoint, protocol=protocol), counters)
    for number in range(9):
        processor.on_end(hand_made(name=str(number), attributes={"a": "x" * 1_000_000}))
    assert not processor.force_flush()
    processor.shutdown()
    stats = counters.snapshot()
    assert (stats.exported, dict(stats.dropped)) == (5, {"export_failed": 4})


@given(batches(), st.integers(1, 3_000))
@settings(deadline=None, max_examples=50)
def test_requests_hold_all_spans_in_order_and_are_no_larger_than_asked(
    spans: Sequence[ReadableSpan], max_bytes: int
) -> None:
    requests = list(chunks(spans, max_bytes))
    assert sum(map(len, requests)) == len(spans)
    assert Counter(name for request in requests for name in names_in(request.body)) == Counter(
        span.name for span in spans
    )
    for request in requests:
        assert len(request) == len(names_in(request.body))
        assert len(request) == 1 or len(request.body) <= max_bytes


def test_no_spans_are_no_request() -> None:
    assert encode_spans([]) == b""
    assert list(chunks([])) == []


def test_what_is_remembered_is_bounded() -> None:
    for number in range(20_000):
        encode_spans([hand_made(name=f"s{number}", attributes={f"k{number}": f"v{number}", f"d{number}": 0.5})])
    encode_spans([hand_made(name="s" * 10_000, attributes={"k": "v" * 10_000})])
    memos = [memo for memo in gc.get_objects() if type(memo) is Memo]
    assert memos
    assert max(map(len, memos)) <= 2_048
    written = [value for memo in memos for value in memo.values() if isinstance(value, bytes)]
    assert max(map(len, written)) <= 128
    assert len(written) < 20_000
