"""What can be done with orders."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import AsyncIterator

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tracekit import arg, result, set_attribute, traced, traced_block

from .database import new_session
from .events import OrderEvents
from .gateway import CardDeclined, PaymentGateway
from .models import NewOrder, Order, OrderLine, Product, Status

log = logging.getLogger(__name__)


class UnknownProduct(Exception):
    """The customer asks for something that is not sold here."""


@traced(
    "orders.create",
    attributes={
        "order.channel": "web",
        "order.currency": arg("new.currency"),
        "order.lines_count": lambda new: len(new.lines),
        "order.status": result("status"),
    },
    expected=(CardDeclined, UnknownProduct),
)
async def create(new: NewOrder, session: AsyncSession, gateway: PaymentGateway, events: OrderEvents) -> Order:
    """Save the order, charge the customer for it, then let it be shipped."""
    total_cents = await validate(new, session)
    # The service of the enclosing operation stands before the block's name: orders.save.
    with traced_block("save"):
        order = Order(customer=new.customer, currency=new.currency, total_cents=total_cents, status="pending")
        order.lines = [OrderLine(sku=line.sku, quantity=line.quantity) for line in new.lines]
        session.add(order)
        await session.commit()
    set_attribute("order.id", order.id)
    try:
        await gateway.charge(order.id, total_cents, new.currency, new.card_number)
    except CardDeclined:
        log.warning("order %d: card declined", order.id)
        await change_status(order, "declined", session)
        raise
    await change_status(order, "paid", session)
    await events.paid(order)
    log.info("order %d is paid", order.id)
    return order


@traced(capture=False, capture_result={"order.total_cents": result()}, expected=UnknownProduct)
async def validate(new: NewOrder, session: AsyncSession) -> int:
    """Return what the order costs, in cents."""
    wanted = {line.sku for line in new.lines}
    products = await session.scalars(select(Product).where(Product.sku.in_(wanted)))
    prices = {product.sku: product.price_cents for product in products}
    if unknown := wanted - prices.keys():
        raise UnknownProduct(", ".join(sorted(unknown)))
    return sum(prices[line.sku] * line.quantity for line in new.lines)


@traced
async def change_status(order: Order, status: Status, session: AsyncSession) -> None:
    """Note what became of the order."""
    order.status = status
    await session.commit()


@traced
async def export(batch_size: int = 100) -> AsyncIterator[str]:
    """Yield all orders as lines of CSV, as they come from the database."""
    # A session of its own: this runs after the endpoint has returned.
    async with new_session() as session:
        yield _csv_line("id", "customer", "status", "currency", "total_cents")
        statement = select(Order).order_by(Order.id).execution_options(yield_per=batch_size)
        async for order in await session.stream_scalars(statement):
            yield _csv_line(order.id, order.customer, order.status, order.currency, order.total_cents)


def _csv_line(*values: object) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()
