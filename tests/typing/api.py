"""
What type checkers must see of the public API; checked by `make types`, never run.

A wrong call carries the marks of both checkers, which report a mark that marks nothing: a wrong call that passes fails.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from decimal import Decimal
from typing import Annotated

from opentelemetry.trace import Span, SpanKind
from typing_extensions import assert_type

from tracekit import (
    SpanAttribute,
    Tracing,
    add_event,
    arg,
    configure,
    current_span,
    current_span_id,
    current_trace_id,
    lifecycle,
    record_exception,
    result,
    set_attribute,
    set_attributes,
    set_error,
    traced,
    traced_block,
)

# Each form of the decorator returns what it was given: parameters, their names and defaults, and the result.


@traced
def bare(order_id: int, *, channel: str = "web") -> Decimal:
    return Decimal(order_id)


@traced("orders.create")
def named(order_id: int, *, channel: str = "web") -> Decimal:
    return Decimal(order_id)


@traced()
def called(order_id: int, *, channel: str = "web") -> Decimal:
    return Decimal(order_id)


@traced("create", service="orders", kind="server", attributes={"order.id": arg("order_id")}, capture_result=True)
def with_options(order_id: int, *, channel: str = "web") -> Decimal:
    return Decimal(order_id)


assert_type(bare(1), Decimal)
assert_type(named(1, channel="app"), Decimal)
assert_type(called(order_id=1), Decimal)
assert_type(with_options(1), Decimal)
bare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
named(1, "app")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
called(order=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
with_options()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# Every kind of callable stays what it is.


@traced
async def coroutine_function(order_id: int) -> str:
    return str(order_id)


@traced("orders.stream")
def generator_function(order_id: int) -> Generator[int, str, bool]:
    yield order_id
    return True


@traced(service="orders")
async def async_generator_function(order_id: int) -> AsyncGenerator[int, str]:
    yield order_id


@traced
def iterator_function(order_id: int) -> Iterator[int]:
    yield order_id


@traced
async def async_iterator_function(order_id: int) -> AsyncIterator[int]:
    yield order_id


assert_type(generator_function(1), Generator[int, str, bool])
assert_type(async_generator_function(1), AsyncGenerator[int, str])
assert_type(iterator_function(1), Iterator[int])
assert_type(async_iterator_function(1), AsyncIterator[int])


# Methods bind; staticmethod and classmethod work in either order.


class Gateway:
    @traced
    def charge(self, amount: Decimal) -> bool:
        return bool(amount)

    @traced("gateway.refund")
    async def refund(self, amount: Decimal) -> bool:
        return bool(amount)

    @traced
    @staticmethod
    def outside_static(amount: Decimal) -> bool:
        return bool(amount)

    @staticmethod
    @traced
    def inside_static(amount: Decimal) -> bool:
        return bool(amount)

    @traced
    @classmethod
    def outside_class(cls, amount: Decimal) -> Gateway:
        return cls()

    @classmethod
    @traced("gateway.build")
    def inside_class(cls, amount: Decimal) -> Gateway:
        return cls()

    @property
    @traced
    def balance(self) -> Decimal:
        return Decimal(0)


gateway = Gateway()
amount = Decimal(1)
assert_type(gateway.charge(amount), bool)
assert_type(Gateway.charge(gateway, amount), bool)
assert_type(Gateway.outside_static(amount), bool)
assert_type(gateway.outside_static(amount), bool)
assert_type(Gateway.inside_static(amount), bool)
assert_type(Gateway.outside_class(amount), Gateway)
assert_type(gateway.inside_class(amount), Gateway)
assert_type(gateway.balance, Decimal)
gateway.charge()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Gateway.outside_static("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Gateway.outside_class("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def awaits() -> None:
    assert_type(await coroutine_function(1), str)
    assert_type(await Gateway().refund(Decimal(1)), bool)
    await coroutine_function("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# A class stays a class.


@traced
class Bare:
    def __init__(self, order_id: int) -> None:
        self.order_id = order_id


@traced("orders", capture=False)
class Named:
    limit: int = 3

    def count(self) -> int:
        return self.limit


assert_type(Bare(1), Bare)
assert_type(Bare(1).order_id, int)
assert_type(Named.limit, int)
assert_type(Named().count(), int)
Bare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Derived(Named):
    def more(self) -> int:
        return self.count()


# Any other callable keeps its type.


def callables(handler: Callable[[int], str], plan: functools.partial[str]) -> None:
    assert_type(traced(handler), Callable[[int], str])
    assert_type(traced("orders.handle")(handler), Callable[[int], str])
    assert_type(traced(plan), functools.partial[str])


traced(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]

# Options.


def length(order: str) -> int:
    return len(order)


@traced(
    "orders.create",
    kind=SpanKind.SERVER,
    attributes=[{"order.channel": "web", "order.length": length, "order.status": result("status")}, lambda: {"a": 1}],
    capture=("order",),
    capture_result="status",
    expected=(KeyError, ValueError),
    record_exception=False,
    set_status=False,
    sample=0.5,
    enabled=True,
)
def options(order: str, number: Annotated[int, SpanAttribute("order.number")] = 0) -> str:
    return order


assert_type(options("a"), str)
traced(kind="sideways")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
traced(colour="red")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
traced("a.b", expected="KeyError")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
traced("a.b", sample="often")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


# Blocks and the current span.


async def blocks() -> None:
    with traced_block("payments.charge", {"order.id": 7}, kind="client") as span:
        assert_type(span, Span)
    async with traced_block("payments.charge") as async_span:
        assert_type(async_span, Span)
    traced_block()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    traced_block("a.b", kind="sideways")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with lifecycle("payment", {"order_id": 7}) as payment:
        payment.set({"transaction_id": "t1"})


def current() -> None:
    add_event("paid", {"amount": 1}, timestamp_ns=1)
    set_attribute("order.id", 7)
    set_attributes({"order.id": 7})
    set_error("declined")
    record_exception(ValueError(), {"order.id": 7})
    assert_type(current_span(), Span)
    assert_type(current_trace_id(), "str | None")
    assert_type(current_span_id(), "str | None")
    set_attributes("order.id")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Setting up.


def set_up() -> None:
    tracing = configure(service="api", version="1", environment="test", exporter="none", sample=0.1)
    assert_type(tracing, Tracing)
    assert_type(tracing.flush(1.0), bool)
    configure(servise="api")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
