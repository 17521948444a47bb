"""Redis: one trace through streams, with consumer groups and redelivery, and through pub/sub."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from brokers import DEADLINE_S, Exchange, assert_failed_once, assert_joined, assert_linked

from tracekit import set_attribute
from tracekit.messaging import producing

if TYPE_CHECKING:
    from collections.abc import Iterator

redis = pytest.importorskip("redis")

pytestmark = pytest.mark.services("redis")

# Arguments: the stream, and how many deliveries to take. What fails stays pending and is claimed again, once.
STREAM_CONSUMER: Final = f"""
import redis

stream, count = sys.argv[1], int(sys.argv[2])
client = redis.Redis()
while count:
    claimed = client.xautoclaim(stream, "billing", "worker", 0, count=1)[1]
    entries = claimed or client.xreadgroup("billing", "worker", {{stream: ">"}}, 1, {DEADLINE_S * 1000})[0][1]
    for entry_id, fields in entries:
        count -= 1
        try:
            with consuming(stream, fields, system="redis", message_id=entry_id, consumer_group="billing"):
                handle(fields[b"body"])
        except ValueError:
            if claimed:
                client.xadd(stream + "-dead", fields)
                client.xack(stream, "billing", entry_id)
            print("left" if not claimed else "buried", flush=True)
        else:
            client.xack(stream, "billing", entry_id)
client.close()
"""

STREAM_BATCH_CONSUMER: Final = """
import redis

stream = sys.argv[1]
client = redis.Redis()
[[_, entries]] = client.xreadgroup("billing", "worker", {stream: ">"}, 10)
with consuming_batch(stream, [fields for _, fields in entries], system="redis", consumer_group="billing"):
    for _, fields in entries:
        handle(fields[b"body"])
client.xack(stream, "billing", *[entry_id for entry_id, _ in entries])
client.close()
"""

SUBSCRIBER: Final = f"""
import json

import redis

channel, count = sys.argv[1], int(sys.argv[2])
client = redis.Redis()
subscription = client.pubsub()
subscription.subscribe(channel)
assert subscription.get_message(timeout={DEADLINE_S})["type"] == "subscribe"
ready()
while count:
    message = json.loads(subscription.get_message(timeout={DEADLINE_S})["data"])
    count -= 1
    try:
        with consuming(channel, message["headers"], system="redis"):
            handle(message["body"].encode())
    except ValueError:
        print("failed", flush=True)
subscription.close()
client.close()
"""


@pytest.fixture
def client(exchange: Exchange) -> Iterator[Any]:
    """A client, and a stream with a consumer group."""
    client = redis.Redis()
    client.xgroup_create(exchange.name, "billing", mkstream=True)
    yield client
    client.delete(exchange.name, f"{exchange.name}-dead")
    client.close()


def add(client: Any, stream: str, body: bytes) -> None:
    with producing(stream, {"body": body}, system="redis") as fields:
        set_attribute("messaging.message.id", client.xadd(stream, fields))


def test_redelivery_from_a_stream_joins_the_trace_of_the_producer(exchange: Exchange, client: Any) -> None:
    exchange.start_consumer(STREAM_CONSUMER, 2)
    add(client, exchange.name, b"flaky")
    assert exchange.finish() == ["handles flaky", "left", "handles flaky"]
    (sent,) = exchange.spans(f"send {exchange.name}")
    first, second = exchange.spans(f"process {exchange.name}")
    assert_joined(sent, first)
    assert_joined(sent, second)
    assert_failed_once(first, exchange.spans("orders.handle")[0])
    assert second.status == "ok"
    ids = {span.attributes["messaging.message.id"] for span in (sent, first, second)}
    assert len(ids) == 1
    assert client.xpending(exchange.name, "billing")["pending"] == 0


def test_poison_entry_is_moved_with_its_trace(exchange: Exchange, client: Any) -> None:
    exchange.start_consumer(STREAM_CONSUMER, 2)
    add(client, exchange.name, b"poison")
    assert exchange.finish() == ["handles poison", "left", "handles poison", "buried"]
    (sent,) = exchange.spans(f"send {exchange.name}")
    processed = exchange.spans(f"process {exchange.name}")
    for consumer, handler in zip(processed, exchange.spans("orders.handle"), strict=True):
        assert_joined(sent, consumer)
        assert_failed_once(consumer, handler)
    [(_, fields)] = client.xrange(f"{exchange.name}-dead")
    assert sent.span_id.encode() in fields[b"traceparent"]
    assert client.xpending(exchange.name, "billing")["pending"] == 0


def test_batch_from_a_stream_is_linked_to_each_producer(exchange: Exchange, client: Any) -> None:
    for body in (b"1", b"2", b"3"):
        add(client, exchange.name, body)
    exchange.start_consumer(STREAM_BATCH_CONSUMER)
    assert exchange.finish() == ["handles 1", "handles 2", "handles 3"]
    (batch,) = exchange.spans(f"process {exchange.name}")
    assert_linked(batch, exchange.spans(f"send {exchange.name}"))
    assert client.xpending(exchange.name, "billing")["pending"] == 0


def test_subscriber_joins_the_trace_of_the_publisher(exchange: Exchange, client: Any) -> None:
    exchange.start_consumer(SUBSCRIBER, 2, waits=True)
    for body in ("ok", "poison"):
        with producing(exchange.name, system="redis", operation="publish") as headers:
            assert client.publish(exchange.name, json.dumps({"headers": headers, "body": body})) == 1
    assert exchange.finish() == ["handles ok", "handles poison", "failed"]
    published = exchange.spans(f"publish {exchange.name}")
    processed = exchange.spans(f"process {exchange.name}")
    for publisher, subscriber in zip(published, processed, strict=True):
        assert_joined(publisher, subscriber)
    assert_failed_once(processed[1], exchange.spans("orders.handle")[1])
