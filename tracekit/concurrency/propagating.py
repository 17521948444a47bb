"""`propagate`: a function that runs in the context of the place that hands it on, not in that of whoever calls it."""

from __future__ import annotations

import contextvars
import functools
import inspect
import os
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast, final

from tracekit.concurrency.processes import SentFunction, setup_to_send
from tracekit.errors import InstrumentationError
from tracekit.propagation import inject

P = ParamSpec("P")
R = TypeVar("R")


def propagate(func: Callable[P, R]) -> Callable[P, R]:
    """
    Return *func* to be run in today's context, by whatever thread, pool, callback or process calls it.

    The context is that of all context variables, not only OpenTelemetry's; each call gets its own copy. What is traced
    in there is a child of the span that is current now, even if that has ended by then. Into another process travel the
    trace and baggage, and how tracing was set up, if the process has no set-up of its own.

    Args:
        func: A function or coroutine function. To be pickled it must be picklable itself.

    Raises:
        InstrumentationError: It is a generator function, whose steps belong to whoever iterates, or not callable.
    """
    call = _called_by(func)
    if call is None:
        msg = f"propagate got {func!r:.100}, expected a function or coroutine function. Write propagate(work)."
        raise InstrumentationError(msg)
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        msg = (
            f"propagate got {func!r:.100}, expected a function or coroutine function. For a generator function, "
            f"write propagate(...) around the function that iterates."
        )
        raise InstrumentationError(msg)
    context = contextvars.copy_context()
    if inspect.iscoroutinefunction(call):
        return cast("Callable[P, R]", _propagate_coroutine_function(cast("Any", func), context))
    return PropagatedFunction(func, context)


def _called_by(func: object) -> Any:
    """Return what tells the kind of *func*: itself, the `__call__` of a callable object, None if it has none."""
    kind: Any = type(func)
    if inspect.isroutine(func) or issubclass(kind, functools.partial):
        return func
    return kind.__call__ if callable(func) else None


@final
class PropagatedFunction(Generic[P, R]):
    """
    *func*, to be run in *context*.

    Args:
        func: What to call.
        context: Copied for each call, as two calls cannot be in one context at once.
    """

    def __init__(self, func: Callable[P, R], context: contextvars.Context) -> None:
        functools.update_wrapper(self, func)
        self._func: Final = func
        self._context: Final = context
        self._pid: Final = os.getpid()

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in a copy of the context."""
        func = self._func
        if os.getpid() != self._pid:
            # Forked: the span in the context is a copy, which will never end here. The trace has a remote parent.
            func = self._sent()
        return self._context.copy().run(func, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._sent().__reduce__()

    def _sent(self) -> SentFunction[P, R]:
        return SentFunction(self._func, self._context.copy().run(inject), setup_to_send())


def _propagate_coroutine_function(
    func: Callable[P, Coroutine[Any, Any, R]], context: contextvars.Context
) -> Callable[P, Coroutine[Any, Any, R]]:
    @functools.wraps(func)
    async def propagated(*args: P.args, **kwargs: P.kwargs) -> R:
        return await _InContext(func(*args, **kwargs), context.copy())

    return propagated


@final
class _InContext(Generic[R]):
    """Awaits *coroutine* with each of its steps run in *context*."""

    __slots__ = ("_context", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, R], context: contextvars.Context) -> None:
        self._coroutine = coroutine
        self._context = context

    def __await__(self) -> Generator[Any, Any, R]:
        step, value = self._coroutine.send, cast("Any", None)
        while True:
            try:
                awaited = self._context.run(step, value)
            except StopIteration as stop:
                return cast("R", stop.value)
            try:
                step, value = self._coroutine.send, (yield awaited)
            except GeneratorExit:
                self._context.run(self._coroutine.close)
                raise
            except BaseException as error:  # noqa: BLE001  # a cancellation, or what was awaited has failed: passed on
                step, value = self._coroutine.throw, error
