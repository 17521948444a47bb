"""Spans around messages: their names and attributes, how consumers relate to producers, and what cannot go wrong."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import typing
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, StatusCode

from tracekit import (
    configure,
    current_trace_id,
    get_baggage,
    inject,
    remote_parent,
    set_attribute,
    set_baggage,
    traced,
    traced_block,
    use_context,
)
from tracekit.errors import InstrumentationError
from tracekit.messaging import MessageBlock, consuming, consuming_batch, producing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracekit.testing import CapturedSpan, CapturedSpans

TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID: Final = "00f067aa0ba902b7"
HEADERS: Final = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}

# What a consumer may find where headers should be.
BAD_CARRIERS: Final[Mapping[str, Any]] = {
    "nothing": None,
    "empty": {},
    "a number": 7,
    "text": "traceparent",
    "an object": object(),
    "malformed": {"traceparent": "00-x-y-01"},
    "bytes that are no text": {b"\xff": b"\xfe", b"traceparent": b"\xff"},
    "duplicates": [("traceparent", HEADERS["traceparent"]), ("traceparent", HEADERS["traceparent"])],
    "megabytes": {"traceparent": "0" * 1_000_000},
}


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    with use_context(Context()):
        yield


def linked_span_ids(span: CapturedSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def messaging_attributes(span: CapturedSpan) -> dict[str, Any]:
    return {key.removeprefix("messaging."): value for key, value in span.attributes.items()}


# --- names and attributes -------------------------------------------------------------------------------------------


def test_producer_span_is_named_by_the_conventions(spans: CapturedSpans) -> None:
    with producing("orders", system="rabbitmq"):
        pass
    span = spans.one("send orders")
    assert span.kind is SpanKind.PRODUCER
    assert span.status.status_code is StatusCode.OK
    assert messaging_attributes(span) == {
        "system": "rabbitmq",
        "destination.name": "orders",
        "operation.name": "send",
        "operation.type": "send",
    }


def test_consumer_span_is_named_by_the_conventions(spans: CapturedSpans) -> None:
    with consuming("orders", HEADERS, system="kafka"):
        pass
    span = spans.one("process orders")
    assert span.kind is SpanKind.CONSUMER
    assert span.status.status_code is StatusCode.OK
    assert messaging_attributes(span) == {
        "system": "kafka",
        "destination.name": "orders",
        "operation.name": "process",
        "operation.type": "process",
    }


def test_operation_has_the_name_the_system_gives_it(spans: CapturedSpans) -> None:
    with producing("orders", system="nats", operation="publish"):
        pass
    attributes = messaging_attributes(spans.one("publish orders"))
    assert (attributes["operation.name"], attributes["operation.type"]) == ("publish", "send")


def test_details_of_a_message_are_attributes(spans: CapturedSpans) -> None:
    with producing(
        "orders", system="kafka", partition_id=3, message_id="m-1", conversation_id="c-1", body_size=12, message_count=2
    ):
        pass
    with consuming(
        "orders",
        None,
        system="kafka",
        consumer_group="billing",
        partition_id=3,
        message_id="m-1",
        conversation_id="c-1",
        body_size=12,
    ):
        pass
    message = {
        "destination.partition.id": "3",
        "message.id": "m-1",
        "message.conversation_id": "c-1",
        "message.body.size": 12,
    }
    sent, processed = (messaging_attributes(span) for span in spans)
    assert sent.items() >= {**message, "batch.message_count": 2}.items()
    assert processed.items() >= {**message, "consumer.group.name": "billing"}.items()


def test_template_stands_for_the_destination_in_the_name(spans: CapturedSpans) -> None:
    with producing("replies.7f3a", system="nats", destination_template="replies.{client}"):
        pass
    attributes = messaging_attributes(spans.one("send replies.{client}"))
    assert attributes["destination.name"] == "replies.7f3a"
    assert attributes["destination.template"] == "replies.{client}"


def test_destination_without_a_name_is_left_out(spans: CapturedSpans) -> None:
    with producing("", system="rabbitmq"):
        pass
    assert "destination.name" not in messaging_attributes(spans.one("send"))


def test_names_may_be_bytes_as_some_clients_give_them(spans: CapturedSpans) -> None:
    stream: Any = b"orders"
    entry_id: Any = b"1-0"
    with consuming(stream, {}, system="redis", message_id=entry_id):
        pass
    assert messaging_attributes(spans.one("process orders"))["message.id"] == "1-0"


def test_own_attributes_come_at_the_start_and_last(spans: CapturedSpans) -> None:
    with consuming("orders", None, system="aws_sqs", attributes={"order.id": 7, "messaging.message.id": "own"}):
        pass
    attributes = spans.one("process orders").attributes
    assert attributes["order.id"] == 7
    assert attributes["messaging.message.id"] == "own"


def test_secrets_are_redacted(spans: CapturedSpans) -> None:
    with producing("orders", system="redis", attributes={"password": "hunter2"}):
        pass
    assert spans.one("send orders").attributes["password"] == "[redacted]"


def test_id_that_is_known_after_sending_may_be_set_then(spans: CapturedSpans) -> None:
    with producing("orders", system="redis"):
        set_attribute("messaging.message.id", "1-0")
    assert messaging_attributes(spans.one("send orders"))["message.id"] == "1-0"


def test_blocks_inside_are_named_after_their_module(spans: CapturedSpans) -> None:
    with consuming("orders.eu", HEADERS, system="nats"), traced_block("validate"):
        pass
    spans.assert_tree("""
        process orders.eu
          test_messaging.validate
    """)


def test_captured_arguments_are_those_of_the_functions_inside(spans: CapturedSpans) -> None:
    @traced("orders.handle")
    def handle(order_id: int) -> None: ...

    with consuming("orders", HEADERS, system="nats"):
        handle(7)
    spans.assert_tree("""
        process orders  messaging.system=nats
          orders.handle  order_id=7
    """)


# --- carrying the trace ---------------------------------------------------------------------------------------------


def test_producer_gives_headers_to_send(spans: CapturedSpans) -> None:
    with producing("orders", system="rabbitmq") as headers:
        pass
    span = spans.one("send orders")
    assert set(headers) == {"traceparent"}
    assert headers["traceparent"].startswith(f"00-{span.trace_id:032x}-{span.span_id:016x}-")


def test_producer_writes_into_headers_there_are(spans: CapturedSpans) -> None:
    mine = [("content-type", b"json")]
    with producing("orders", mine, system="kafka") as headers:
        assert headers is mine
    assert [name for name, _ in headers] == ["content-type", "traceparent"]


def test_forwarded_headers_get_the_trace_of_the_forwarder(spans: CapturedSpans) -> None:
    with producing("orders", dict(HEADERS), system="kafka") as headers:
        pass
    assert f"{spans.one('send orders').span_id:016x}" in headers["traceparent"]


def test_consumer_continues_the_trace_of_the_producer(spans: CapturedSpans) -> None:
    with traced_block("shop.buy"), producing("orders", system="rabbitmq") as headers:
        pass
    with consuming("orders", headers, system="rabbitmq") as span:
        assert trace.get_current_span() is span
    spans.assert_tree("""
        shop.buy
          send orders
            process orders
    """)
    assert not spans.one("process orders").links


def test_consumer_in_another_span_is_linked_to_it(spans: CapturedSpans) -> None:
    with traced_block("worker.poll") as poll, consuming("orders", HEADERS, system="kafka"):
        pass
    span = spans.one("process orders")
    assert f"{span.trace_id:032x}" == TRACE_ID
    assert linked_span_ids(span) == [poll.get_span_context().span_id]


def test_consumer_inside_its_producer_is_a_child_of_it(spans: CapturedSpans) -> None:
    with producing("orders", system="memory") as headers, consuming("orders", headers, system="memory"):
        pass
    spans.assert_tree("""
        send orders
          process orders
    """)
    assert not spans.one("process orders").links


def test_linked_consumer_begins_a_trace_of_its_own(spans: CapturedSpans) -> None:
    with traced_block("worker.poll") as poll, consuming("orders", HEADERS, system="kafka", link=True):
        pass
    span = spans.one("process orders")
    assert span.parent is None
    assert f"{span.trace_id:032x}" != TRACE_ID
    assert linked_span_ids(span) == [int(SPAN_ID, 16), poll.get_span_context().span_id]


def test_message_that_comes_twice_makes_two_spans_of_one_producer(spans: CapturedSpans) -> None:
    with producing("orders", system="rabbitmq") as headers:
        pass
    for _ in range(2):
        with consuming("orders", headers, system="rabbitmq"):
            pass
    spans.assert_tree("""
        send orders
          process orders
          process orders
    """)


def test_message_without_a_trace_is_processed_in_the_current_one(spans: CapturedSpans) -> None:
    with traced_block("worker.poll"), consuming("orders", {}, system="kafka"):
        pass
    spans.assert_tree("""
        worker.poll
          process orders
    """)
    assert not spans.one("process orders").links


@pytest.mark.parametrize("link", [False, True])
def test_baggage_of_the_message_holds_inside(spans: CapturedSpans, *, link: bool) -> None:
    with set_baggage("tenant", "acme"), producing("orders", system="kafka") as headers:
        pass
    with consuming("orders", headers, system="kafka", link=link):
        assert get_baggage("tenant") == "acme"
    assert get_baggage("tenant") is None


def test_baggage_may_stay_at_home(spans: CapturedSpans) -> None:
    with set_baggage("tenant", "acme"), producing("orders", system="kafka", baggage=False) as headers:
        pass
    assert set(headers) == {"traceparent"}


@pytest.mark.parametrize("carrier", BAD_CARRIERS.values(), ids=BAD_CARRIERS)
def test_bad_headers_begin_a_new_trace(spans: CapturedSpans, carrier: Any) -> None:
    for link in (False, True):
        with consuming("orders", carrier, system="kafka", link=link):
            pass
    with consuming_batch("orders", [carrier], system="kafka"):
        pass
    assert [(span.parent, list(span.links)) for span in spans] == [(None, [])] * 3


def test_headers_that_cannot_be_written_to_are_given_back(spans: CapturedSpans) -> None:
    carrier = object()
    with producing("orders", carrier, system="kafka") as headers:
        assert headers is carrier
    assert spans.names == ["send orders"]


# --- batches --------------------------------------------------------------------------------------------------------


def test_batch_is_linked_to_the_producer_of_each_message(spans: CapturedSpans) -> None:
    batch: list[dict[str, str]] = []
    for _ in range(3):
        with producing("orders", system="kafka") as headers:
            batch.append(headers)
    with consuming_batch("orders", (headers for headers in batch), system="kafka", consumer_group="billing"):
        pass
    span = spans.one("process orders")
    assert (span.kind, span.parent) == (SpanKind.CONSUMER, None)
    assert linked_span_ids(span) == [sent.span_id for sent in spans.all("send orders")]
    attributes = messaging_attributes(span)
    assert (attributes["batch.message_count"], attributes["consumer.group.name"]) == (3, "billing")


def test_message_without_a_trace_counts_in_a_batch(spans: CapturedSpans) -> None:
    with consuming_batch("orders", [HEADERS, {}, None, HEADERS], system="kafka"):
        pass
    span = spans.one("process orders")
    assert len(span.links) == 2
    assert messaging_attributes(span)["batch.message_count"] == 4


def test_batch_of_no_messages_is_a_batch(spans: CapturedSpans) -> None:
    with consuming_batch("orders", [], system="kafka"):
        pass
    assert messaging_attributes(spans.one("process orders"))["batch.message_count"] == 0


def test_batch_belongs_to_the_current_trace(spans: CapturedSpans) -> None:
    with traced_block("lambda.handler"), consuming_batch("orders", [HEADERS], system="aws_sqs"):
        pass
    spans.assert_tree("""
        lambda.handler
          process orders
    """)


def test_messages_of_a_batch_may_be_given_as_links(spans: CapturedSpans) -> None:
    with remote_parent(HEADERS):
        message = Link(trace.get_current_span().get_span_context(), {"messaging.message.id": "m-1"})
    with consuming_batch("orders", [message], system="aws_sqs"):
        pass
    (link,) = spans.one("process orders").links
    assert link.attributes == {"messaging.message.id": "m-1"}


def test_batch_that_cannot_be_read_is_processed(spans: CapturedSpans) -> None:
    def broken() -> Iterator[Any]:
        yield HEADERS
        raise OSError

    with consuming_batch("orders", broken(), system="kafka"):
        pass
    assert spans.names == ["process orders"]


def fail() -> None:
    message = "cannot read it"
    raise ValueError(message)


# --- outcome --------------------------------------------------------------------------------------------------------


def blocks() -> list[MessageBlock[Any]]:
    return [
        producing("orders", system="kafka"),
        consuming("orders", HEADERS, system="kafka"),
        consuming("orders", HEADERS, system="kafka", link=True),
        consuming_batch("orders", [HEADERS], system="kafka"),
    ]


@pytest.mark.parametrize("index", range(4))
def test_exception_is_recorded_once_and_passes(spans: CapturedSpans, index: int) -> None:
    error = ValueError("cannot read it")

    @traced("orders.handle")
    def handle() -> None:
        raise error

    with pytest.raises(ValueError, match="cannot read it") as raised, blocks()[index]:
        handle()
    assert raised.value is error
    inner, outer = spans
    assert (outer.status.status_code, outer.status.description) == (StatusCode.ERROR, "ValueError: cannot read it")
    assert outer.attributes["error.type"] == "ValueError"
    stack_traces = [
        event for span in (inner, outer) for event in span.events if "exception.stacktrace" in (event.attributes or {})
    ]
    assert len(stack_traces) == 1


def test_expected_exception_is_no_error(spans: CapturedSpans) -> None:
    with pytest.raises(LookupError), consuming("orders", HEADERS, system="kafka", expected=(LookupError,)):
        raise LookupError
    span = spans.one("process orders")
    assert span.status.status_code is StatusCode.UNSET
    assert span.event("exception")


@pytest.mark.anyio
async def test_cancelled_consumer_is_no_error(spans: CapturedSpans) -> None:
    started = asyncio.Event()

    async def consume() -> None:
        async with consuming("orders", HEADERS, system="nats"):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    span = spans.one("process orders")
    assert span.status.status_code is StatusCode.UNSET
    assert span.event("cancelled")


# --- with, async with -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("fails", [False, True])
def test_block_leaves_no_trace_behind(spans: CapturedSpans, index: int, *, fails: bool) -> None:
    before = contextvars.copy_context()[_context_variable()]
    outcome = pytest.raises(ValueError, match="cannot read it") if fails else nullcontext()
    with outcome, blocks()[index]:
        assert current_trace_id() is not None
        if fails:
            fail()
    assert contextvars.copy_context()[_context_variable()] == before
    assert current_trace_id() is None


@pytest.mark.anyio
async def test_async_with_does_the_same(spans: CapturedSpans) -> None:
    async with producing("orders", system="nats") as headers:
        pass
    async with consuming("orders", headers, system="nats") as span:
        assert trace.get_current_span() is span
    async with consuming_batch("orders", [headers], system="nats"):
        pass
    spans.assert_tree("""
        send orders
          process orders
        process orders
    """)


@pytest.mark.anyio
async def test_consumers_of_one_loop_do_not_mix(spans: CapturedSpans) -> None:
    @traced("orders.handle")
    async def handle(number: int) -> None:
        await asyncio.sleep(0)

    async def consume(number: int, headers: dict[str, str]) -> None:
        async with consuming("orders", headers, system="nats", message_id=str(number)):
            await handle(number)

    with producing("orders", system="nats") as first:
        pass
    with producing("orders", system="nats") as second:
        pass
    await asyncio.gather(consume(1, first), consume(2, second))
    spans.assert_tree("""
        send orders
          process orders  messaging.message.id=1
            orders.handle  number=1
        send orders
          process orders  messaging.message.id=2
            orders.handle  number=2
    """)


def test_one_block_may_be_entered_again_and_by_several_threads(spans: CapturedSpans) -> None:
    block = producing("orders", system="kafka")
    both_are_inside = threading.Barrier(2, timeout=10)

    def send(*, fails: bool) -> None:
        with suppress(ValueError), block as headers:
            both_are_inside.wait()
            assert str(current_trace_id()) in headers["traceparent"]
            if fails:
                fail()

    threads = [threading.Thread(target=send, kwargs={"fails": fails}) for fails in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with block as outer, block as inner:
        assert outer != inner
    assert sorted(span.status.status_code.name for span in spans) == ["ERROR", "OK", "OK", "OK"]
    assert len({span.trace_id for span in spans}) == 3


# --- where no span is made ------------------------------------------------------------------------------------------


def test_without_a_provider_the_trace_passes_through() -> None:
    with consuming("orders", HEADERS, system="kafka"), producing("invoices", system="kafka") as headers:
        assert headers == HEADERS
    with consuming("orders", HEADERS, system="kafka", link=True):
        assert inject() == {}
    with consuming_batch("orders", [HEADERS], system="kafka"):
        assert inject() == {}
    with producing("orders", system="kafka") as headers:
        assert headers == {}


def test_unsampled_traces_stay_unsampled() -> None:
    with configure(exporter="memory", sample=0.0) as tracing:
        with producing("orders", system="kafka") as headers:
            assert not trace.get_current_span().get_span_context().trace_flags.sampled
        with consuming("orders", headers, system="kafka"):
            assert inject()["traceparent"].split("-")[1] == headers["traceparent"].split("-")[1]
        assert not tracing.spans


def test_failing_sampler_costs_the_span_only(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(trace.TracerProvider):
        def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
            return BrokenTracer()

    class BrokenTracer:
        def start_span(self, *args: Any, **kwargs: Any) -> Any:
            raise OSError

    trace._TRACER_PROVIDER = Broken()
    with caplog.at_level(logging.WARNING, "tracekit"), consuming("orders", HEADERS, system="kafka"):
        assert inject() == HEADERS
    assert "starting the span failed" in caplog.text


# --- strict when made -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"system": ""}, "Write system='rabbitmq'"),
        ({"system": None}, "system got None, expected a non-empty string"),
        ({"system": "kafka", "operation": " "}, "operation got ' ', expected a non-empty string"),
        ({"system": "kafka", "expected": "ValueError"}, "expected exception classes"),
    ],
)
def test_wrong_options_are_refused(options: Any, message: str) -> None:
    for make in (lambda: producing("orders", **options), lambda: consuming("orders", {}, **options)):
        with pytest.raises(InstrumentationError, match=message):
            make()


@pytest.mark.parametrize("destination", [5, 0.5, True, ["orders"], {}, object(), print])
def test_what_names_no_destination_is_refused(destination: Any) -> None:
    message = "destination got .*, expected the name of a queue, topic or subject. Write destination='orders'"
    for make in (producing, consuming, consuming_batch):
        carriers: list[Any] = [] if make is producing else [[]]
        with pytest.raises(InstrumentationError, match=message):
            make(destination, *carriers, system="kafka")


@pytest.mark.parametrize("carriers", [{}, {"traceparent": "00-"}, "headers", b"headers", 5, object()])
def test_one_carrier_for_a_batch_is_refused(carriers: Any) -> None:
    with pytest.raises(InstrumentationError, match=r"expected one for each message\. Write \[message\.headers for"):
        consuming_batch("orders", carriers, system="kafka")


def test_a_poll_that_found_nothing_is_an_empty_batch(spans: CapturedSpans) -> None:
    found: Any = None
    with consuming_batch("orders", found, system="kafka"):
        pass
    assert messaging_attributes(spans.one("process orders"))["batch.message_count"] == 0


@pytest.mark.parametrize("function", [producing, consuming, consuming_batch])
def test_annotations_can_be_read(function: Any) -> None:
    assert "return" in typing.get_type_hints(function)


def _context_variable() -> Any:
    from opentelemetry import context

    return context._RUNTIME_CONTEXT._current_context
