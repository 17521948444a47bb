"""The current OpenTelemetry context, read and replaced at the cost of the context variable that holds it."""

from __future__ import annotations

import contextvars
import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat, starmap
from typing import Any, Final

from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

# Under this key a context holds the ActiveSpan it was made for.
ACTIVE_KEY: Final = "tracekit-active-span"
# What an ActiveSpan that was left keeps as the context around it.
LEFT: Final = Context()
# The key under which a context holds its span, asked of the public function that writes it.
SPAN_KEY: Final[str] = next(iter(trace_api.set_span_in_context(trace_api.INVALID_SPAN, Context())))


def _access() -> tuple[Callable[[], Context], Callable[[Context], Any]]:
    # The public functions cost 0.15 µs more a call than the variable; any other runtime context goes through them.
    runtime_context: object = getattr(context_api, "_RUNTIME_CONTEXT", None)
    if type(runtime_context) is ContextVarsRuntimeContext:
        variable = runtime_context._current_context  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return variable.get, variable.set
    return context_api.get_current, context_api.attach


# Replacing needs no token: who leaves looks first whether the context is still its own (see _span.ActiveSpan.leave).
current_context, replace_context = _access()


def enclosing(context: Context) -> Iterator[tuple[Any, Context]]:
    """Yield the active spans that *context* is inside of, innermost first, each with the context around it."""
    seen: set[int] = set()
    active: Any = context.get(ACTIVE_KEY)
    while active is not None and id(active) not in seen:
        seen.add(id(active))
        context = active.outside
        yield active, context
        active = context.get(ACTIVE_KEY)


def has_left(active: Any) -> bool:
    """Tell whether the active span *active* was left."""
    return active.outside is LEFT


def come_back_to(active: Any, context: Context, *, instead_of: Context) -> None:
    """Have the active span *active* put *context* in place when it is left, if that were *instead_of*."""
    if active.outside is instead_of:
        active.outside = context


if sys.version_info < (3, 12):
    # There a garbage collection may begin in the middle of `ContextVar.set`, which holds no reference to what it is
    # copying. A generator collected in it that sets a context variable too, as those with a span do, frees that memory:
    # the process crashes. So that stays alive until the next collection but one. (From 3.12 on collections wait.)
    #
    # All of it in C: a Ctrl-C that Python code gets while it is called by the collector is printed and forgotten. So
    # the collector, which calls with its phase, gets an attribute: the next of an iterator that holds a context.
    _held: Final[deque[contextvars.Context]] = deque(maxlen=2)

    class _Holding(map):  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument]  # not before 3.14
        start = property(next)

    gc.callbacks.append(partial(getattr, _Holding(_held.append, starmap(contextvars.copy_context, repeat(())))))
