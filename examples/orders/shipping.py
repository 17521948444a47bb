"""The worker that ships what was paid: `python -m examples.orders.shipping`, with `ORDERS_BROKER_URL` set."""

from __future__ import annotations

import asyncio
import json
import logging

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from tracekit import configure, traced
from tracekit.logs import install
from tracekit.messaging import consuming

from .events import BROKER_URL, QUEUE

log = logging.getLogger(__name__)


class NoAddress(Exception):
    """Nobody knows where to send it."""


async def main() -> None:
    """Ship until somebody ends the process."""
    async with await aio_pika.connect_robust(BROKER_URL) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(QUEUE, durable=True)
        async with queue.iterator() as messages:
            async for message in messages:
                await handle(message)


async def handle(message: AbstractIncomingMessage) -> None:
    """Ship what *message* asks for, or reject it."""
    try:
        # In this order: the span has ended when the message is acknowledged.
        async with message.process(), consuming(QUEUE, message, system="rabbitmq"):
            await ship(**json.loads(message.body))
    except NoAddress:
        log.exception("not shipped")


@traced(capture=("order_id",))
async def ship(order_id: int, customer: str) -> None:
    """Send the parcel."""
    if not customer:
        raise NoAddress(order_id)
    log.info("order %d goes to %s", order_id, customer)


if __name__ == "__main__":
    configure(service="shipping", version="1.0.0", metrics=True)
    install()
    logging.basicConfig(level="INFO", format="%(levelname)s %(trace_id)s %(message)s")
    asyncio.run(main())
