"""What type checkers must see of `trace_callable` and `trace_module`; checked by `make types`, never run."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import assert_type

from tracekit import arg, trace_callable, trace_module

assert_type(trace_callable("stripe.Charge.create"), Callable[[], None])
assert_type(trace_callable("stripe.Charge.create", "stripe.charge", kind="client"), Callable[[], None])
assert_type(trace_module("shop.orders", ["Orders.*"], exclude=(), attributes={"id": arg("id")}), Callable[[], None])

trace_callable(print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
trace_callable("stripe.Charge.create", kid="client")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
trace_module("shop.orders", include=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
