"""Task groups of anyio and trio run traced functions, each span below the one that started the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio
from opentelemetry.trace import StatusCode

from tracekit import traced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskStatus

    from tracekit.testing import CapturedSpans

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@traced("tasks.child")
async def child(number: int) -> None:
    await anyio.lowlevel.checkpoint()
    await grandchild()


@traced("tasks.grandchild")
async def grandchild() -> None:
    await anyio.lowlevel.checkpoint()


@traced("tasks.parent")
async def parent() -> None:
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(child, number)


async def test_tasks_of_a_group_are_children_of_the_operation_that_started_them(spans: CapturedSpans) -> None:
    await parent()
    assert len(spans.all("tasks.child")) == 3
    assert {span.parent for span in spans.all("tasks.child")} == {spans.one("tasks.parent")}
    assert {span.parent for span in spans.all("tasks.grandchild")} == {*spans.all("tasks.child")}


async def test_a_group_starts_a_traced_task_that_reports_when_it_is_ready(spans: CapturedSpans) -> None:
    @traced("tasks.serve")
    async def serve(port: int, *, task_status: TaskStatus[int]) -> None:
        task_status.started(port + 1)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        assert await group.start(serve, 80) == 81
        group.cancel_scope.cancel()
    served = spans.one("tasks.serve")
    assert served.readable.status.status_code is StatusCode.UNSET
    assert [event.name for event in served.events] == ["cancelled"]


async def test_a_failing_task_cancels_its_traced_siblings(spans: CapturedSpans) -> None:
    @traced("tasks.wait")
    async def wait() -> None:
        await anyio.sleep_forever()

    @traced("tasks.fail")
    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        msg = "out of stock"
        raise LookupError(msg)

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            group.start_soon(fail)

    # An ExceptionGroup, which Python 3.10 has no name for.
    with pytest.raises(Exception, match=r"unhandled errors|Exceptions from Trio nursery") as caught:
        await both()
    assert [type(exc) for exc in caught.value.exceptions] == [LookupError]
    assert spans.one("tasks.fail").readable.status.status_code is StatusCode.ERROR
    assert [event.name for event in spans.one("tasks.wait").events] == ["cancelled"]


async def test_a_deadline_cuts_a_traced_operation_short(spans: CapturedSpans) -> None:
    @traced("tasks.slow")
    async def slow() -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0) as scope:
        await slow()
    assert scope.cancelled_caught
    assert [event.name for event in spans.one("tasks.slow").events] == ["cancelled"]


async def test_traced_functions_go_to_a_thread_and_back(spans: CapturedSpans) -> None:
    @traced("threads.work")
    def work() -> int:
        anyio.from_thread.run(grandchild)
        return 7

    @traced("threads.outer")
    async def outer() -> int:
        return await anyio.to_thread.run_sync(work)

    assert await outer() == 7
    assert spans.one("threads.work").parent is spans.one("threads.outer")
    assert spans.one("tasks.grandchild").parent is spans.one("threads.work")


async def test_a_traced_async_generator_feeds_tasks(spans: CapturedSpans) -> None:
    @traced("feeds.numbers")
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        async for number in numbers():
            group.start_soon(child, number)
    assert spans.one("feeds.numbers").attributes["generator.items"] == 3
    assert {span.parent for span in spans.all("tasks.child")} == {None}


def test_trio_nurseries_run_traced_functions(spans: CapturedSpans) -> None:
    @traced("nursery.main")
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            nursery.start_soon(leaf)

    @traced("nursery.leaf")
    async def leaf() -> None:
        await trio.lowlevel.checkpoint()

    trio.run(main)
    assert spans.one("nursery.leaf").parent is spans.one("nursery.main")
