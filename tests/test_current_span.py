"""Talking to the current span: what is said arrives, and whatever is said, nothing is ever raised."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, StatusCode
from strategies import run

from tracekit import (
    add_event,
    add_link,
    current_span,
    current_span_id,
    current_trace_id,
    inject,
    lifecycle,
    record_exception,
    set_attribute,
    set_attributes,
    set_error,
    traced,
    traced_block,
)
from tracekit.testing import CapturedSpans, capture_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def _inside(spans: CapturedSpans) -> Iterator[None]:
    with traced_block("test.block"):
        yield


class Fails:
    """An object on which everything fails."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __iter__ = __len__ = __bool__ = __eq__ = __hash__ = __str__  # type: ignore[assignment]


CALLS: list[Callable[[Any], object]] = [
    add_event,
    lambda given: add_event("event", given),
    lambda given: add_event("event", {"key": given}),
    lambda given: add_event("event", timestamp_ns=given),
    lambda given: set_attribute(given, 1),
    lambda given: set_attribute("key", given),
    set_attributes,
    set_error,
    record_exception,
    lambda given: record_exception(ValueError("bad"), given),
    add_link,
    lambda given: add_link(current_span(), given),
    lambda given: _lifecycle(given, None),
    lambda given: _lifecycle("step", given),
]
GIVEN: list[Callable[[], object]] = [
    *(lambda: None, str, bytes, list, dict, object, Fails, Context),
    *(lambda: 3, lambda: -1, lambda: 1.5, lambda: 2**70, lambda: "text", lambda: "\ud800", lambda: "x" * 100_000),
    *(
        lambda: [("a", "b")],
        lambda: {"a": 1},
        lambda: {3: 1},
        lambda: ValueError("bad"),
        lambda: ValueError,
        lambda: INVALID_SPAN,
    ),
]


def _lifecycle(name: Any, attributes: Any) -> None:
    with lifecycle(name, attributes) as step:
        step.set(attributes)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("make", GIVEN)
def test_nothing_that_is_given_raises(call: Callable[[Any], object], make: Callable[[], object]) -> None:
    with capture_spans() as spans:
        with traced_block("test.block"):
            call(make())
        span = spans.one("test.block")
    span.readable.to_json()
    for event in span.events:
        assert type(event.name) is str
        assert event.name


@pytest.mark.parametrize("call", CALLS)
def test_without_a_span_nothing_happens(call: Callable[[Any], object]) -> None:
    call("text")
    call(Fails())


def test_without_a_span_there_are_no_ids() -> None:
    assert current_trace_id() is None
    assert current_span_id() is None
    assert current_span() is INVALID_SPAN


def test_ids_are_those_of_the_current_span_in_hex(spans: CapturedSpans) -> None:
    with traced_block("test.block") as span:
        assert current_span() is span is trace.get_current_span()
        trace_id, span_id = current_trace_id(), current_span_id()
    assert trace_id == f"{spans.one('test.block').trace_id:032x}"
    assert span_id == f"{spans.one('test.block').span_id:016x}"


@pytest.mark.usefixtures("_inside")
def test_attributes_are_set(spans: CapturedSpans) -> None:
    set_attribute("one", 1)
    set_attributes({"two": 2, "three": [3]})
    set_attribute("nothing", None)
    assert dict(current_span().attributes) == {"one": 1, "two": 2, "three": (3,)}  # type: ignore[attr-defined]


def test_event_has_attributes_and_its_time(spans: CapturedSpans) -> None:
    before = time.time_ns()
    with traced_block("test.block"):
        add_event("plain")
        add_event("timed", {"order.id": 7}, timestamp_ns=5)
    span = spans.one("test.block")
    assert dict(span.event("timed").attributes or {}) == {"order.id": 7}
    assert span.event("timed").timestamp == 5
    assert before <= span.event("plain").timestamp <= time.time_ns()


def test_set_error_fails_the_span_without_an_exception(spans: CapturedSpans) -> None:
    with traced_block("test.block"):
        set_error("no stock")
    status = spans.one("test.block").status
    assert (status.status_code, status.description) == (StatusCode.ERROR, "no stock")


def test_set_error_of_an_exception_says_its_type(spans: CapturedSpans) -> None:
    class UntoldError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    for number, exc in enumerate((KeyError("order"), TimeoutError(), UntoldError())):
        with traced_block(f"test.block{number}"):
            set_error(exc)
    said = [(span.status.description, str(span.attributes["error.type"]).rpartition(".")[2]) for span in spans]
    assert said == [
        ("KeyError: 'order'", "KeyError"),
        ("TimeoutError", "TimeoutError"),
        ("UntoldError: <UntoldError.__str__ raised RuntimeError>", "UntoldError"),
    ]
    assert not any(span.events for span in spans)


def test_recorded_exception_leaves_the_status(spans: CapturedSpans) -> None:
    with traced_block("test.block"):
        try:
            raise ValueError("handled")  # noqa: EM101, TRY301
        except ValueError as exc:
            record_exception(exc, {"retry": 2})
    span = spans.one("test.block")
    assert span.status.status_code is StatusCode.OK
    recorded = span.event("exception").attributes or {}
    assert (recorded["exception.type"], recorded["exception.message"], recorded["retry"]) == (
        "ValueError",
        "handled",
        2,
    )


def test_links_are_made_to_anything_that_has_a_context(spans: CapturedSpans) -> None:
    with traced_block("test.other") as other:
        carrier = inject()
    context = other.get_span_context()
    targets = [other, context, trace.set_span_in_context(other), carrier, Link(context, {"own": 1})]
    with traced_block("test.block"):
        for target in targets:
            add_link(target, {"kind": "retry"})
        add_link({"traceparent": "nonsense"})
    links = spans.one("test.block").links
    assert [link.context.span_id for link in links] == [context.span_id] * len(targets)
    assert [dict(link.attributes or {}) for link in links] == [{"kind": "retry"}] * 4 + [{"own": 1, "kind": "retry"}]


def test_lifecycle_says_started_and_completed_with_what_is_known_by_then(spans: CapturedSpans) -> None:
    with traced_block("test.block"), lifecycle("payment", {"order_id": 7}) as payment:
        payment.set({"transaction_id": "t-1"})
    started, completed = spans.one("test.block").events
    assert (started.name, dict(started.attributes or {})) == ("payment_started", {"order_id": 7})
    said = dict(completed.attributes or {})
    assert completed.name == "payment_completed"
    assert isinstance(said.pop("duration_ms"), float)
    assert said == {"order_id": 7, "transaction_id": "t-1"}


def test_lifecycle_says_failed_and_raises_the_same_exception(spans: CapturedSpans) -> None:
    error = ValueError("declined")
    with pytest.raises(ValueError, match="declined") as caught, traced_block("test.block"), lifecycle("payment"):
        raise error
    assert caught.value is error
    assert error.__context__ is None
    span = spans.one("test.block")
    assert [event.name for event in span.events] == ["payment_started", "payment_failed", "exception"]
    assert dict(span.event("payment_failed").attributes or {}) == {"error": "declined"}


@pytest.mark.parametrize("exc", [asyncio.CancelledError(), GeneratorExit()])
def test_lifecycle_says_cancelled(spans: CapturedSpans, exc: BaseException) -> None:
    with pytest.raises(type(exc)), traced_block("test.block"), lifecycle("payment", {"order_id": 7}):
        raise exc
    event = spans.one("test.block").event("payment_cancelled")
    assert dict(event.attributes or {}) == {"order_id": 7}


def test_lifecycle_works_with_async_with(spans: CapturedSpans) -> None:
    @traced("test.call")
    async def call() -> None:
        async with lifecycle("payment") as payment:
            payment.set({"done": True})

    run(call())
    assert [event.name for event in spans.one("test.call").events] == ["payment_started", "payment_completed"]


def test_lifecycle_keeps_to_the_span_it_began_on(spans: CapturedSpans) -> None:
    step = lifecycle("payment")
    with traced_block("test.outer"):
        step.__enter__()
        with traced_block("test.inner"):
            step.__exit__(None, None, None)
    assert [event.name for event in spans.one("test.outer").events] == ["payment_started", "payment_completed"]
    assert not spans.one("test.inner").events


def test_on_a_span_that_has_ended_nothing_happens(spans: CapturedSpans, caplog: pytest.LogCaptureFixture) -> None:
    with traced_block("test.block") as span:
        pass
    with trace.use_span(span):
        for call in CALLS:
            call("text")
    assert not spans.one("test.block").events
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]
