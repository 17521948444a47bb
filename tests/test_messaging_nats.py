"""NATS: one trace through subjects, and through JetStream with redelivery, terminated messages and batches."""

from __future__ import annotations

from typing import Final

import pytest
from brokers import DEADLINE_S, Exchange, assert_failed_once, assert_joined, assert_linked

from tracekit.messaging import producing

nats = pytest.importorskip("nats")

pytestmark = [pytest.mark.services("nats"), pytest.mark.anyio]

URL: Final = "nats://127.0.0.1:4222"

# Arguments: the subject, and how many messages to take.
SUBSCRIBER: Final = f"""
import asyncio

import nats

async def main(subject, count):
    client = await nats.connect({URL!r})
    subscription = await client.subscribe(subject)
    await client.flush()
    ready()
    for _ in range(count):
        message = await subscription.next_msg(timeout={DEADLINE_S})
        try:
            async with consuming(message.subject, message, system="nats"):
                handle(message.data)
        except ValueError:
            print("failed", flush=True)
        await message.respond(b"done")
    await client.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""

JETSTREAM_CONSUMER: Final = f"""
import asyncio

import nats

async def main(name, count):
    client = await nats.connect({URL!r})
    subscription = await client.jetstream().pull_subscribe(name, durable="billing", stream=name)
    while count:
        for message in await subscription.fetch(1, timeout={DEADLINE_S}):
            count -= 1
            try:
                async with consuming(name, message.headers, system="nats", consumer_group="billing"):
                    handle(message.data)
            except ValueError:
                if message.metadata.num_delivered > 1:
                    await message.term()
                    print("terminated", flush=True)
                else:
                    await message.nak()
                    print("refused", flush=True)
            else:
                await message.ack_sync()
    await client.drain()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""

JETSTREAM_BATCH_CONSUMER: Final = f"""
import asyncio

import nats

async def main(name, count):
    client = await nats.connect({URL!r})
    subscription = await client.jetstream().pull_subscribe(name, durable="billing", stream=name)
    batch = await subscription.fetch(count, timeout={DEADLINE_S})
    async with consuming_batch(name, batch, system="nats", consumer_group="billing"):
        for message in batch:
            handle(message.data)
    for message in batch:
        await message.ack_sync()
    await client.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def consumed(exchange: Exchange, program: str, count: int, *bodies: bytes) -> int:
    """Send *bodies* to a new stream, let *program* take *count* deliveries; return how many messages it has left."""
    client = await nats.connect(URL)
    stream = client.jetstream()
    await stream.add_stream(name=exchange.name, subjects=[exchange.name])
    try:
        for body in bodies:
            async with producing(exchange.name, system="nats", operation="publish") as headers:
                await stream.publish(exchange.name, body, headers=headers)
        exchange.start_consumer(program, count)
        exchange.finish()
        consumer = await stream.consumer_info(exchange.name, "billing")
    finally:
        await stream.delete_stream(exchange.name)
        await client.close()
    return int(consumer.num_ack_pending + consumer.num_pending)


async def test_subscriber_joins_the_trace_of_the_publisher(exchange: Exchange) -> None:
    exchange.start_consumer(SUBSCRIBER, 2, waits=True)
    client = await nats.connect(URL)
    for body in (b"ok", b"poison"):
        async with producing(exchange.name, system="nats", operation="publish") as headers:
            await client.request(exchange.name, body, timeout=DEADLINE_S, headers=headers)
    await client.close()
    assert exchange.finish() == ["handles ok", "handles poison", "failed"]
    published = exchange.spans(f"publish {exchange.name}")
    processed = exchange.spans(f"process {exchange.name}")
    for publisher, subscriber in zip(published, processed, strict=True):
        assert_joined(publisher, subscriber)
    assert_failed_once(processed[1], exchange.spans("orders.handle")[1])


async def test_redelivery_from_jetstream_joins_the_trace_of_the_producer(exchange: Exchange) -> None:
    assert await consumed(exchange, JETSTREAM_CONSUMER, 4, b"flaky", b"poison") == 0
    flaky, poison = exchange.spans(f"publish {exchange.name}")
    processed = exchange.spans(f"process {exchange.name}")
    handled = exchange.spans("orders.handle")
    for sent, statuses in ((flaky, ["error", "ok"]), (poison, ["error", "error"])):
        deliveries = [span for span in processed if span.trace_id == sent.trace_id]
        assert [span.status for span in deliveries] == statuses
        for span in deliveries:
            assert_joined(sent, span)
            if span.status == "error":
                assert_failed_once(span, next(inner for inner in handled if inner.parent_id == span.span_id))


async def test_batch_from_jetstream_is_linked_to_each_producer(exchange: Exchange) -> None:
    assert await consumed(exchange, JETSTREAM_BATCH_CONSUMER, 3, b"1", b"2", b"3") == 0
    (batch,) = exchange.spans(f"process {exchange.name}")
    assert_linked(batch, exchange.spans(f"publish {exchange.name}"))
