"""What type checkers must see of `tracekit.messaging`; checked by `make types`, never run."""

from __future__ import annotations

from opentelemetry.trace import Span
from typing_extensions import assert_type

from tracekit.messaging import consuming, consuming_batch, producing


async def blocks(headers: list[tuple[str, bytes]], message: object) -> None:
    with producing("orders", system="kafka") as new:
        assert_type(new, dict[str, str])
    with producing("orders", headers, system="kafka", message_count=2, baggage=False) as written:
        assert_type(written, list[tuple[str, bytes]])
    async with producing("orders", {"body": b""}, system="redis") as fields:
        assert_type(fields, dict[str, bytes])
    with consuming("orders", message, system="kafka", link=True, expected=ValueError) as span:
        assert_type(span, Span)
    async with consuming_batch("orders", [headers, message], system="kafka", attributes={"order.id": 7}) as batch:
        assert_type(batch, Span)
    producing("orders")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    consuming("orders", headers, system=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
