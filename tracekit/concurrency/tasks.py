"""`spawn`: an asyncio task that does not live in the trace of whoever starts it."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tracekit._relations import begin_new_traces

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

T = TypeVar("T")

# asyncio holds tasks weakly: one that nobody holds may vanish while it runs.
_running: Final[set[asyncio.Task[Any]]] = set()


def spawn(coro: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """
    Start *coro* as an asyncio task outside of the current trace: for what lives longer than the request that starts it.

    It has no span itself. Each traced operation that begins in there has a new trace, linked to the span that is
    current now. Baggage and all other context variables are inherited, and the task is kept alive until it is done.

    Args:
        coro: A coroutine: `refresh(cache)`.
        name: The task's name.

    Raises:
        RuntimeError: No event loop runs.
    """
    import asyncio

    context = contextvars.copy_context()
    context.run(begin_new_traces)
    # Run in there, and not given as `context=`, which came with Python 3.11.
    task = context.run(asyncio.create_task, coro, name=name)
    _running.add(task)
    # In an empty context: that of the request would live as long as the task.
    task.add_done_callback(_running.discard, context=contextvars.Context())
    return task
