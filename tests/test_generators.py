"""Traced generators: every answer as without the decorator, one span from the first step to the last, no leaks."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from opentelemetry.trace import StatusCode
from strategies import Body, Step, answer, bodies, finish, steps

from tracekit import current_span_id, traced, traced_block
from tracekit.testing import CapturedSpans, capture_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


@settings(max_examples=300)
@given(bodies(is_async=False), steps(is_async=False))
def test_any_sequence_of_steps_gets_the_answers_of_the_plain_generator(body: Body, taken: list[Step]) -> None:
    plain_log: list[object] = []
    traced_log: list[object] = []
    seen: set[str | None] = set()

    def current() -> str:
        seen.add(current_span_id())
        return "current"

    plain = body.make(plain_log.append, lambda: "current")()
    expected = [answer(plain, step) for step in taken]
    finish(plain)
    with capture_spans() as spans, traced_block("test.consumer"):
        own = current_span_id()
        generator = traced("test.body")(body.make(traced_log.append, current))()
        actual: list[object] = []
        for step in taken:
            actual.append(answer(generator, step))
            assert current_span_id() == own
        finish(generator)
        assert current_span_id() == own
    assert actual == expected
    assert traced_log == plain_log
    ended = [f"{span.span_id:016x}" for span in spans.all("test.body")]
    assert len(ended) == ("started" in plain_log)
    assert seen <= set(ended)


@traced("test.count")
def count(to: int = 3) -> Iterator[str | None]:
    for _ in range(to):
        yield current_span_id()


@traced("test.echo")
def echo() -> Generator[Any, Any, str]:
    got = None
    while got != "stop":
        try:
            got = yield got
        except ValueError as exc:
            got = exc.args
    return "returned"


def test_span_lasts_from_the_first_step_to_exhaustion(spans: CapturedSpans) -> None:
    generator = count(2)
    assert next(generator)
    assert next(generator)
    assert not spans
    assert list(generator) == []
    span = spans.one("test.count")
    assert span.status.status_code is StatusCode.OK
    assert span.attributes["generator.items"] == 2


def test_span_is_current_in_the_body_only(spans: CapturedSpans) -> None:
    with traced_block("test.consumer"):
        own = current_span_id()
        for inside in count():
            assert inside != own
            assert current_span_id() == own
        assert current_span_id() == own
    spans.assert_tree(
        """
        test.consumer
          test.count  generator.items=3
        """
    )


def test_all_steps_of_a_body_are_in_one_span(spans: CapturedSpans) -> None:
    assert set(count()) == {f"{spans.one('test.count').span_id:016x}"}


def test_spans_made_by_the_body_are_its_children_and_those_of_the_consumer_are_not(spans: CapturedSpans) -> None:
    @traced("test.body")
    def body() -> Iterator[int]:
        with traced_block("test.inner"):
            yield 1
        with traced_block("test.inner"):
            yield 2

    with traced_block("test.consumer"):
        for _ in body():
            with traced_block("test.outer"):
                pass
    spans.assert_tree(
        """
        test.consumer
          test.body
            test.inner
            test.inner
          test.outer
          test.outer
        """
    )


def test_send_reaches_the_body(spans: CapturedSpans) -> None:
    generator = echo()
    assert next(generator) is None
    assert generator.send("hello") == "hello"
    generator.close()


def test_throw_reaches_the_body(spans: CapturedSpans) -> None:
    generator = echo()
    next(generator)
    assert generator.throw(ValueError("in")) == ("in",)
    generator.close()


def test_return_value_is_kept(spans: CapturedSpans) -> None:
    def delegate() -> Generator[Any, Any, Any]:
        return (yield from echo())

    generator = delegate()
    next(generator)
    with pytest.raises(StopIteration) as stop:
        generator.send("stop")
    assert stop.value.value == "returned"
    assert spans.one("test.echo").status.status_code is StatusCode.OK


def test_result_extractors_read_the_return_value(spans: CapturedSpans) -> None:
    @traced("test.body", capture_result=True)
    def body() -> Generator[int, None, str]:
        yield 1
        return "total"

    list(body())
    assert spans.one("test.body").attributes["return_value"] == "total"


def test_closed_early_leaves_the_status_unset_and_says_cancelled(spans: CapturedSpans) -> None:
    generator = count()
    next(generator)
    generator.close()
    span = spans.one("test.count")
    assert span.status.status_code is StatusCode.UNSET
    assert [event.name for event in span.events] == ["cancelled"]
    assert span.attributes["generator.items"] == 1


def test_close_runs_the_finally_of_the_body_at_once_in_its_span(spans: CapturedSpans) -> None:
    left: list[str | None] = []

    @traced("test.body")
    def body() -> Iterator[int]:
        try:
            yield 1
        finally:
            left.append(current_span_id())

    generator = body()
    next(generator)
    generator.close()
    assert left == [f"{spans.one('test.body').span_id:016x}"]


def test_broken_out_of_ends_when_collected_and_leaves_the_context_right(spans: CapturedSpans) -> None:
    with traced_block("test.consumer"):
        own = current_span_id()
        for _ in count():
            break
        gc.collect()
        assert spans.one("test.count").status.status_code is StatusCode.UNSET
        assert current_span_id() == own


def test_error_in_the_body_is_recorded_once_and_reaches_the_consumer(spans: CapturedSpans) -> None:
    error = ValueError("bad")

    @traced("test.body")
    def body() -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(ValueError, match="bad") as caught:
        list(body())
    assert caught.value is error
    assert error.__context__ is None
    span = spans.one("test.body")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError: bad")
    assert span.event("exception")
    assert span.attributes["generator.items"] == 1


def test_never_iterated_has_no_span(spans: CapturedSpans) -> None:
    generator = count()
    generator.close()
    with pytest.raises(ValueError, match="before"):
        count().throw(ValueError("before the first step"))
    del generator
    gc.collect()
    assert not spans


def test_parent_is_the_span_of_the_first_step_not_of_the_call(spans: CapturedSpans) -> None:
    with traced_block("test.calls"):
        generator = count(1)
    with traced_block("test.steps"):
        list(generator)
    spans.assert_tree(
        """
        test.calls
        test.steps
          test.count
        """
    )


def test_interleaved_generators_keep_their_parents_and_the_context(spans: CapturedSpans) -> None:
    with traced_block("test.consumer"):
        own = current_span_id()
        first, second = count(), count()
        seen = [next(first), next(second), next(first), next(second)]
        assert seen[0] == seen[2] != seen[1] == seen[3]
        first.close()
        assert current_span_id() == own
        second.close()
        assert current_span_id() == own
    spans.assert_tree(
        """
        test.consumer
          test.count
          test.count
        """
    )


def test_each_step_may_have_another_consumer(spans: CapturedSpans) -> None:
    generator = count()
    seen: list[str | None] = []
    for number in range(3):
        with traced_block(f"test.consumer_{number}"):
            own = current_span_id()
            seen.append(next(generator))
            assert current_span_id() == own
    generator.close()
    assert len(set(seen)) == 1
    assert spans.one("test.count").parent is spans.one("test.consumer_0")


def _in_thread(step: Callable[[], object]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            step()
        except BaseException as exc:  # noqa: BLE001  # raised again below
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for failure in failures:
        raise failure


@pytest.mark.parametrize("run", [lambda step: contextvars.copy_context().run(step), _in_thread])
def test_closed_in_another_context_or_thread_changes_no_context(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture, run: Callable[[Callable[[], object]], object]
) -> None:
    with traced_block("test.consumer"):
        own = current_span_id()
        generator = count()
        next(generator)

        def close() -> None:
            before = current_span_id()
            generator.close()
            assert current_span_id() == before

        run(close)
        assert current_span_id() == own
    assert spans.one("test.count").status.status_code is StatusCode.UNSET
    assert not caplog.records


def test_collected_in_another_thread_changes_no_context(spans: CapturedSpans, caplog: pytest.LogCaptureFixture) -> None:
    holder = [count()]
    next(holder[0])

    def collect() -> None:
        with traced_block("test.collecting"):
            own = current_span_id()
            holder.clear()
            gc.collect()
            assert current_span_id() == own

    _in_thread(collect)
    assert spans.names == ["test.count", "test.collecting"]
    assert not caplog.records


def test_a_block_the_body_leaves_open_is_not_current_for_the_consumer(spans: CapturedSpans) -> None:
    def hold() -> Iterator[None]:
        with traced_block("test.held"):
            yield

    held = hold()

    @traced("test.body")
    def body() -> Iterator[int]:
        next(held)
        yield 1

    with traced_block("test.consumer"):
        own = current_span_id()
        for _ in body():
            assert current_span_id() == own
        assert current_span_id() == own
        held.close()
        assert current_span_id() == own


def test_context_manager_made_of_it_is_traced_from_enter_to_exit(spans: CapturedSpans) -> None:
    @contextlib.contextmanager
    @traced("test.managed")
    def managed() -> Iterator[str]:
        try:
            yield "value"
        except ValueError:
            return

    with traced_block("test.consumer"):
        own = current_span_id()
        with managed() as value:
            assert value == "value"
            assert current_span_id() == own
            assert not spans
            raise ValueError
    assert spans.one("test.managed").status.status_code is StatusCode.OK


def test_nothing_that_was_yielded_or_thrown_is_kept_alive() -> None:
    class Chunk:
        pass

    @traced("test.body")
    def body() -> Generator[Chunk, None, None]:
        with contextlib.suppress(ValueError):
            yield Chunk()
        yield Chunk()

    with capture_spans():
        generator = body()
        chunk = weakref.ref(next(generator))
        assert chunk() is None
        error = ValueError()
        generator.throw(error)
        # The name here, and the argument of getrefcount.
        assert sys.getrefcount(error) == 2
        generator.close()


def test_recursive_generator_nests_its_spans(spans: CapturedSpans) -> None:
    @traced("test.walk")
    def walk(depth: int) -> Iterator[int]:
        yield depth
        if depth:
            yield from walk(depth - 1)

    assert list(walk(2)) == [2, 1, 0]
    spans.assert_tree(
        """
        test.walk  depth=2 generator.items=3
          test.walk  depth=1 generator.items=2
            test.walk  depth=0 generator.items=1
        """
    )


def test_a_step_from_inside_itself_is_refused_by_python_as_ever(spans: CapturedSpans) -> None:
    def body() -> Iterator[object]:
        yield next(generator)

    generator = traced("test.body")(body)()
    with pytest.raises(ValueError, match="generator already executing"):
        next(generator)
    assert spans.one("test.body").status.status_code is StatusCode.ERROR


def test_generator_based_coroutine_can_still_be_awaited(spans: CapturedSpans) -> None:
    @traced("test.body")
    @types.coroutine
    def body() -> Generator[str, str, str]:
        return (yield "waits")

    async def main() -> str:
        return await body()

    running = main()
    assert running.send(None) == "waits"
    with pytest.raises(StopIteration, match="answer"):
        running.send("answer")
    assert spans.one("test.body").status.status_code is StatusCode.OK


def test_without_a_provider_a_generator_answers_the_same() -> None:
    generator = echo()
    assert next(generator) is None
    assert generator.send(1) == 1
    assert generator.throw(ValueError(2)) == (2,)
    with pytest.raises(StopIteration, match="returned"):
        generator.send("stop")
