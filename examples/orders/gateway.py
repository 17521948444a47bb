"""The way from the order service to the payment service."""

from __future__ import annotations

from typing import Annotated

import httpx

from tracekit import SpanAttribute, lifecycle, traced


class CardDeclined(Exception):
    """The customer's bank said no: the customer's problem, not ours."""


class PaymentFailed(Exception):
    """The payment service did not do its work."""


class PaymentGateway:
    """The payment service, as the order service sees it."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @traced(expected=CardDeclined)
    async def charge(
        self,
        order_id: Annotated[int, SpanAttribute("order.id")],
        amount_cents: Annotated[int, SpanAttribute("payment.amount_cents")],
        currency: Annotated[str, SpanAttribute("payment.currency")],
        card_number: str,
    ) -> str:
        """Take the money and return the transaction's id."""
        # The trace goes along: instrumented HTTPX puts its context into the request's headers.
        with lifecycle("payment", {"order_id": order_id}) as payment:
            charge = {"amount_cents": amount_cents, "currency": currency, "card_number": card_number}
            try:
                response = await self._client.post("/charges", json=charge)
            except httpx.TransportError as error:
                msg = "the payment service cannot be reached"
                raise PaymentFailed(msg) from error
            if response.status_code == httpx.codes.PAYMENT_REQUIRED:
                raise CardDeclined(response.json()["detail"])
            if response.is_error:
                msg = f"the payment service answered {response.status_code}"
                raise PaymentFailed(msg)
            transaction_id: str = response.json()["transaction_id"]
            payment.set({"transaction_id": transaction_id})
        return transaction_id
