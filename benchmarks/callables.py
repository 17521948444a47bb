"""What is measured: a function of each kind, an empty closure round it, the guide's code by hand, and calling them."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, final

from opentelemetry.trace import Span, Status, StatusCode, Tracer

# The work: nearly nothing, so that what is measured is what is around it.


def function(count: int, amount: float) -> float:
    return count * amount


async def coroutine_function(count: int, amount: float) -> float:
    return count * amount


def generator_function(count: int, amount: float) -> Generator[float, None, None]:
    yield from repeat(amount, count)


async def async_generator_function(count: int, amount: float) -> AsyncGenerator[float, None]:
    for _ in repeat(None, count):
        yield amount


# An empty closure round each: the least any decorator can cost.


def close_function(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def closure(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return closure


def close_coroutine_function(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    async def closure(*args: Any, **kwargs: Any) -> Any:
        return await func(*args, **kwargs)

    return closure


def close_generator_function(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def closure(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from func(*args, **kwargs))

    return closure


def close_async_generator_function(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    async def closure(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        async for item in func(*args, **kwargs):
            yield item

    return closure


# The guide's code: a span, two attributes, the status, the exception. Twins: only the kind of function differs.


def write_function(tracer: Tracer) -> Callable[..., Any]:
    def by_hand(count: int, amount: float) -> float:
        with tracer.start_as_current_span("calls.function") as span:
            span.set_attribute("count", count)
            span.set_attribute("amount", amount)
            try:
                result = count * amount
                span.set_status(Status(StatusCode.OK))
            except Exception as error:
                _fail(span, error)
                raise
            return result

    return by_hand


def write_coroutine_function(tracer: Tracer) -> Callable[..., Any]:
    async def by_hand(count: int, amount: float) -> float:
        with tracer.start_as_current_span("calls.coroutine_function") as span:
            span.set_attribute("count", count)
            span.set_attribute("amount", amount)
            try:
                result = count * amount
                span.set_status(Status(StatusCode.OK))
            except Exception as error:
                _fail(span, error)
                raise
            return result

    return by_hand


def write_generator_function(tracer: Tracer) -> Callable[..., Any]:
    def by_hand(count: int, amount: float) -> Generator[float, None, None]:
        with tracer.start_as_current_span("calls.generator_function") as span:
            span.set_attribute("count", count)
            span.set_attribute("amount", amount)
            try:
                yield from repeat(amount, count)
                span.set_status(Status(StatusCode.OK))
            except Exception as error:
                _fail(span, error)
                raise

    return by_hand


def write_async_generator_function(tracer: Tracer) -> Callable[..., Any]:
    async def by_hand(count: int, amount: float) -> AsyncGenerator[float, None]:
        with tracer.start_as_current_span("calls.async_generator_function") as span:
            span.set_attribute("count", count)
            span.set_attribute("amount", amount)
            try:
                for _ in repeat(None, count):
                    yield amount
                span.set_status(Status(StatusCode.OK))
            except Exception as error:
                _fail(span, error)
                raise

    return by_hand


def _fail(span: Span, error: Exception) -> None:
    span.set_status(Status(StatusCode.ERROR, str(error)))
    span.record_exception(error)


# Doing it many times.


def call_function(func: Callable[..., Any], times: int) -> None:
    for _ in repeat(None, times):
        func(1, 9.5)


def call_coroutine_function(func: Callable[..., Any], times: int) -> None:
    async def call() -> None:
        for _ in repeat(None, times):
            await func(1, 9.5)

    _finish(call())


def call_generator_function(func: Callable[..., Any], times: int) -> None:
    for _ in repeat(None, times):
        for _ in func(1, 9.5):
            pass


def call_async_generator_function(func: Callable[..., Any], times: int) -> None:
    async def call() -> None:
        for _ in repeat(None, times):
            async for _ in func(1, 9.5):
                pass

    _finish(call())


def step_generator(func: Callable[..., Any], times: int) -> None:
    for _ in func(times, 9.5):
        pass


def step_async_generator(func: Callable[..., Any], times: int) -> None:
    async def step() -> None:
        async for _ in func(times, 9.5):
            pass

    _finish(step())


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run *coroutine*, which never waits, without the cost of an event loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    msg = "the coroutine waited for something"
    raise RuntimeError(msg)


@final
@dataclass(frozen=True, slots=True)
class Kind:
    """
    One kind of callable: the function, the ways around it, and how to do it many times.

    Args:
        title: What is done once.
        func: The plain function.
        close: Puts an empty closure round it.
        write: Writes it by hand, as the guide shows it.
        repeat: Does it many times.
        spans_for_each: Whether each time makes a span; else they are items of one generator.
    """

    title: str
    func: Callable[..., Any]
    close: Callable[[Callable[..., Any]], Callable[..., Any]]
    write: Callable[[Tracer], Callable[..., Any]]
    repeat: Callable[[Callable[..., Any], int], None]
    spans_for_each: bool = True

    @property
    def is_generator(self) -> bool:
        """Whether it yields: the raw decorator and many peers end its span before the first item, or leak it."""
        return "generator" in self.title


FUNCTION: Final = Kind("a call of a function", function, close_function, write_function, call_function)
ITEM: Final = Kind(
    "an item of a generator",
    generator_function,
    close_generator_function,
    write_generator_function,
    step_generator,
    spans_for_each=False,
)
ASYNC_ITEM: Final = Kind(
    "an item of an async generator",
    async_generator_function,
    close_async_generator_function,
    write_async_generator_function,
    step_async_generator,
    spans_for_each=False,
)
KINDS: Final = (
    FUNCTION,
    Kind(
        "a call of a coroutine function",
        coroutine_function,
        close_coroutine_function,
        write_coroutine_function,
        call_coroutine_function,
    ),
    Kind(
        "a call of a generator function, one item",
        generator_function,
        close_generator_function,
        write_generator_function,
        call_generator_function,
    ),
    Kind(
        "a call of an async generator function, one item",
        async_generator_function,
        close_async_generator_function,
        write_async_generator_function,
        call_async_generator_function,
    ),
    ITEM,
    ASYNC_ITEM,
)
