"""Spans to look at: a shop's traces, hostile ones, and very many."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from tracekit.export.record import EventRecord, LinkRecord, SpanRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

MS: Final = 1_000_000
NOON_NS: Final = 1_763_812_800_000 * MS


class Shop:
    """Makes the spans of traces; the same ones for the same seed."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self.spans: list[SpanRecord] = []

    def trace(self, number: int, *, declined: bool = False, queries: int = 3) -> str:
        """Add one order's trace and return its id."""
        chance = self._random
        trace_id = f"{chance.getrandbits(128):032x}"
        start = NOON_NS + number * 1_370 * MS + chance.randrange(MS)

        def add(
            name: str, service: str, parent: str | None, at: float, took: float, kind: Any = "internal", **more: Any
        ) -> str:
            span_id = f"{chance.getrandbits(64):016x}"
            self.spans.append(
                SpanRecord(
                    trace_id=trace_id,
                    span_id=span_id,
                    name=name,
                    parent_id=parent,
                    start_time_ns=start + int(at * MS),
                    end_time_ns=start + int((at + took) * MS),
                    service=service,
                    kind=kind,
                    resource=_RESOURCES[service],
                    scope="tracekit 0.1.0",
                    **{"status": "ok", **more},
                )
            )
            return span_id

        pace = chance.uniform(0.6, 1.8)
        slow = 31 * pace if declined else 64 * pace
        total = 48 * pace + slow + queries * 6 * pace
        failure: dict[str, Any] = {"status": "error", "description": "CardDeclined: insufficient funds"}
        outcome, answer = (failure, 402) if declined else ({}, 201)
        root = add(
            "POST /orders", "web", None, 0, total, "server",
            attributes={"http.request.method": "POST", "url.path": "/orders", "http.response.status_code": answer},
            **({"status": "error", "description": ""} if declined else {}),
        )  # fmt: skip
        create = add(
            "orders.create", "orders", root, 2 * pace, total - 5 * pace,
            attributes={"order.id": number, "order.channel": "web", "customer": "Ada Lovelace"}, **outcome,
        )  # fmt: skip
        add("orders.validate", "orders", create, 3 * pace, 5 * pace, attributes={"order.items": 3})
        for query in range(queries):
            add(
                "SELECT stock", "orders", create, (10 + query * 6) * pace, 5 * pace, "client",
                attributes={"db.system.name": "postgresql", "db.query.text": "SELECT left FROM stock WHERE sku = %s"},
            )  # fmt: skip
        at = (14 + queries * 6) * pace
        charge = add(
            "payments.charge", "payments", create, at, slow, "server", attributes={"amount": 129.9, "currency": "EUR"},
            events=(
                EventRecord("payment_started", start + int((at + 2) * MS), {"order_id": number}),
                *(
                    [EventRecord("exception", start + int((at + slow - 2) * MS), {
                        "exception.type": "shop.payments.CardDeclined", "exception.message": "insufficient funds",
                        "exception.stacktrace": _STACK})]
                    if declined
                    else [EventRecord("payment_completed", start + int((at + slow - 1) * MS), {"duration_ms": slow})]
                ),
            ),
            **outcome,
        )  # fmt: skip
        add("POST /v1/charges", "gateway", charge, at + 4 * pace, slow * 0.7, "client",
            attributes={"server.address": "api.cards.test", "http.response.status_code": answer})  # fmt: skip
        if not declined:
            add("orders publish", "orders", create, total - 12 * pace, 3 * pace, "producer")
            previous = self.spans[0]
            add("orders process", "mailer", create, total - 8 * pace, 14 * pace, "consumer",
                links=(LinkRecord(previous.trace_id, previous.span_id, {"messaging.batch": 1}),))  # fmt: skip
        return trace_id


def shop_spans(traces: int = 40) -> list[SpanRecord]:
    """Return the spans of a shop's morning."""
    shop = Shop()
    for number in range(traces):
        shop.trace(number, declined=number % 9 == 4, queries=24 if number % 13 == 6 else 3)
    return shop.spans


def many_spans(count: int, *, per_trace: int = 50) -> Iterator[SpanRecord]:
    """Yield *count* spans in traces of *per_trace*, each a child of one of the spans before it."""
    chance = random.Random(3)
    services = ("web", "orders", "payments", "gateway", "mailer")
    for number in range(count):
        trace, place = divmod(number, per_trace)
        start = NOON_NS + trace * 20 * MS + place * 200_000
        parent = None if not place else trace * per_trace + chance.randrange(max(0, place - 6), place)
        service = services[place % len(services)]
        yield SpanRecord(
            trace_id=f"{trace + 1:032x}",
            span_id=f"{number + 1:016x}",
            name=f"{service}.step_{place % 17}",
            parent_id=None if parent is None else f"{parent + 1:016x}",
            start_time_ns=start,
            end_time_ns=start + (per_trace - place) * 190_000,
            status="error" if number % 997 == 500 else "ok",
            attributes={
                "order.id": number,
                "order.channel": "web",
                "note": "a few words of text",
                "amount": number / 7,
            },
            service=service,
            resource=_RESOURCES[service],
            scope="tracekit 0.1.0",
        )


# What would run, load or break something, if any of it were more than text.
HOSTILE: Final = (
    "</script><script>window.hacked = 1</script>",
    "<!--<script>",
    "-->]]>",
    "<img src=x onerror='window.hacked = 1'>",
    "<svg onload=window.hacked=1>",
    "javascript:window.hacked=1",
    "'\"` onmouseover=window.hacked=1 x=",
    "&lt;b&gt;&amp;#x3c;",
    "\u2028\u2029\x00\x1b[31m\x7f\ufeff\u202e",
    "lone \ud800 surrogates \udfff",
    "__proto__",
    "constructor",
    "{{data}}{{script}}",
    "${window.hacked=1}",
    "x" * 300_000,
)


def hostile_spans() -> Iterator[SpanRecord]:
    """Yield spans with hostile text wherever there is text, and with impossible times and families."""
    for number, text in enumerate(HOSTILE, start=1):
        yield SpanRecord(
            trace_id=f"{number:032x}",
            span_id=f"{number:016x}",
            name=text,
            start_time_ns=NOON_NS + number,
            end_time_ns=NOON_NS + number + 5 * MS,
            attributes={
                text: text,
                "__proto__": text,
                "constructor": {"prototype": text},
                "list": [text, text.encode("utf-8", "replace")],
                "nan": float("nan"),
                "infinite": float("-inf"),
                "large": 2**63,
                "huge": 10**5000,
                "url": "javascript:window.hacked=1",
            },
            events=(
                EventRecord(text, NOON_NS + number, {text: text}),
                EventRecord("exception", 0, {"exception.type": text, "exception.stacktrace": text}),
            ),
            links=(
                LinkRecord(f"{number:032x}", f"{number:016x}", {text: text}),
                LinkRecord("javascript:alert(1)", text),
            ),
            status="error",
            description=text,
            service=text,
            resource={"service.name": text, text: text},
            scope=text,
        )
    # Its own parent; each other's parent; a parent that is nowhere; an id twice; times of another age.
    family = [("a", "a"), ("b", "c"), ("c", "b"), ("d", "f" * 16), ("e", None), ("e", "e")]
    for number, (span_id, parent_id) in enumerate(family):
        yield SpanRecord(
            trace_id="f" * 32,
            span_id=span_id.rjust(16, "0"),
            name=f"family {number}",
            parent_id=None if parent_id is None else parent_id.rjust(16, "0"),
            start_time_ns=(0, 2**64, -(2**70), NOON_NS, NOON_NS, NOON_NS)[number],
            end_time_ns=(0, 0, 2**80, None, NOON_NS + 1, NOON_NS - 1)[number],
        )


_STACK: Final = """\
Traceback (most recent call last):
  File "/srv/shop/payments.py", line 48, in charge
    response = gateway.charge(card, amount)
  File "/srv/shop/gateway.py", line 23, in charge
    raise CardDeclined("insufficient funds")
shop.payments.CardDeclined: insufficient funds
"""
_RESOURCES: Final = {
    service: {
        "service.name": service,
        "service.version": "1.4.2",
        "deployment.environment.name": "production",
        "host.name": f"{service}-7d9f",
        "process.pid": 4000 + number,
        "telemetry.sdk.language": "python",
    }
    for number, service in enumerate(("web", "orders", "payments", "gateway", "mailer"))
}
