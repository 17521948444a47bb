"""RabbitMQ, by pika and by aio-pika: one trace through queues, redeliveries, dead letters and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from brokers import DEADLINE_S, Exchange, assert_failed_once, assert_joined, assert_linked

from tracekit.messaging import consuming, producing

if TYPE_CHECKING:
    from collections.abc import Iterator

pika = pytest.importorskip("pika")
aio_pika = pytest.importorskip("aio_pika")

pytestmark = pytest.mark.services("rabbitmq")

URL: Final = "amqp://guest:guest@127.0.0.1:5672/"

# Arguments: the queue, and how many deliveries to take.
PIKA_CONSUMER: Final = f"""
import pika

queue, count = sys.argv[1], int(sys.argv[2])
connection = pika.BlockingConnection(pika.URLParameters({URL!r}))
channel = connection.channel()
for method, properties, body in channel.consume(queue, inactivity_timeout={DEADLINE_S}):
    try:
        with consuming(queue, properties, system="rabbitmq", message_id=properties.message_id):
            handle(body)
    except ValueError:
        if method.redelivered:
            channel.basic_reject(method.delivery_tag, requeue=False)
            print("rejected", flush=True)
        else:
            channel.basic_nack(method.delivery_tag, requeue=True)
            print("requeued", flush=True)
    else:
        channel.basic_ack(method.delivery_tag)
        print("acknowledged", flush=True)
    count -= 1
    if not count:
        break
connection.close()
"""

PIKA_BATCH_CONSUMER: Final = f"""
import pika

queue, count = sys.argv[1], int(sys.argv[2])
connection = pika.BlockingConnection(pika.URLParameters({URL!r}))
channel = connection.channel()
batch = []
for method, properties, body in channel.consume(queue, inactivity_timeout={DEADLINE_S}):
    batch.append((properties, body))
    if len(batch) == count:
        break
with consuming_batch(queue, [properties for properties, _ in batch], system="rabbitmq"):
    for _, body in batch:
        handle(body)
channel.basic_ack(method.delivery_tag, multiple=True)
connection.close()
"""

AIO_PIKA_CONSUMER: Final = f"""
import asyncio

import aio_pika

async def main(queue_name, count):
    connection = await aio_pika.connect({URL!r})
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue(queue_name)
        async with queue.iterator(timeout={DEADLINE_S}) as messages:
            async for message in messages:
                try:
                    async with message.process(requeue=not message.redelivered):
                        async with consuming(queue_name, message, system="rabbitmq"):
                            handle(message.body)
                except ValueError:
                    print("failed", flush=True)
                count -= 1
                if not count:
                    return

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture
def channel(exchange: Exchange) -> Iterator[Any]:
    """A channel, with a queue and one for its dead letters."""
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    dead = f"{exchange.name}-dead"
    channel.queue_declare(dead)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    channel.queue_declare(exchange.name, arguments=arguments)
    yield channel
    for queue in (exchange.name, dead):
        channel.queue_delete(queue)
    connection.close()


def publish(channel: Any, queue: str, body: bytes) -> None:
    properties = pika.BasicProperties(message_id=body.decode())
    with producing(queue, properties, system="rabbitmq", operation="publish"):
        channel.basic_publish("", queue, body, properties)


def messages_left(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def test_redelivery_by_pika_joins_the_trace_of_the_producer(exchange: Exchange, channel: Any) -> None:
    exchange.start_consumer(PIKA_CONSUMER, 2)
    publish(channel, exchange.name, b"flaky")
    assert exchange.finish() == ["handles flaky", "requeued", "handles flaky", "acknowledged"]
    (sent,) = exchange.spans(f"publish {exchange.name}")
    first, second = exchange.spans(f"process {exchange.name}")
    assert_joined(sent, first)
    assert_joined(sent, second)
    assert_failed_once(first, exchange.spans("orders.handle")[0])
    assert second.status == "ok"
    assert second.attributes["messaging.message.id"] == "flaky"
    assert messages_left(channel, exchange.name) == 0


def test_dead_letter_keeps_the_trace_of_the_producer(exchange: Exchange, channel: Any) -> None:
    exchange.start_consumer(PIKA_CONSUMER, 2)
    publish(channel, exchange.name, b"poison")
    assert exchange.finish() == ["handles poison", "requeued", "handles poison", "rejected"]
    _, properties, _ = channel.basic_get(f"{exchange.name}-dead", auto_ack=True)
    with consuming("dead letters", properties, system="rabbitmq"):
        pass
    (sent,) = exchange.spans(f"publish {exchange.name}")
    processed = exchange.spans(f"process {exchange.name}")
    for consumer, handler in zip(processed, exchange.spans("orders.handle"), strict=True):
        assert_joined(sent, consumer)
        assert_failed_once(consumer, handler)
    (dead,) = exchange.spans("process dead letters")
    assert (dead.trace_id, dead.parent_id) == (sent.trace_id, sent.span_id)


def test_batch_by_pika_is_linked_to_each_producer(exchange: Exchange, channel: Any) -> None:
    exchange.start_consumer(PIKA_BATCH_CONSUMER, 3)
    for body in (b"1", b"2", b"3"):
        publish(channel, exchange.name, body)
    assert exchange.finish() == ["handles 1", "handles 2", "handles 3"]
    (batch,) = exchange.spans(f"process {exchange.name}")
    assert_linked(batch, exchange.spans(f"publish {exchange.name}"))
    assert messages_left(channel, exchange.name) == 0


@pytest.mark.anyio
async def test_aio_pika_joins_the_trace_of_the_producer(exchange: Exchange, channel: Any) -> None:
    exchange.start_consumer(AIO_PIKA_CONSUMER, 5)
    connection = await aio_pika.connect(URL)
    async with connection, connection.channel() as sender:
        for body in (b"ok", b"flaky", b"poison"):
            async with producing(exchange.name, system="rabbitmq") as headers:
                message = aio_pika.Message(body, headers=dict(headers))
                await sender.default_exchange.publish(message, exchange.name)
    assert exchange.finish().count("failed") == 3
    ok, flaky, poison = exchange.spans(f"send {exchange.name}")
    processed = exchange.spans(f"process {exchange.name}")
    for sent, statuses in ((ok, ["ok"]), (flaky, ["error", "ok"]), (poison, ["error", "error"])):
        deliveries = [span for span in processed if span.trace_id == sent.trace_id]
        assert [span.status for span in deliveries] == statuses
        for span in deliveries:
            assert_joined(sent, span)
    assert messages_left(channel, exchange.name) == 0
    assert messages_left(channel, f"{exchange.name}-dead") == 1
