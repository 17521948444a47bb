"""What type checkers must see of functions, executors and tasks with context; checked by `make types`, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from typing_extensions import assert_type

from tracekit import ContextExecutor, propagate, spawn


def price(order_id: int, *, currency: str = "EUR") -> float:
    return float(order_id)


async def fetch(order_id: int) -> str:
    return str(order_id)


assert_type(propagate(price)(7, currency="USD"), float)
propagate(price)("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
one_argument: Callable[[int], Coroutine[Any, Any, str]] = propagate(fetch)

pool = ContextExecutor(ThreadPoolExecutor())
executor: Executor = pool
assert_type(pool.submit(price, 7, currency="USD"), Future[float])
pool.submit(price, "7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(pool.map(price, [1, 2], timeout=1.0, chunksize=2), Iterator[float])
with pool as entered:
    assert_type(entered, ContextExecutor)
ContextExecutor(4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def main() -> None:
    assert_type(spawn(fetch(7), name="fetch"), asyncio.Task[str])
    assert_type(await propagate(fetch)(7), str)
    spawn(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
