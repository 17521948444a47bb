"""
Generators and async generators, traced: the span lives from the first step to the last, current only during a step.

No context is held across a `yield`. Each step puts the context of the generator's body in place and afterwards the
consumer's back, so the consumer may step, close or drop the generator in any task or thread.

`throw` carries `close` too: what the body makes of a GeneratorExit is then Python's to judge, as without the wrapper.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Final, final

from tracekit._operation import Operation
from tracekit._span import ActiveSpan, start


@final
class _Untraced:
    """Stands in for the span where none is made."""

    __slots__ = ()

    def pause(self) -> Any:
        """Do nothing."""

    def resume(self, body: Any) -> None:
        """Do nothing."""

    def count_items(self, items: int) -> None:
        """Do nothing."""

    def succeed(self, result: Any) -> None:
        """Do nothing."""

    def fail(self, exc: BaseException) -> None:
        """Do nothing."""


_UNTRACED: Final = _Untraced()


def _begin(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActiveSpan | _Untraced:
    return start(operation, args, kwargs) or _UNTRACED


def _first_step(inner: AsyncGenerator[Any, Any]) -> Coroutine[Any, Any, Any]:
    # The event loop closes the async generators it has seen start. It must see the wrapper only: closing both at once
    # fails with "asynchronous generator is already running".
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return inner.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def wrap_generator_function(
    func: Callable[..., Generator[Any, Any, Any]],
    operation: Operation,
    begin: Callable[..., ActiveSpan | _Untraced] = _begin,
) -> Callable[..., Generator[Any, Any, Any]]:
    """Return *func* traced: a generator function whose generators answer as those of *func*."""

    def traced(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        active = begin(operation, args, kwargs)
        items = 0
        value: Any = None
        handed: list[Any] = []  # emptied at the `yield`: only the consumer keeps what was yielded, as without a wrapper
        try:
            inner = func(*args, **kwargs)
            step: Callable[[Any], Any] = inner.send
            while True:
                handed.append(step(value))
                value = None
                items += 1
                body = active.pause()
                try:
                    value = yield handed.pop()
                    step = inner.send
                except BaseException as exc:  # noqa: BLE001  # it is the body's to handle
                    step, value = inner.throw, exc
                active.resume(body)
        except StopIteration as stop:
            active.count_items(items)
            active.succeed(stop.value)
            return stop.value
        except BaseException as exc:
            value = None  # else the exception and this frame keep each other alive
            active.count_items(items)
            active.fail(exc)
            raise

    flags: int = getattr(getattr(func, "__code__", None), "co_flags", 0)
    if flags & inspect.CO_ITERABLE_COROUTINE:
        types.coroutine(traced)  # marks it in place
    return traced


# Twin of wrap_generator_function: awaits its steps, and has no return value.
def wrap_async_generator_function(
    func: Callable[..., AsyncGenerator[Any, Any]],
    operation: Operation,
    begin: Callable[..., ActiveSpan | _Untraced] = _begin,
    first_step: Callable[..., Coroutine[Any, Any, Any]] = _first_step,
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Return *func* traced: an async generator function whose generators answer as those of *func*."""

    async def traced(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        active = begin(operation, args, kwargs)
        items = 0
        value: Any = None
        handed: list[Any] = []  # as above
        try:
            inner = func(*args, **kwargs)
            handed.append(await first_step(inner))
            while True:
                items += 1
                body = active.pause()
                step: Callable[[Any], Any]
                try:
                    value = yield handed.pop()
                    step = inner.asend
                except BaseException as exc:  # noqa: BLE001  # it is the body's to handle
                    step, value = inner.athrow, exc
                active.resume(body)
                handed.append(await step(value))
                value = None
        except StopAsyncIteration:
            active.count_items(items)
            active.succeed(None)
        except BaseException as exc:
            value = None  # as above
            active.count_items(items)
            active.fail(exc)
            raise

    return traced
