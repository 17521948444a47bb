"""The order service: `uvicorn examples.orders.app:app`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tracekit import configure, current_trace_id

from . import database, orders
from .gateway import CardDeclined, PaymentFailed, PaymentGateway
from .models import NewOrder, Order, OrderView

configure(service="orders", version="1.0.0", instrument=["fastapi", "sqlalchemy", "httpx"])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what all requests share."""
    await database.prepare()
    payments_url = os.environ.get("ORDERS_PAYMENTS_URL", "http://127.0.0.1:8001")
    async with httpx.AsyncClient(base_url=payments_url) as client:
        app.state.gateway = PaymentGateway(client)
        yield
    await database.engine.dispose()


app = FastAPI(title="Orders", lifespan=lifespan)


def gateway_of_app(request: Request) -> PaymentGateway:
    """Return the gateway that `lifespan` has made."""
    gateway: PaymentGateway = request.app.state.gateway
    return gateway


@app.get("/health")
async def health() -> str:
    """Answer that the service is up; health checks make no spans."""
    return "ok"


@app.post("/orders", status_code=201, response_model=OrderView)
async def create_order(
    new: NewOrder, session: database.Session, gateway: Annotated[PaymentGateway, Depends(gateway_of_app)]
) -> Order:
    """Take an order and its payment."""
    return await orders.create(new, session, gateway)


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
