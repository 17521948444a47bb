"""Work on other threads runs in the context of whoever hands it on, and is otherwise as it would be."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FuturesTimeoutError
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.context import Context

import tracekit
from tracekit import ContextExecutor, current_span, propagate, set_baggage, traced, traced_block, use_context
from tracekit.errors import InstrumentationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

    from tracekit.testing import CapturedSpans

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


@traced("shop.work")
def work(number: int = 0) -> int:
    if number < 0:
        raise LookupError(number)
    return number * 2


@traced("shop.steps")
def steps(count: int) -> Generator[int, None, None]:
    for number in range(count):
        yield work(number)


def in_thread(func: Callable[[], Any]) -> None:
    thread = threading.Thread(target=func)
    thread.start()
    thread.join()


@pytest.fixture(autouse=True)
def _own_context_variables() -> Generator[None, None, None]:
    """Put back what tests set here: those of a plain test are pytest's own."""
    token = tenant.set("nobody")
    with use_context(Context()):
        yield
    tenant.reset(token)


def test_plain_thread_loses_the_context(spans: CapturedSpans) -> None:
    # The reason for all that follows. Free-threaded Python 3.14 inherits it.
    with traced_block("shop.main"):
        thread = threading.Thread(target=contextvars.Context().run, args=(work,))
        thread.start()
        thread.join()
    spans.assert_tree("shop.main\nshop.work")


def test_thread_continues_the_trace(spans: CapturedSpans) -> None:
    with traced_block("shop.main"):
        in_thread(propagate(work))
    spans.assert_tree("""
        shop.main
          shop.work
    """)


def test_subclass_of_thread_continues_the_trace(spans: CapturedSpans) -> None:
    class Worker(threading.Thread):
        def __init__(self) -> None:
            super().__init__()
            self._job = propagate(self.job)

        def job(self) -> None:
            work()

        def run(self) -> None:
            self._job()

    with traced_block("shop.main"):
        worker = Worker()
    worker.start()
    worker.join()
    spans.assert_tree("""
        shop.main
          shop.work
    """)


def test_timer_and_late_start_continue_a_trace_whose_span_has_ended(spans: CapturedSpans) -> None:
    with traced_block("shop.main"):
        timer = threading.Timer(0, propagate(work), args=(3,))
    assert spans.names == ["shop.main"]
    timer.start()
    timer.join()
    spans.assert_tree("""
        shop.main
          shop.work  number=3
    """)


def test_all_context_variables_are_carried() -> None:
    seen: list[tuple[str, str | None]] = []
    tenant.set("acme")
    set_baggage("experiment", "b")
    func = propagate(lambda: seen.append((tenant.get(), tracekit.get_baggage("experiment"))))
    tenant.set("later")
    in_thread(func)
    assert seen == [("acme", "b")]


def test_calls_do_not_see_what_other_calls_have_set() -> None:
    def change(name: str) -> str:
        before = tenant.get()
        tenant.set(name)
        return before

    func = propagate(change)
    assert [func("a"), func("b")] == ["nobody", "nobody"]
    assert tenant.get() == "nobody"


def test_calls_may_overlap_and_call_themselves(spans: CapturedSpans) -> None:
    together = threading.Barrier(4)

    def meet(depth: int = 1) -> None:
        together.wait(10)
        if depth:
            func(depth - 1)
        else:
            work()

    with traced_block("shop.main"):
        func = propagate(meet)
    threads = [threading.Thread(target=func) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [span.parent for span in spans.all("shop.work")] == [spans.one("shop.main")] * 4


def test_outside_of_a_trace_a_trace_is_left(spans: CapturedSpans) -> None:
    func = propagate(work)
    with traced_block("shop.main"):
        func()
    assert spans.one("shop.work").parent is None


def test_propagated_function_still_says_what_it_is() -> None:
    def quote(order_id: int, *, currency: str = "EUR") -> float:
        """Return a price."""
        return float(order_id)

    func = propagate(quote)
    assert (func.__name__, func.__doc__) == ("quote", "Return a price.")
    assert inspect.signature(func) == inspect.signature(quote)
    assert func(3, currency="USD") == 3.0


@pytest.mark.parametrize(
    "func",
    [
        functools.partial(work, 4),
        type("Job", (), {"__call__": lambda _self: work(4)})(),
        type("Job", (), {"run": lambda _self: work(4)})().run,
        traced(lambda: work(4)),
    ],
    ids=["partial", "callable object", "method", "traced"],
)
def test_any_callable_can_be_propagated(func: Callable[[], int], spans: CapturedSpans) -> None:
    with traced_block("shop.main"):
        propagated = propagate(func)
    assert propagated() == 8
    assert {span.trace_id for span in spans} == {spans.one("shop.main").trace_id}


def test_class_can_be_propagated() -> None:
    assert propagate(int)("7") == 7


def _generator() -> Generator[int, None, None]:
    yield 1


async def _async_generator() -> AsyncGenerator[int, None]:
    yield 1


@pytest.mark.parametrize("given", [_generator, _async_generator, steps, functools.partial(_generator), 7, None])
def test_what_has_steps_of_its_own_or_cannot_be_called_is_refused(given: Any) -> None:
    with pytest.raises(InstrumentationError, match=r"expected a function or coroutine function. .*[wW]rite propagate"):
        propagate(given)


def test_exception_passes_untouched(spans: CapturedSpans) -> None:
    error = LookupError("gone")

    def fail() -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        propagate(fail)()
    assert caught.value is error
    assert (error.__context__, error.__cause__) == (None, None)
    with ContextExecutor(ThreadPoolExecutor(1)) as pool:
        assert pool.submit(fail).exception() is error


def test_submitted_work_belongs_to_the_span_that_submits_it(spans: CapturedSpans) -> None:
    with ContextExecutor(ThreadPoolExecutor(2)) as pool:
        for name in ("shop.first", "shop.second"):
            with traced_block(name):
                assert [future.result() for future in [pool.submit(work, n) for n in (1, 2)]] == [2, 4]
        pool.submit(work).result()
    for name in ("shop.first", "shop.second"):
        assert [span.name for span in spans.one(name).children] == ["shop.work", "shop.work"]
    assert [span.name for span in spans.roots] == ["shop.first", "shop.second", "shop.work"]


def test_mapped_work_belongs_to_the_span_that_maps(spans: CapturedSpans) -> None:
    with ContextExecutor(ThreadPoolExecutor(2)) as pool:
        with traced_block("shop.main"):
            results = pool.map(lambda a, b: work(a + b), range(5), range(5), timeout=30, chunksize=2)
        with traced_block("shop.other"):
            assert list(results) == [0, 4, 8, 12, 16]
    assert len(spans.one("shop.main").children) == 5
    assert not spans.one("shop.other").children


def test_map_waits_no_longer_than_its_timeout() -> None:
    release = threading.Event()
    with ContextExecutor(ThreadPoolExecutor(1)) as pool:
        try:
            with pytest.raises(FuturesTimeoutError):
                next(pool.map(lambda _: release.wait(30), [1], timeout=0.01))
        finally:
            release.set()


def test_cancellation_is_the_executors_own() -> None:
    release = threading.Event()
    pool = ContextExecutor(ThreadPoolExecutor(1))
    running, waiting, dropped = pool.submit(release.wait, 30), pool.submit(work), pool.submit(work)
    assert waiting.cancel()
    assert not running.cancel()
    release.set()
    pool.shutdown(wait=True, cancel_futures=True)
    assert dropped.done()
    with pytest.raises(CancelledError):
        waiting.result()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(work)


def test_submitting_a_generator_function_gives_its_generator(spans: CapturedSpans) -> None:
    with ContextExecutor(ThreadPoolExecutor(1)) as pool, traced_block("shop.main"):
        assert list(pool.submit(steps, 2).result()) == [0, 2]
    spans.assert_tree("""
        shop.main
          shop.steps
            shop.work
            shop.work
    """)


def test_arguments_called_as_ours_reach_the_function() -> None:
    def echo(**given: int) -> dict[str, int]:
        return given

    with ContextExecutor(ThreadPoolExecutor(1)) as pool:
        assert pool.submit(echo, self=1, fn=2, func=3).result() == {"self": 1, "fn": 2, "func": 3}
    assert propagate(echo)(self=1, func=2) == {"self": 1, "func": 2}


@pytest.mark.parametrize("given", [None, 4, ThreadPoolExecutor])
def test_what_is_no_executor_is_refused(given: Any) -> None:
    with pytest.raises(InstrumentationError, match=r"Write ContextExecutor\(ThreadPoolExecutor\(8\)\)"):
        ContextExecutor(given)


def test_executor_with_options_of_its_own_gets_them() -> None:
    class Own(Executor):
        def shutdown(self, wait: bool = True, kill_workers: bool = False) -> None:  # type: ignore[override]  # as loky's
            self.was_told = (wait, kill_workers)

    own = Own()
    ContextExecutor(own).shutdown(wait=False, kill_workers=True)
    assert own.was_told == (False, True)


@pytest.mark.anyio
async def test_run_in_executor_belongs_to_the_task_that_asks(spans: CapturedSpans) -> None:
    loop = asyncio.get_running_loop()
    with ContextExecutor(ThreadPoolExecutor(2)) as pool:

        async def ask(name: str) -> None:
            with traced_block(name):
                assert await loop.run_in_executor(pool, work, 4) == 8
                await loop.run_in_executor(None, propagate(work), 4)

        await asyncio.gather(ask("shop.first"), ask("shop.second"))
    assert [len(spans.one(name).children) for name in ("shop.first", "shop.second")] == [2, 2]


def test_generator_is_stepped_by_several_threads_in_its_own_trace(spans: CapturedSpans) -> None:
    with traced_block("shop.main"):
        generator = steps(3)
        next(generator)
        with ContextExecutor(ThreadPoolExecutor(1)) as pool:
            assert pool.submit(next, generator).result() == 2
        in_thread(lambda: next(generator))
        in_thread(generator.close)
        work(9)
    spans.assert_tree("""
        shop.main
          shop.steps
            shop.work  number=0
            shop.work  number=1
            shop.work  number=2
          shop.work  number=9
    """)
    assert not current_span().get_span_context().is_valid


# Coroutine functions


def run_elsewhere(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run *coroutine* in a loop of its own, in no trace."""
    return contextvars.Context().run(asyncio.run, coroutine)


def test_coroutine_function_runs_in_the_context_of_who_propagates_it(spans: CapturedSpans) -> None:
    async def job(number: int) -> tuple[str, int]:
        await asyncio.sleep(0)
        nested = await asyncio.gather(asyncio.to_thread(work, number), asyncio.to_thread(work, number))
        return tenant.get(), sum(nested)

    async def main() -> None:
        queue: asyncio.Queue[Callable[[int], Coroutine[Any, Any, tuple[str, int]]]] = asyncio.Queue()

        async def consume() -> None:
            for name in ("first", "second"):
                assert await (await queue.get())(1) == (name, 4)
                assert tenant.get() == "nobody"

        consumer = asyncio.create_task(consume())
        for name in ("first", "second"):
            tenant.set(name)
            with traced_block(f"shop.{name}"):
                queue.put_nowait(propagate(job))
        await consumer

    assert inspect.iscoroutinefunction(propagate(job))
    run_elsewhere(main())
    assert [len(span.children) for span in spans.roots] == [2, 2]


def test_cancelled_coroutine_cleans_up_in_its_context(spans: CapturedSpans) -> None:
    seen: list[str] = []

    async def job() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append(tenant.get())
            raise

    async def main() -> None:
        tenant.set("acme")
        func = propagate(job)
        tenant.set("other")
        task = asyncio.create_task(func())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_elsewhere(main())
    assert seen == ["acme"]


def test_coroutine_closed_before_its_end_cleans_up_in_its_context() -> None:
    seen: list[str] = []

    class Never:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def job() -> None:
        try:
            await Never()
        finally:
            seen.append(tenant.get())

    context = contextvars.copy_context()
    context.run(tenant.set, "acme")
    coroutine = context.run(propagate, job)()
    coroutine.send(None)
    coroutine.close()
    assert seen == ["acme"]


def test_exception_of_a_coroutine_passes_untouched() -> None:
    error = LookupError("gone")

    async def job() -> None:
        await asyncio.sleep(0)
        raise error

    async def main() -> None:
        with pytest.raises(LookupError) as caught:
            await propagate(job)()
        assert caught.value is error

    run_elsewhere(main())
    assert (error.__context__, error.__cause__) == (None, None)
