"""Traced async generators: every answer as without the decorator, one span from first step to last, no leaks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio
from hypothesis import given, settings
from opentelemetry.trace import StatusCode
from strategies import Body, Step, async_answer, async_finish, bodies, steps

from tracekit import current_span_id, traced, traced_block
from tracekit.testing import CapturedSpans, capture_spans

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable


@settings(max_examples=300)
@given(bodies(is_async=True), steps(is_async=True))
def test_any_sequence_of_steps_gets_the_answers_of_the_plain_generator(body: Body, taken: list[Step]) -> None:
    plain_log: list[object] = []
    traced_log: list[object] = []
    seen: set[str | None] = set()

    def current() -> str:
        seen.add(current_span_id())
        return "current"

    plain = body.make(plain_log.append, lambda: "current")()
    expected = [async_answer(plain, step) for step in taken]
    async_finish(plain)
    del plain
    with capture_spans() as spans, traced_block("test.consumer"):
        own = current_span_id()
        generator = traced("test.body")(body.make(traced_log.append, current))()
        actual: list[object] = []
        for step in taken:
            actual.append(async_answer(generator, step))
            assert current_span_id() == own
        async_finish(generator)
        del generator
        assert current_span_id() == own
    assert actual == expected
    assert traced_log == plain_log
    ended = [f"{span.span_id:016x}" for span in spans.all("test.body")]
    assert len(ended) == ("started" in plain_log)
    assert seen <= set(ended)


@traced("test.count")
async def count(to: int = 3) -> AsyncIterator[str | None]:
    for _ in range(to):
        await asyncio.sleep(0)
        yield current_span_id()


@traced("test.echo")
async def echo() -> AsyncGenerator[Any, Any]:
    got = None
    while got != "stop":
        try:
            got = yield got
        except ValueError as exc:
            got = exc.args


@pytest.mark.anyio
async def test_span_lasts_from_the_first_step_to_exhaustion(spans: CapturedSpans) -> None:
    generator = count(2)
    assert await generator.__anext__()
    assert await generator.__anext__()
    assert not spans
    assert [item async for item in generator] == []
    span = spans.one("test.count")
    assert span.status.status_code is StatusCode.OK
    assert span.attributes["generator.items"] == 2


@pytest.mark.anyio
async def test_span_is_current_in_the_body_only(spans: CapturedSpans) -> None:
    with traced_block("test.consumer"):
        own = current_span_id()
        inside = set()
        async for seen in count():
            inside.add(seen)
            assert current_span_id() == own
        assert current_span_id() == own
    assert inside == {f"{spans.one('test.count').span_id:016x}"}
    spans.assert_tree(
        """
        test.consumer
          test.count  generator.items=3
        """
    )


@pytest.mark.anyio
async def test_spans_made_by_the_body_are_its_children_and_those_of_the_consumer_are_not(spans: CapturedSpans) -> None:
    @traced("test.body")
    async def body() -> AsyncIterator[int]:
        async with traced_block("test.inner"):
            await asyncio.sleep(0)
            yield 1

    with traced_block("test.consumer"):
        async for _ in body():
            with traced_block("test.outer"):
                pass
    spans.assert_tree(
        """
        test.consumer
          test.body
            test.inner
          test.outer
        """
    )


@pytest.mark.anyio
async def test_asend_reaches_the_body(spans: CapturedSpans) -> None:
    generator = echo()
    assert await generator.asend(None) is None
    assert await generator.asend("hello") == "hello"
    with pytest.raises(StopAsyncIteration):
        await generator.asend("stop")
    assert spans.one("test.echo").status.status_code is StatusCode.OK


@pytest.mark.anyio
async def test_athrow_reaches_the_body(spans: CapturedSpans) -> None:
    generator = echo()
    await generator.asend(None)
    assert await generator.athrow(ValueError("in")) == ("in",)
    await generator.aclose()


@pytest.mark.anyio
async def test_aclose_runs_the_finally_of_the_body_at_once_in_its_span(spans: CapturedSpans) -> None:
    left: list[str | None] = []

    @traced("test.body")
    async def body() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            left.append(current_span_id())

    generator = body()
    await generator.__anext__()
    await generator.aclose()
    assert left == [f"{spans.one('test.body').span_id:016x}"]


@pytest.mark.anyio
async def test_closed_early_leaves_the_status_unset_and_says_cancelled(spans: CapturedSpans) -> None:
    generator = count()
    await generator.__anext__()
    await generator.aclose()
    span = spans.one("test.count")
    assert span.status.status_code is StatusCode.UNSET
    assert [event.name for event in span.events] == ["cancelled"]
    assert span.attributes["generator.items"] == 1


@pytest.mark.anyio
async def test_closed_in_another_task_changes_no_context(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    async def close(generator: AsyncGenerator[Any, Any]) -> None:
        with traced_block("test.closing"):
            own = current_span_id()
            await generator.aclose()
            assert current_span_id() == own

    with traced_block("test.consumer"):
        own = current_span_id()
        generator = count()
        await generator.__anext__()
        await asyncio.create_task(close(generator))
        assert current_span_id() == own
    assert spans.one("test.count").status.status_code is StatusCode.UNSET
    assert not caplog.records


@pytest.mark.anyio
async def test_broken_out_of_ends_when_collected_and_leaves_the_context_right(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()

    @traced("test.body")
    async def body() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            ended.set()

    with traced_block("test.consumer"):
        own = current_span_id()
        async for _ in body():
            break
        gc.collect()
        await ended.wait()
        await asyncio.sleep(0)
        assert current_span_id() == own
    assert spans.one("test.body").status.status_code is StatusCode.UNSET
    assert not caplog.records


@pytest.mark.anyio
async def test_each_step_may_run_in_a_task_of_its_own(spans: CapturedSpans) -> None:
    with traced_block("test.consumer"):
        own = current_span_id()
        generator = count()
        seen = [await asyncio.create_task(_step(generator)) for _ in range(3)]
        assert current_span_id() == own
    await generator.aclose()
    assert set(seen) == {f"{spans.one('test.count').span_id:016x}"}
    assert spans.one("test.count").parent is spans.one("test.consumer")


@pytest.mark.anyio
async def test_interleaved_generators_keep_their_parents_and_the_context(spans: CapturedSpans) -> None:
    with traced_block("test.consumer"):
        own = current_span_id()
        first, second = count(), count()
        seen = [await _step(generator) for generator in (first, second, first, second)]
        assert seen[0] == seen[2] != seen[1] == seen[3]
        await first.aclose()
        assert current_span_id() == own
        await second.aclose()
        assert current_span_id() == own
    spans.assert_tree(
        """
        test.consumer
          test.count
          test.count
        """
    )


@pytest.mark.anyio
async def test_generators_consumed_by_tasks_at_once_stay_apart(spans: CapturedSpans) -> None:
    async def consume(number: int) -> None:
        with traced_block(f"test.consumer_{number}"):
            async for _ in count(number):
                await asyncio.sleep(0)

    await asyncio.gather(*(consume(number) for number in range(1, 6)))
    for number in range(1, 6):
        (child,) = spans.one(f"test.consumer_{number}").children
        assert child.attributes["generator.items"] == number


@pytest.mark.anyio
async def test_step_that_times_out_is_cancelled_without_touching_the_context(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    @traced("test.body")
    async def body() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()
        yield 2

    with traced_block("test.consumer"):
        own = current_span_id()
        generator = body()
        # A task of its own on CPython 3.10 and 3.11.
        assert await asyncio.wait_for(generator.__anext__(), 10) == 1
        assert current_span_id() == own
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(generator.__anext__(), 0.01)
        assert current_span_id() == own
    span = spans.one("test.body")
    assert span.status.status_code is StatusCode.UNSET
    assert [event.name for event in span.events] == ["cancelled"]
    assert span.parent is spans.one("test.consumer")
    assert not caplog.records


def test_left_open_it_ends_with_its_event_loop(spans: CapturedSpans, caplog: pytest.LogCaptureFixture) -> None:
    left = []
    kept = []

    @traced("test.body")
    async def body() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            left.append(current_span_id())

    async def main() -> None:
        generator = body()
        kept.append(generator)
        await generator.__anext__()

    asyncio.run(main())  # calls loop.shutdown_asyncgens()
    assert left == [f"{spans.one('test.body').span_id:016x}"]
    assert not caplog.records


def test_collected_in_a_cycle_it_is_closed_by_its_event_loop(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    left = []

    @traced("test.body")
    async def body() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            left.append("closed")

    async def main() -> None:
        generator = body()
        await generator.__anext__()
        cycle: list[object] = [generator]
        cycle.append(cycle)
        del generator, cycle
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert left == ["closed"]
    assert (spans.names, spans.still_open) == (["test.body"], [])
    assert not caplog.records


@pytest.mark.anyio
async def test_error_in_the_body_is_recorded_once_and_reaches_the_consumer(spans: CapturedSpans) -> None:
    error = ValueError("bad")

    @traced("test.body")
    async def body() -> AsyncIterator[int]:
        yield 1
        raise error

    with pytest.raises(ValueError, match="bad") as caught:
        [item async for item in body()]
    assert caught.value is error
    assert error.__context__ is None
    span = spans.one("test.body")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError: bad")
    assert span.event("exception")


@pytest.mark.anyio
async def test_never_iterated_has_no_span(spans: CapturedSpans) -> None:
    generator = count()
    await generator.aclose()
    unused = count()
    del unused
    gc.collect()
    assert not spans


@pytest.mark.anyio
async def test_parent_is_the_span_of_the_first_step_not_of_the_call(spans: CapturedSpans) -> None:
    with traced_block("test.calls"):
        generator = count(1)
    with traced_block("test.steps"):
        assert len([item async for item in generator]) == 1
    assert spans.one("test.count").parent is spans.one("test.steps")


@pytest.mark.anyio
async def test_context_manager_made_of_it_is_traced_from_enter_to_exit(spans: CapturedSpans) -> None:
    @contextlib.asynccontextmanager
    @traced("test.managed")
    async def managed() -> AsyncIterator[str]:
        try:
            yield "value"
        except ValueError:
            return

    with traced_block("test.consumer"):
        own = current_span_id()
        async with managed() as value:
            assert value == "value"
            assert current_span_id() == own
            assert not spans
            raise ValueError
    assert spans.one("test.managed").status.status_code is StatusCode.OK


@pytest.mark.anyio
async def test_nothing_that_was_yielded_or_thrown_is_kept_alive(spans: CapturedSpans) -> None:
    class Chunk:
        pass

    @traced("test.body")
    async def body() -> AsyncGenerator[Chunk, None]:
        with contextlib.suppress(ValueError):
            yield Chunk()
        yield Chunk()

    generator = body()
    chunk = weakref.ref(await generator.__anext__())
    assert chunk() is None
    error = ValueError()
    await generator.athrow(error)
    # The name here, and the argument of getrefcount.
    assert sys.getrefcount(error) == 2
    await generator.aclose()


@pytest.mark.anyio
async def test_second_step_during_a_step_is_refused_by_python_as_ever(spans: CapturedSpans) -> None:
    started = asyncio.Event()

    @traced("test.body")
    async def body() -> AsyncIterator[int]:
        started.set()
        await asyncio.sleep(0)
        yield 1

    generator = body()
    step = asyncio.create_task(_step(generator))
    await started.wait()
    with pytest.raises(RuntimeError, match="asynchronous generator is already running"):
        await generator.__anext__()
    assert await step == 1
    await generator.aclose()


@traced("test.anyio")
async def anyio_count(to: int = 3) -> AsyncIterator[str | None]:
    for _ in range(to):
        await anyio.lowlevel.checkpoint()
        yield current_span_id()


@pytest.mark.parametrize("run", [anyio.run, trio.run])
def test_under_trio_and_anyio_steps_and_closes_leave_the_context_right(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture, run: Callable[..., Any]
) -> None:
    async def consume() -> None:
        with traced_block("test.consumer"):
            own = current_span_id()
            async for inside in anyio_count(2):
                assert inside != own
                assert current_span_id() == own
            closed = anyio_count()
            await closed.__anext__()
            async with anyio.create_task_group() as group:
                group.start_soon(closed.aclose)
            assert current_span_id() == own

    run(consume)
    assert [span.status.status_code for span in spans.all("test.anyio")] == [StatusCode.OK, StatusCode.UNSET]
    assert not caplog.records


@pytest.mark.parametrize("run", [anyio.run, trio.run])
def test_under_trio_and_anyio_a_cancelled_step_leaves_the_status_unset(
    spans: CapturedSpans, run: Callable[..., Any]
) -> None:
    @traced("test.body")
    async def body() -> AsyncIterator[int]:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            yield 1
            await anyio.sleep_forever()

    async def consume() -> None:
        with traced_block("test.consumer"):
            own = current_span_id()
            with anyio.CancelScope() as scope:
                async for _ in body():
                    scope.cancel()
            assert scope.cancelled_caught
            assert current_span_id() == own

    run(consume)
    span = spans.one("test.body")
    assert span.status.status_code is StatusCode.UNSET
    assert [event.name for event in span.events] == ["cancelled"]


@pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning")
@pytest.mark.parametrize("run", [anyio.run, trio.run])
def test_under_trio_and_anyio_it_ends_when_abandoned(spans: CapturedSpans, run: Callable[..., Any]) -> None:
    async def consume() -> None:
        async for _ in anyio_count():
            break
        gc.collect()

    run(consume)
    assert spans.one("test.anyio").status.status_code is StatusCode.UNSET


@pytest.mark.anyio
async def test_without_a_provider_a_generator_answers_the_same() -> None:
    generator = echo()
    assert await generator.asend(None) is None
    assert await generator.asend(1) == 1
    assert await generator.athrow(ValueError(2)) == (2,)
    with pytest.raises(StopAsyncIteration):
        await generator.asend("stop")


async def _step(generator: AsyncGenerator[Any, Any]) -> Any:
    return await generator.__anext__()
