"""Tasks and callbacks of asyncio, anyio and trio have the right parents as they are; `spawn` has none."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from tracekit import (
    current_span,
    current_trace_id,
    get_baggage,
    propagate,
    remote_parent,
    set_baggage,
    spawn,
    traced,
    traced_block,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tracekit.testing import CapturedSpans

pytestmark = pytest.mark.anyio

CHILDREN = """
    shop.main
      shop.work
      shop.work
"""


@traced("shop.work")
async def work() -> str | None:
    await anyio.lowlevel.checkpoint()
    return current_trace_id()


@traced("shop.work")
def sync_work() -> str | None:
    return current_trace_id()


# As they are


async def test_asyncio_tasks_are_children(spans: CapturedSpans) -> None:
    with traced_block("shop.main"):
        await asyncio.gather(work(), asyncio.create_task(work()))
    spans.assert_tree(CHILDREN)


async def test_task_that_outlives_its_parents_span_is_its_child(spans: CapturedSpans) -> None:
    with traced_block("shop.main"):
        tasks = [asyncio.create_task(work()) for _ in range(2)]
    await asyncio.gather(*tasks)
    assert spans.names[0] == "shop.main"
    spans.assert_tree(CHILDREN)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with Python 3.11")
async def test_tasks_of_a_task_group_are_children(spans: CapturedSpans) -> None:
    with traced_block("shop.main"):
        async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]  # checked as Python 3.10
            group.create_task(work())
            group.create_task(work())
    spans.assert_tree(CHILDREN)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with Python 3.11")
async def test_task_cancelled_by_its_group_is_no_failure(spans: CapturedSpans) -> None:
    @traced("shop.wait")
    async def wait() -> None:
        await asyncio.sleep(30)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    @traced("shop.main")
    async def both() -> None:
        async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]  # checked as Python 3.10
            group.create_task(wait())
            group.create_task(fail())

    # No ExceptionGroup by name, which Python 3.10 does not have.
    with pytest.raises(Exception, match="unhandled errors"):
        await both()
    assert spans.one("shop.wait").status.is_unset
    assert [event.name for event in spans.one("shop.wait").events] == ["cancelled"]
    assert not spans.one("shop.main").status.is_ok


async def test_callbacks_are_children(spans: CapturedSpans) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    with traced_block("shop.main"):
        loop.call_soon(sync_work)
        future = loop.create_future()
        future.add_done_callback(lambda _: sync_work())
        loop.call_later(0, future.set_result, None)
        loop.call_later(0.001, done.set)
    await done.wait()
    await future
    spans.assert_tree(CHILDREN)


async def test_call_soon_threadsafe_from_a_raw_thread_is_a_child_when_propagated(spans: CapturedSpans) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    with traced_block("shop.main"):
        jobs = [propagate(sync_work), propagate(sync_work), done.set]
    thread = threading.Thread(target=lambda: [loop.call_soon_threadsafe(job) for job in jobs])
    thread.start()
    await done.wait()
    thread.join()
    spans.assert_tree(CHILDREN)


async def test_coroutine_run_from_another_thread_is_a_child(spans: CapturedSpans) -> None:
    loop = asyncio.get_running_loop()

    def from_thread() -> None:
        asyncio.run_coroutine_threadsafe(work(), loop).result(10)
        anyio.from_thread.run(work)

    with traced_block("shop.main"):
        await anyio.to_thread.run_sync(from_thread)
    spans.assert_tree(CHILDREN)


async def test_to_thread_is_a_child(spans: CapturedSpans) -> None:
    with traced_block("shop.main"):
        await asyncio.to_thread(sync_work)
        await anyio.to_thread.run_sync(sync_work)
    spans.assert_tree(CHILDREN)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_tasks_of_an_anyio_group_are_children(spans: CapturedSpans) -> None:
    with traced_block("shop.main"):
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            group.start_soon(anyio.to_thread.run_sync, sync_work)
    spans.assert_tree(CHILDREN)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_tasks_of_a_trio_nursery_are_children(spans: CapturedSpans) -> None:
    trio = pytest.importorskip("trio")
    with traced_block("shop.main"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await trio.to_thread.run_sync(sync_work)
    spans.assert_tree(CHILDREN)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_propagated_coroutine_function_works_in_every_library(spans: CapturedSpans) -> None:
    async def job() -> None:
        with anyio.move_on_after(0.001):
            await anyio.sleep(30)
        await work()
        await anyio.to_thread.run_sync(sync_work)

    with traced_block("shop.main"):
        func = propagate(job)
    async with anyio.create_task_group() as group:
        group.start_soon(func)
    spans.assert_tree(CHILDREN)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_streams_and_blocks_across_tasks_keep_their_own_traces(spans: CapturedSpans) -> None:
    @traced("shop.stream")
    async def stream(name: str) -> AsyncGenerator[str, None]:
        for _ in range(2):
            await anyio.lowlevel.checkpoint()
            with traced_block("shop.step", {"name": name}):
                await anyio.to_thread.run_sync(sync_work)
            yield name

    @asynccontextmanager
    async def session(name: str) -> AsyncIterator[None]:
        async with traced_block("shop.session", {"name": name}):
            yield

    async def request(name: str) -> None:
        async with traced_block("shop.request", {"name": name}) as span, session(name):
            async for item in stream(name):
                assert item == name
                with traced_block("shop.consume", {"name": name}):
                    await anyio.lowlevel.checkpoint()
            assert current_trace_id() == f"{span.get_span_context().trace_id:032x}"

    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(request, name)
    assert len(spans.roots) == 3
    for root in spans.roots:
        of_trace = [span for span in spans if span.trace_id == root.trace_id]
        assert {span.attributes.get("name") for span in of_trace if span.name != "shop.work"} == {
            root.attributes["name"]
        }
        assert {(span.name, getattr(span.parent, "name", None)) for span in of_trace} == {
            ("shop.request", None),
            ("shop.session", "shop.request"),
            ("shop.stream", "shop.session"),
            ("shop.consume", "shop.session"),
            ("shop.step", "shop.stream"),
            ("shop.work", "shop.step"),
        }


# spawn


async def test_spawned_task_is_in_a_trace_of_its_own_linked_to_the_span_that_started_it(spans: CapturedSpans) -> None:
    with traced_block("shop.main"):
        trace_id = await spawn(work())
        assert current_trace_id() != trace_id
    main, spawned = spans.one("shop.main"), spans.one("shop.work")
    assert spawned.parent is None
    assert [link.context for link in spawned.links] == [main.context]


async def test_every_trace_of_a_long_lived_task_is_linked_and_what_is_below_is_not(spans: CapturedSpans) -> None:
    @traced("shop.round")
    async def one_round() -> None:
        await work()

    async def for_ever() -> None:
        assert not current_span().get_span_context().is_valid
        for _ in range(2):
            await asyncio.gather(one_round(), one_round())

    with traced_block("shop.main") as main:
        await spawn(for_ever())
    assert len({span.trace_id for span in spans}) == 5
    assert [[link.context for link in span.links] for span in spans.all("shop.round")] == [
        [main.get_span_context()]
    ] * 4
    assert not any(span.links for span in spans.all("shop.work"))


async def test_spawned_task_continues_the_trace_of_a_message_without_a_link(spans: CapturedSpans) -> None:
    async def consume() -> None:
        with remote_parent({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}):
            await work()

    with traced_block("shop.main"):
        await spawn(consume())
    assert spans.one("shop.work").trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736
    assert not spans.one("shop.work").links


async def test_block_with_a_service_of_its_own_in_a_spawned_task(spans: CapturedSpans) -> None:
    async def job() -> None:
        with traced_block("validate"):
            pass

    with traced_block("orders.create"):
        await spawn(job())
    # The service of the enclosing operation would be "orders", and there is none.
    spans.one("test_concurrency_tasks.validate")


async def test_task_spawned_by_a_spawned_task_is_linked_to_what_started_it(spans: CapturedSpans) -> None:
    async def outer() -> None:
        await spawn(work())
        with traced_block("shop.outer"):
            await spawn(work())

    with traced_block("shop.main"):
        await spawn(outer())
    first, second = spans.all("shop.work")
    assert [link.context for link in first.links] == [spans.one("shop.main").context]
    assert [link.context for link in second.links] == [spans.one("shop.outer").context]


async def test_task_spawned_outside_of_a_trace_has_no_links(spans: CapturedSpans) -> None:
    await spawn(work())
    assert not spans.one("shop.work").links


async def test_spawned_task_inherits_baggage_and_changes_nothing_where_it_starts(spans: CapturedSpans) -> None:
    async def job() -> str | None:
        set_baggage("job", "1")
        return get_baggage("tenant")

    with traced_block("shop.main") as span:
        set_baggage("tenant", "acme")
        assert await spawn(job()) == "acme"
        assert get_baggage("job") is None
        assert current_span() is span


async def test_spawned_task_has_its_name_result_and_error() -> None:
    async def job() -> int:
        return 7

    async def fail() -> None:
        raise LookupError

    task = spawn(job(), name="refresh")
    assert task.get_name() == "refresh"
    assert await task == 7
    failing = spawn(fail())
    with pytest.raises(LookupError):
        await failing


async def test_spawned_task_can_be_cancelled(spans: CapturedSpans) -> None:
    @traced("shop.wait")
    async def wait() -> None:
        await asyncio.sleep(30)

    task = spawn(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert spans.one("shop.wait").status.is_unset


async def test_spawned_task_lives_until_it_is_done_and_no_longer() -> None:
    finished: list[bool] = []

    def waiting() -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            await future
            finished.append(True)

        tasks.append(weakref.ref(spawn(wait())))
        # The task hangs on nothing but itself: a loop knows its tasks and a future its waiter weakly or in a circle.
        return future

    tasks: list[weakref.ref[asyncio.Task[None]]] = []
    future = weakref.ref(waiting())
    await asyncio.sleep(0)
    gc.collect()
    alive = future()
    assert alive is not None
    alive.set_result(None)
    del alive
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert finished == [True]
    gc.collect()
    assert tasks[0]() is None


async def test_spawned_task_does_not_keep_the_span_that_started_it_alive(spans: CapturedSpans) -> None:
    future = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await future

    with traced_block("shop.main"):
        span = weakref.ref(current_span())
        task = spawn(wait())
    await asyncio.sleep(0)
    gc.collect()
    assert span() is None
    future.set_result(None)
    await task


async def test_error_nobody_asks_for_is_reported_as_asyncio_does() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reported.append(report))

    async def fail() -> None:
        raise LookupError

    spawn(fail())
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert [report["message"] for report in reported] == ["Task exception was never retrieved"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_eager_task_is_in_a_trace_of_its_own_and_leaves_the_current_one_alone(spans: CapturedSpans) -> None:
    @traced("shop.eager")
    async def eager() -> str | None:
        return current_trace_id()

    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]  # checked as Python 3.10
    try:
        with traced_block("shop.main") as span:
            task = spawn(eager())
            assert current_span() is span
            assert await task != current_trace_id()
    finally:
        loop.set_task_factory(None)
    assert [link.context for link in spans.one("shop.eager").links] == [spans.one("shop.main").context]


def test_spawn_without_a_loop_is_asyncios_error() -> None:
    coroutine = work()
    with pytest.raises(RuntimeError, match="no running event loop"):
        spawn(coroutine)
    coroutine.close()
