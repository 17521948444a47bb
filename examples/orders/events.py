"""The way from the order service to whoever ships what was paid: a queue, if `ORDERS_BROKER_URL` names a broker."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tracekit.messaging import producing

from .models import Order

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel

BROKER_URL = os.environ.get("ORDERS_BROKER_URL")
QUEUE = os.environ.get("ORDERS_QUEUE", "orders.paid")


class OrderEvents:
    """What the order service tells others."""

    def __init__(self, channel: AbstractChannel | None) -> None:
        self._channel = channel

    async def paid(self, order: Order) -> None:
        """Tell that *order* can be shipped."""
        if self._channel is None:
            return
        from aio_pika import Message

        body = json.dumps({"order_id": order.id, "customer": order.customer}).encode()
        # The trace goes along: the headers lead whoever consumes the message to this span.
        async with producing(QUEUE, system="rabbitmq", body_size=len(body)) as headers:
            await self._channel.default_exchange.publish(Message(body, headers=headers), QUEUE)


@asynccontextmanager
async def order_events() -> AsyncIterator[OrderEvents]:
    """Connect to the broker, if there is one."""
    if BROKER_URL is None:
        yield OrderEvents(None)
        return
    import aio_pika

    async with await aio_pika.connect_robust(BROKER_URL) as connection, connection.channel() as channel:
        await channel.declare_queue(QUEUE, durable=True)
        yield OrderEvents(channel)
