"""
Generators and async generators, traced: the span lives from the first step to the last, current only during a step.

No context is held across a `yield`. Each step puts the context of the generator's body in place and afterwards the
consumer's back, so the consumer may step, close or drop the generator in any task or thread.

`throw` carries `close` too: what the body makes of a GeneratorExit is then Python's to judge, as without the wrapper.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final, final

from tracekit._operation import Operation
from tracekit._span import ActiveSpan, start

# What was yielded is handed over in a list, emptied at the `yield`: only the consumer keeps it, as without a wrapper.
# Where the body raises, `_tk_value` is cleared: else the exception and this frame keep each other alive.
GENERATOR_FUNCTION: Final = """
def traced({declaration}):
    _tk_active = _tk_begin(_tk_operation, {collected})
    _tk_items = 0
    _tk_value = None
    _tk_handed = []
    try:
        _tk_inner = _tk_func({forwarding})
        _tk_step = _tk_inner.send
        while True:
            _tk_handed.append(_tk_step(_tk_value))
            _tk_value = None
            _tk_items += 1
            _tk_body = _tk_active.pause()
            try:
                _tk_value = yield _tk_handed.pop()
                _tk_step = _tk_inner.send
            except _tk_BaseException as _tk_exc:
                _tk_step, _tk_value = _tk_inner.throw, _tk_exc
            _tk_active.resume(_tk_body)
    except _tk_StopIteration as _tk_stop:
        _tk_active.count_items(_tk_items)
        _tk_active.succeed(_tk_stop.value)
        return _tk_stop.value
    except _tk_BaseException as _tk_exc:
        _tk_value = None
        _tk_active.count_items(_tk_items)
        _tk_active.fail(_tk_exc)
        raise
"""
# Twin of GENERATOR_FUNCTION: awaits its steps, and has no return value.
ASYNC_GENERATOR_FUNCTION: Final = """
async def traced({declaration}):
    _tk_active = _tk_begin(_tk_operation, {collected})
    _tk_items = 0
    _tk_value = None
    _tk_handed = []
    try:
        _tk_inner = _tk_func({forwarding})
        _tk_handed.append(await _tk_first_step(_tk_inner))
        while True:
            _tk_items += 1
            _tk_body = _tk_active.pause()
            try:
                _tk_value = yield _tk_handed.pop()
                _tk_step = _tk_inner.asend
            except _tk_BaseException as _tk_exc:
                _tk_step, _tk_value = _tk_inner.athrow, _tk_exc
            _tk_active.resume(_tk_body)
            _tk_handed.append(await _tk_step(_tk_value))
            _tk_value = None
    except _tk_StopAsyncIteration:
        _tk_active.count_items(_tk_items)
        _tk_active.succeed(None)
    except _tk_BaseException as _tk_exc:
        _tk_value = None
        _tk_active.count_items(_tk_items)
        _tk_active.fail(_tk_exc)
        raise
"""


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


def begin(operation: Operation, values: tuple[Any, ...]) -> ActiveSpan | _Untraced:
    """Start a span as `start` does; what comes back can be paused and resumed in any case."""
    return (operation.begin or start)(operation, values) or _UNTRACED


def first_step(inner: AsyncGenerator[Any, Any]) -> Coroutine[Any, Any, Any]:
    """
    Take the first step of *inner* unseen by the event loop, which closes the async generators it has seen start.

    It must see the wrapper only: closing both at once fails with "asynchronous generator is already running". Nor may
    the garbage collector close *inner*, which in a cycle it can reach first: the wrapper does.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, _leave_to_wrapper)
    try:
        return inner.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _leave_to_wrapper(_inner: AsyncGenerator[Any, Any]) -> None:
    """Do nothing with an async generator that the garbage collector has found."""
