"""`ContextExecutor`: an executor whose work runs in the context of whoever submits it."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, final

from tracekit.concurrency.propagating import PropagatedFunction
from tracekit.errors import InstrumentationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

P = ParamSpec("P")
R = TypeVar("R")


@final
class ContextExecutor(Executor):
    """
    Runs work in *executor*, in the context of whoever submits it: `ContextExecutor(ThreadPoolExecutor(8))`.

    Works with any `concurrent.futures.Executor`: threads, processes, interpreters, loky's, Dask's. Futures, results,
    exceptions and cancellation are those of *executor*. Worker processes are set up as this one is by `configure`.

    Args:
        executor: Runs the work; shut down with this one.

    Raises:
        InstrumentationError: It is no executor.
    """

    def __init__(self, executor: Executor) -> None:
        given: object = executor
        if not isinstance(given, Executor):  # pyright: ignore[reportUnnecessaryIsInstance]  # narrowed to what is declared
            msg = (
                f"ContextExecutor got {given!r:.100}, expected a concurrent.futures.Executor. "
                f"Write ContextExecutor(ThreadPoolExecutor(8))."
            )
            raise InstrumentationError(msg)
        self._executor: Final = executor

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit *fn* to be run in the current context."""
        return self._executor.submit(PropagatedFunction(fn, copy_context()), *args, **kwargs)

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[R]:
        """
        Return an iterator over the results of *fn*, run in the current context for each item.

        Args:
            fn: Called with one item of each iterable.
            iterables: The arguments.
            timeout: Longest wait for a result, in seconds from now.
            chunksize: Items that go to a worker process at once.
            options: What else the executor knows, such as `buffersize` (Python 3.14).
        """
        propagated = PropagatedFunction(fn, copy_context())
        return self._executor.map(propagated, *iterables, timeout=timeout, chunksize=chunksize, **options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, **options: Any) -> None:  # noqa: FBT001, FBT002  # as in the standard library
        """
        Shut the executor down.

        Args:
            wait: Until the work is done.
            cancel_futures: Cancel what has not begun.
            options: What else the executor knows, such as loky's `kill_workers`.
        """
        if cancel_futures:
            options["cancel_futures"] = True  # loky does not know it
        self._executor.shutdown(wait, **options)
