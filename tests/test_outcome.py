"""How a call ends decides what its span says; the exception is the caller's, untouched."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from opentelemetry.trace import Status, StatusCode
from strategies import run

from tracekit import (
    configure,
    current_span,
    record_exception,
    set_error,
    traced,
    traced_block,
)
from tracekit.testing import CapturedSpan, CapturedSpans, capture_spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from typing_extensions import Self

    Ending = Callable[..., Any]
    Runner = Callable[..., Any]


class NotFoundError(Exception):
    """An application's own exception."""


class Gone(BaseException):  # no error
    """One that no `except Exception` catches."""


def _function(body: Ending, **options: Any) -> Any:
    @traced("test.call", **options)
    def call() -> Any:
        return body()

    return call()


def _coroutine_function(body: Ending, **options: Any) -> Any:
    @traced("test.call", **options)
    async def call() -> Any:
        return body()

    return run(call())


def _generator_function(body: Ending, **options: Any) -> Any:
    @traced("test.call", **options)
    def call() -> Iterator[int]:
        yield 1
        return body()

    generator = call()
    next(generator)
    try:
        next(generator)
    except StopIteration as stop:
        return stop.value


def _async_generator_function(body: Ending, **options: Any) -> Any:
    @traced("test.call", **options)
    async def call() -> AsyncIterator[int]:
        yield 1
        body()

    async def consume() -> None:
        async for _ in call():
            pass

    return run(consume())


def _block(body: Ending, **options: Any) -> Any:
    with traced_block("test.call", **options):
        return body()


def _async_block(body: Ending, **options: Any) -> Any:
    async def main() -> Any:
        async with traced_block("test.call", **options):
            return body()

    return run(main())


RUNNERS = [
    _function,
    _coroutine_function,
    _generator_function,
    _async_generator_function,
    _block,
    _async_block,
]
in_every_form = pytest.mark.parametrize("call", RUNNERS, ids=lambda runner: runner.__name__.strip("_"))


def _raises(exc: BaseException | type[BaseException]) -> Callable[[], None]:
    def body() -> None:
        raise exc

    return body


def _outcome(span: CapturedSpan) -> tuple[StatusCode, str | None, list[str], object]:
    events = [event.name for event in span.events]
    return span.status.status_code, span.status.description, events, span.attributes.get("error.type")


@in_every_form
def test_normal_return_is_ok(spans: CapturedSpans, call: Runner) -> None:
    call(lambda: "value")
    assert _outcome(spans.one("test.call")) == (StatusCode.OK, None, [], None)


@in_every_form
def test_status_set_by_the_body_is_kept(spans: CapturedSpans, call: Runner) -> None:
    call(lambda: set_error("no stock"))
    assert _outcome(spans.one("test.call"))[:2] == (StatusCode.ERROR, "no stock")


@in_every_form
def test_set_status_false_leaves_the_status_unset(spans: CapturedSpans, call: Runner) -> None:
    call(lambda: "value", set_status=False)
    with pytest.raises(ValueError, match="bad"):
        call(_raises(ValueError("bad")), set_status=False)
    returned, failed = spans.all("test.call")
    assert _outcome(returned) == (StatusCode.UNSET, None, [], None)
    assert _outcome(failed) == (StatusCode.UNSET, None, ["exception"], "ValueError")


@in_every_form
def test_exception_is_an_error_recorded_once_and_reaches_the_caller_untouched(
    spans: CapturedSpans, call: Runner
) -> None:
    error = ValueError("bad")
    with pytest.raises(ValueError, match="bad") as caught:
        call(_raises(error))
    assert caught.value is error
    assert (error.__context__, error.__cause__, error.args) == (None, None, ("bad",))
    span = spans.one("test.call")
    assert _outcome(span) == (StatusCode.ERROR, "ValueError: bad", ["exception"], "ValueError")
    recorded = span.event("exception").attributes or {}
    assert recorded["exception.type"] == "ValueError"
    assert recorded["exception.message"] == "bad"
    assert "Traceback (most recent call last)" in str(recorded["exception.stacktrace"])


@in_every_form
def test_error_set_by_the_body_gives_way_to_the_exception(spans: CapturedSpans, call: Runner) -> None:
    def body() -> None:
        current_span().set_status(Status(StatusCode.ERROR, "looked bad"))
        raise ValueError("is bad")  # noqa: EM101

    with pytest.raises(ValueError, match="is bad"):
        call(body)
    assert spans.one("test.call").status.description == "ValueError: is bad"


@in_every_form
def test_record_exception_false_adds_no_event(spans: CapturedSpans, call: Runner) -> None:
    with pytest.raises(ValueError, match="bad"):
        call(_raises(ValueError("bad")), record_exception=False)
    assert _outcome(spans.one("test.call")) == (StatusCode.ERROR, "ValueError: bad", [], "ValueError")


@in_every_form
def test_expected_exception_is_an_event_and_no_error(spans: CapturedSpans, call: Runner) -> None:
    for expected in (LookupError, (NotFoundError, LookupError)):
        with pytest.raises(KeyError):
            call(_raises(KeyError("absent")), expected=expected)
    for span in spans.all("test.call"):
        assert _outcome(span) == (StatusCode.UNSET, None, ["exception"], None)


@in_every_form
def test_exceptions_that_configure_expects_are_no_errors(call: Runner) -> None:
    configure(expected=(NotFoundError,), exporter="none")
    with capture_spans() as spans:
        with pytest.raises(NotFoundError):
            call(_raises(NotFoundError("absent")))
        assert _outcome(spans.one("test.call")) == (StatusCode.UNSET, None, ["exception"], None)


@in_every_form
@pytest.mark.parametrize("exc", [asyncio.CancelledError, GeneratorExit])
def test_cancellation_is_no_error_and_says_so(spans: CapturedSpans, call: Runner, exc: type[BaseException]) -> None:
    with contextlib.suppress(exc):
        call(_raises(exc()))
    assert _outcome(spans.one("test.call")) == (StatusCode.UNSET, None, ["cancelled"], None)


@pytest.mark.parametrize("call", [_function, _block])
@pytest.mark.parametrize("exc", [StopIteration("last"), StopAsyncIteration("last")])
def test_stop_iteration_is_no_error_and_reaches_the_caller(spans: CapturedSpans, call: Runner, exc: Exception) -> None:
    with pytest.raises(type(exc)) as caught:
        call(_raises(exc))
    assert caught.value is exc
    assert _outcome(spans.one("test.call")) == (StatusCode.UNSET, None, [], None)


@in_every_form
@pytest.mark.parametrize("code", [None, 0])
def test_clean_exit_is_ok(spans: CapturedSpans, call: Runner, code: int | None) -> None:
    with pytest.raises(SystemExit):
        call(_raises(SystemExit(code)))
    assert _outcome(spans.one("test.call")) == (StatusCode.OK, None, [], None)


@in_every_form
@pytest.mark.parametrize(
    ("exc", "description"),
    [
        (SystemExit(1), "SystemExit: 1"),
        (SystemExit("no disk"), "SystemExit: no disk"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Gone("away"), "Gone: away"),
    ],
)
def test_other_exits_and_interrupts_are_errors(
    spans: CapturedSpans, call: Runner, exc: BaseException, description: str
) -> None:
    with pytest.raises(type(exc)) as caught:
        call(_raises(exc))
    assert caught.value is exc
    code, said, events, _ = _outcome(spans.one("test.call"))
    assert (code, said, events) == (StatusCode.ERROR, description, ["exception"])


def test_cancelled_task_is_no_error(spans: CapturedSpans) -> None:
    @traced("test.call")
    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert _outcome(spans.one("test.call")) == (StatusCode.UNSET, None, ["cancelled"], None)


@pytest.mark.parametrize("start", [anyio.run, trio.run])
def test_cancellation_by_anyio_and_trio_is_no_error(spans: CapturedSpans, start: Callable[..., Any]) -> None:
    @traced("test.call")
    async def wait() -> None:
        async with traced_block("test.block"), anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)

    async def main() -> None:
        with anyio.move_on_after(0):
            await wait()

    start(main)
    for name in ("test.call", "test.block"):
        assert _outcome(spans.one(name)) == (StatusCode.UNSET, None, ["cancelled"], None)


def test_stack_trace_is_recorded_by_the_innermost_operation_only(spans: CapturedSpans) -> None:
    @traced("test.outer")
    def outer() -> None:
        with traced_block("test.block"):
            inner()

    @traced("test.inner")
    def inner() -> None:
        raise NotFoundError("absent")  # noqa: EM101

    with pytest.raises(NotFoundError):
        outer()
    kind = f"{__name__}.NotFoundError"
    assert _outcome(spans.one("test.inner")) == (StatusCode.ERROR, "NotFoundError: absent", ["exception"], kind)
    for name in ("test.block", "test.outer"):
        assert _outcome(spans.one(name)) == (StatusCode.ERROR, "NotFoundError: absent", [], kind)


def test_exception_recorded_by_the_body_and_raised_is_recorded_once(spans: CapturedSpans) -> None:
    def body() -> None:
        try:
            raise ValueError("bad")  # noqa: EM101, TRY301
        except ValueError as exc:
            record_exception(exc)
            raise

    with pytest.raises(ValueError, match="bad"):
        _function(body)
    assert [event.name for event in spans.one("test.call").events] == ["exception"]


def test_exception_raised_again_in_another_trace_is_recorded_there_too(spans: CapturedSpans) -> None:
    error = ValueError("bad")
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            _function(_raises(error))
    assert [len(span.events) for span in spans.all("test.call")] == [1, 1]


def test_frames_of_tracekit_are_not_in_the_stack_trace(spans: CapturedSpans) -> None:
    @traced("test.inner")
    def inner() -> None:
        raise ValueError("bad")  # noqa: EM101

    @traced("test.middle")
    def middle() -> Iterator[int]:
        inner()
        yield 1

    @traced("test.call")
    async def call() -> None:
        next(middle())

    with pytest.raises(ValueError, match="bad"):
        run(call())
    stack = str((spans.one("test.inner").event("exception").attributes or {})["exception.stacktrace"])
    assert "in inner\n" in stack
    assert "tracekit" not in stack.replace(str(__file__), "")


def test_cause_and_context_are_in_the_stack_trace(spans: CapturedSpans) -> None:
    def body() -> None:
        try:
            {}["absent"]
        except KeyError as exc:
            raise ValueError("bad") from exc  # noqa: EM101

    with pytest.raises(ValueError, match="bad"):
        _function(body)
    stack = str((spans.one("test.call").event("exception").attributes or {})["exception.stacktrace"])
    assert stack.index("KeyError: 'absent'") < stack.index("direct cause") < stack.index("ValueError: bad")


@pytest.mark.parametrize("raised", [RuntimeError("inside"), SystemExit(3), KeyboardInterrupt()])
def test_exception_whose_text_cannot_be_had_is_still_the_one_that_reaches_the_caller(
    spans: CapturedSpans, raised: BaseException
) -> None:
    class BadTextError(Exception):
        def __str__(self) -> str:
            raise raised

    error = BadTextError("secret")
    with pytest.raises(BadTextError) as caught:
        _function(_raises(error))
    assert caught.value is error
    assert error.__context__ is None
    code, description, events, _ = _outcome(spans.one("test.call"))
    assert (code, events) == (StatusCode.ERROR, ["exception"])
    assert description == f"BadTextError: <BadTextError.__str__ raised {type(raised).__name__}>"


def test_exception_whose_text_is_no_string_is_still_the_one_that_reaches_the_caller(spans: CapturedSpans) -> None:
    class BadTextError(Exception):
        def __str__(self) -> str:
            return 7  # type: ignore[return-value]  # noqa: PLE0307  # the point

    error = BadTextError()
    with pytest.raises(BadTextError) as caught:
        _function(_raises(error))
    assert caught.value is error
    assert spans.one("test.call").status.status_code is StatusCode.ERROR


def test_slow_text_of_an_exception_is_asked_for_once_a_span(spans: CapturedSpans) -> None:
    asked = []

    class SlowTextError(Exception):
        def __str__(self) -> str:
            asked.append(1)
            return "slow"

    with pytest.raises(SlowTextError):
        _function(_raises(SlowTextError()))
    assert len(asked) == 1


def test_exception_that_is_a_frozen_dataclass_is_recorded_once(spans: CapturedSpans) -> None:
    @dataclasses.dataclass(frozen=True)
    class FrozenError(Exception):
        code: int

    def body() -> None:
        with traced_block("test.inner"):
            raise FrozenError(3)

    # Without a traceback of its own: a frozen exception refuses the one that a `with` block gives it.
    with pytest.raises(FrozenError):
        _function(body)
    assert len(spans.one("test.inner").events) == 1
    assert len(spans.one("test.call").events) == 0


def test_long_stack_and_message_are_bounded(spans: CapturedSpans) -> None:
    def dive(depth: int) -> None:
        if not depth:
            raise ValueError("x" * 100_000)
        dive(depth - 1)

    with pytest.raises(ValueError, match="xxx"):
        _function(lambda: dive(500))
    recorded: Any = spans.one("test.call").event("exception").attributes
    assert len(recorded["exception.message"]) == 2_048
    assert len(recorded["exception.stacktrace"]) <= 64 * 1024
    assert "in dive" in recorded["exception.stacktrace"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with CPython 3.11")
def test_members_of_an_exception_group_are_in_its_stack_trace(spans: CapturedSpans) -> None:
    group = ExceptionGroup("several", [ValueError("first"), KeyError("second")])  # noqa: F821
    with pytest.raises(ExceptionGroup):  # noqa: F821
        _function(_raises(group))
    span = spans.one("test.call")
    assert span.status.description == "ExceptionGroup: several (2 sub-exceptions)"
    stack = str((span.event("exception").attributes or {})["exception.stacktrace"])
    assert "ValueError: first" in stack
    assert "KeyError: 'second'" in stack


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with CPython 3.11")
def test_group_of_cancellations_alone_is_no_error(spans: CapturedSpans) -> None:
    cancelled = asyncio.CancelledError()
    for members in ([cancelled], [cancelled, ValueError("bad")]):
        with pytest.raises(BaseExceptionGroup):  # noqa: F821
            _function(_raises(BaseExceptionGroup("several", members)))  # noqa: F821
    only, mixed = spans.all("test.call")
    assert _outcome(only) == (StatusCode.UNSET, None, ["cancelled"], None)
    assert mixed.status.status_code is StatusCode.ERROR


def test_block_closed_by_the_garbage_collector_says_cancelled(spans: CapturedSpans) -> None:
    def hold() -> Iterator[None]:
        with traced_block("test.call"):
            yield

    held = hold()
    next(held)
    del held
    assert _outcome(spans.one("test.call")) == (StatusCode.UNSET, None, ["cancelled"], None)


class _Suppressing:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> bool:
        return True


def test_block_suppresses_nothing(spans: CapturedSpans) -> None:
    with _Suppressing(), traced_block("test.call"):
        raise ValueError
    assert spans.one("test.call").status.status_code is StatusCode.ERROR
