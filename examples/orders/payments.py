"""The payment service: `uvicorn examples.orders.payments:app --port 8001`."""

from __future__ import annotations

import secrets
from collections import Counter

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from tracekit import configure, traced

configure(service="payments", version="1.0.0", instrument=["fastapi"], metrics=True)

app = FastAPI(title="Payments")

LIMIT_CENTS = 10_000
spent_cents: Counter[str] = Counter()
RATES_TO_EUR = {"EUR": 1.0, "USD": 0.92, "GBP": 1.17}


class InsufficientFunds(Exception):
    """The card has not that much on it."""


class Charge(BaseModel):
    """What to take from whom."""

    amount_cents: int
    currency: str
    card_number: str


class Receipt(BaseModel):
    """What proves a payment."""

    transaction_id: str


@app.get("/health")
async def health() -> str:
    """Answer that the service is up; health checks make no spans."""
    return "ok"


@app.post("/charges")
def charge(charge: Charge) -> Receipt:
    """Take the money, or answer 402."""
    amount_cents = to_euro(charge.amount_cents, charge.currency)
    try:
        return Receipt(transaction_id=authorize(charge.card_number, amount_cents))
    except InsufficientFunds as error:
        raise HTTPException(402, detail="insufficient funds") from error


@traced
def to_euro(amount_cents: int, currency: str) -> int:
    """Convert an amount to what accounts are kept in."""
    # A bug to be seen in the traces: nobody has thought of other currencies.
    return round(amount_cents * RATES_TO_EUR[currency])


@traced("authorize", expected=InsufficientFunds)
def authorize(card_number: str, amount_cents: int) -> str:
    """Ask the bank; what is recorded as the card number is `[redacted]`."""
    missing_cents = spent_cents[card_number] + amount_cents - LIMIT_CENTS
    if missing_cents > 0:
        msg = f"{missing_cents} cents are missing"
        raise InsufficientFunds(msg)
    spent_cents[card_number] += amount_cents
    return secrets.token_hex(4)
