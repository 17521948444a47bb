"""The order service: `uvicorn examples.orders.app:app`."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tracekit import configure, current_trace_id
from tracekit.logs import install

from . import database, orders
from .events import OrderEvents, order_events
from .gateway import CardDeclined, PaymentFailed, PaymentGateway
from .models import NewOrder, Order, OrderView

configure(
    service="orders",
    version="1.0.0",
    instrument=["fastapi", "sqlalchemy", "httpx"],
    # A busy shop keeps one trace in ten, ORDERS_SAMPLE=0.1, and still each one that fails or takes long.
    sample=float(os.environ.get("ORDERS_SAMPLE", "1")),
    keep_errors=True,
    keep_slower_than_s=1.0,
    # Counts what is not sampled too.
    metrics=True,
)
install()
logging.basicConfig(level="INFO", format="%(levelname)s %(trace_id)s %(message)s")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what all requests share."""
    await database.prepare()
    payments_url = os.environ.get("ORDERS_PAYMENTS_URL", "http://127.0.0.1:8001")
    async with httpx.AsyncClient(base_url=payments_url) as client, order_events() as events:
        app.state.gateway = PaymentGateway(client)
        app.state.events = events
        yield
    await database.engine.dispose()


app = FastAPI(title="Orders", lifespan=lifespan)


def gateway_of_app(request: Request) -> PaymentGateway:
    """Return the gateway that `lifespan` has made."""
    gateway: PaymentGateway = request.app.state.gateway
    return gateway


def events_of_app(request: Request) -> OrderEvents:
    """Return the events that `lifespan` has made."""
    events: OrderEvents = request.app.state.events
    return events


@app.get("/health")
async def health() -> str:
    """Answer that the service is up; health checks make no spans."""
    return "ok"


@app.post("/orders", status_code=201, response_model=OrderView)
async def create_order(
    new: NewOrder,
    session: database.Session,
    gateway: Annotated[PaymentGateway, Depends(gateway_of_app)],
    events: Annotated[OrderEvents, Depends(events_of_app)],
) -> Order:
    """Take an order and its payment."""
    return await orders.create(new, session, gateway, events)


@app.get("/orders.csv")
async def export_orders() -> StreamingResponse:
    """Stream all orders."""
    return StreamingResponse(orders.export(), media_type="text/csv")


@app.exception_handler(CardDeclined)
async def card_declined(_request: Request, error: CardDeclined) -> JSONResponse:
    """Tell the customer why."""
    return JSONResponse({"detail": f"card declined: {error}"}, status_code=402)


@app.exception_handler(orders.UnknownProduct)
async def unknown_product(_request: Request, error: orders.UnknownProduct) -> JSONResponse:
    """Tell the customer which."""
    return JSONResponse({"detail": f"not sold here: {error}"}, status_code=422)


@app.exception_handler(PaymentFailed)
async def payment_failed(_request: Request, _error: PaymentFailed) -> JSONResponse:
    """Give the customer an id by which the people of this service find the trace."""
    return JSONResponse({"detail": "payment failed, please try later", "trace_id": current_trace_id()}, status_code=502)
