"""An exception is recorded once on its way out, wherever that leads; what is recorded of it is bounded, and cheap."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import multiprocessing
import pickle
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import StatusCode

from tracekit import ContextExecutor, propagate, record_exception, set_attribute, traced, traced_block
from tracekit.testing import CapturedSpan, CapturedSpans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FUNDS: Final = "insufficient funds"
_ORDER: Final = "no order"
_BOTTOM: Final = "at the bottom"

needs_groups = pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with CPython 3.11")


class DeclinedError(Exception):
    """An application's own exception."""


def _recorded(spans: CapturedSpans) -> list[str]:
    """Return the names of the spans that have a stack trace, innermost first."""
    return [span.name for span in spans for event in span.events if "exception.stacktrace" in (event.attributes or {})]


def _stack(span: CapturedSpan) -> str:
    attributes = span.event("exception").attributes
    assert attributes is not None
    return str(attributes["exception.stacktrace"])


def _all_failed(spans: CapturedSpans) -> bool:
    return all(
        span.status.status_code is StatusCode.ERROR and str(span.attributes["error.type"]).endswith("DeclinedError")
        for span in spans
    )


@traced("test.inner")
def _declined() -> None:
    raise DeclinedError(_FUNDS)


def test_exception_that_crosses_threads_is_recorded_by_the_innermost(spans: CapturedSpans) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            _declined()
        except DeclinedError as error:
            raised.append(error)

    with pytest.raises(DeclinedError), traced_block("test.outer"):  # noqa: PT012  # the thread is the point
        thread = threading.Thread(target=propagate(run))
        thread.start()
        thread.join()
        raise raised[0]
    assert _recorded(spans) == ["test.inner"]
    assert _all_failed(spans)


def test_exception_that_crosses_an_executor_is_recorded_by_the_innermost(spans: CapturedSpans) -> None:
    threads = concurrent.futures.ThreadPoolExecutor(1)
    with ContextExecutor(threads) as executor, pytest.raises(DeclinedError), traced_block("test.outer"):
        executor.submit(_declined).result()
    assert _recorded(spans) == ["test.inner"]


@pytest.mark.parametrize("make", [lambda: ValueError("x", 2), lambda: DeclinedError("x"), lambda: OSError(2, "x")])
def test_recorded_exception_has_nothing_that_others_can_see(make: Callable[[], Any], spans: CapturedSpans) -> None:
    error, plain = make(), make()
    for exc in (error, plain):
        exc.code = 7
    for _ in range(2):
        with pytest.raises(type(error)), traced_block("test.outer"), traced_block("test.inner"):
            raise error
    assert _recorded(spans) == ["test.inner"] * 2
    assert (vars(error), repr(vars(error)), error.args) == (vars(plain), repr(vars(plain)), plain.args)
    assert error.__reduce__() == plain.__reduce__()
    for duplicate in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(duplicate), duplicate.args, vars(duplicate)) == (type(plain), plain.args, vars(plain))
        assert type(vars(duplicate)) is dict
    del error.code
    assert vars(error) == {}


def test_dict_that_an_exception_shares_stays_shared(spans: CapturedSpans) -> None:
    shared: dict[str, Any] = {}
    error = ValueError("x")
    error.__dict__ = shared
    with pytest.raises(ValueError, match="x"), traced_block("test.block"):
        raise error
    shared["code"] = 7
    assert vars(error) is shared


@pytest.mark.parametrize("kind", [ValueError, DeclinedError])
def test_recorded_exception_lives_no_longer(kind: type[Exception], spans: CapturedSpans) -> None:
    class Held:
        pass

    def fail() -> weakref.ref[Held]:
        held = Held()
        with contextlib.suppress(kind), traced_block("test.block"):
            raise kind(held)
        return weakref.ref(held)

    with traced_block("test.outer"):
        assert [fail()() for _ in range(3)] == [None] * 3
    assert _recorded(spans) == ["test.block"] * 3


def test_exception_of_a_worker_process_is_an_error_here(spans: CapturedSpans) -> None:
    workers = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with ContextExecutor(workers) as executor, pytest.raises(DeclinedError), traced_block("test.outer"):
        executor.submit(_declined).result()
    assert spans.one("test.outer").status.description == "DeclinedError: insufficient funds"


def test_exception_that_crosses_tasks_is_recorded_by_the_innermost(spans: CapturedSpans) -> None:
    @traced("test.task")
    async def task() -> None:
        await asyncio.sleep(0)
        _declined()

    @traced("test.outer")
    async def outer() -> None:
        await asyncio.gather(asyncio.create_task(task()), asyncio.sleep(0))

    with pytest.raises(DeclinedError):
        asyncio.run(outer())
    assert _recorded(spans) == ["test.inner"]
    assert _all_failed(spans)


def test_exception_that_crosses_generators_is_recorded_by_the_innermost(spans: CapturedSpans) -> None:
    @traced("test.generator")
    def generator() -> Iterator[int]:
        yield 1
        _declined()

    @traced("test.outer")
    def outer() -> Iterator[int]:
        yield from generator()

    with pytest.raises(DeclinedError):
        list(outer())
    assert _recorded(spans) == ["test.inner"]
    assert _all_failed(spans)


def test_exception_raised_from_another_is_one_of_its_own(spans: CapturedSpans) -> None:
    @traced("test.outer")
    def outer() -> None:
        try:
            _declined()
        except DeclinedError as error:
            raise DeclinedError(_ORDER) from error

    with pytest.raises(DeclinedError):
        outer()
    assert _recorded(spans) == ["test.inner", "test.outer"]
    stack = _stack(spans.one("test.outer"))
    assert stack.index("DeclinedError: insufficient funds") < stack.index("direct cause") < stack.index("no order")


@pytest.mark.parametrize("kind", [DeclinedError, ValueError, KeyboardInterrupt])
def test_exception_that_is_raised_again_is_recorded_again_by_the_innermost(
    kind: type[BaseException], spans: CapturedSpans
) -> None:
    always = kind("always the same")

    @traced("test.inner")
    def inner() -> None:
        raise always

    @traced("test.middle")
    def middle() -> None:
        inner()

    with traced_block("test.outer"):
        for _ in range(3):
            with pytest.raises(kind):
                middle()
        with pytest.raises(kind), traced_block("test.other"):
            raise always
    assert _recorded(spans) == ["test.inner"] * 3 + ["test.other"]
    failed = [span.name for span in spans if span.status.status_code is StatusCode.ERROR]
    assert failed == ["test.inner", "test.middle"] * 3 + ["test.other"]


def test_exception_of_one_task_that_several_wait_for_is_recorded_by_each(spans: CapturedSpans) -> None:
    @traced("test.waiting")
    async def wait_for(task: asyncio.Task[None]) -> None:
        await task

    @traced("test.task")
    async def fail() -> None:
        raise DeclinedError(_FUNDS)

    async def main() -> None:
        with traced_block("test.outer"):
            task = asyncio.create_task(fail())
            await asyncio.gather(wait_for(task), wait_for(task), return_exceptions=True)

    asyncio.run(main())
    assert sorted(_recorded(spans)) == ["test.task", "test.waiting", "test.waiting"]
    assert spans.one("test.task").status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("between", ["foreign", "unrecorded", "expected"])
def test_exception_is_recorded_once_whatever_spans_are_between(between: str, spans: CapturedSpans) -> None:
    def pass_on() -> contextlib.AbstractContextManager[Any]:
        if between == "foreign":
            tracer = TracerProvider(shutdown_on_exit=False).get_tracer("theirs")
            return tracer.start_as_current_span("theirs", record_exception=False, set_status_on_exception=False)
        if between == "expected":
            return traced_block("test.between", expected=DeclinedError)
        return traced_block("test.between", record_exception=False)

    with pytest.raises(DeclinedError), traced_block("test.outer"), pass_on(), traced_block("test.inner"):
        raise DeclinedError(_FUNDS)
    assert _recorded(spans) == ["test.inner"]


def test_one_exception_raised_in_several_traces_is_recorded_in_each(spans: CapturedSpans) -> None:
    error = DeclinedError("always the same")

    @traced("test.call")
    def call() -> None:
        raise error

    for _ in range(3):
        with pytest.raises(DeclinedError), traced_block("test.outer"):
            call()
    assert _recorded(spans) == ["test.call"] * 3


def test_text_of_an_exception_is_asked_for_once_a_trace(spans: CapturedSpans) -> None:
    asked = []

    class SlowTextError(Exception):
        def __str__(self) -> str:
            asked.append(1)
            return "slow"

    with pytest.raises(SlowTextError), traced_block("test.one"), traced_block("test.two"), traced_block("test.three"):
        raise SlowTextError
    assert len(asked) == 1
    assert [span.status.description for span in spans] == ["SlowTextError: slow"] * 3


@needs_groups
def test_group_is_recorded_with_its_members(spans: CapturedSpans) -> None:
    members: list[Exception] = []
    for _ in range(50):
        try:
            _declined()
        except DeclinedError as error:
            members.append(error)
    group = ExceptionGroup("all", [*members, ExceptionGroup("nested", [KeyError("inner")])])  # noqa: F821
    with pytest.raises(ExceptionGroup), traced_block("test.outer"), traced_block("test.block"):  # noqa: F821
        raise group
    assert _recorded(spans)[-1:] == ["test.block"]
    stack = _stack(spans.one("test.block"))
    assert "insufficient funds" in stack
    assert len(stack) <= 64 * 1024


@needs_groups
def test_group_nested_beyond_reason_is_an_error_like_any_other(spans: CapturedSpans) -> None:
    group: Any = asyncio.CancelledError()
    for _ in range(3_000):
        group = BaseExceptionGroup("deeper", [group])  # noqa: F821
    with pytest.raises(BaseExceptionGroup), traced_block("test.block"):  # noqa: F821
        raise group
    assert spans.one("test.block").status.status_code is StatusCode.ERROR
    while hasattr(group, "exceptions"):  # taken apart here: deallocating it all at once would exhaust the C stack
        group = group.exceptions[0]


def _chained(count: int) -> BaseException:
    error: BaseException = ValueError("the first")
    for number in range(count):
        newer = ValueError(f"number {number}")
        newer.__cause__ = error
        error = newer
    return error


def _endless() -> BaseException:
    first, second = ValueError("one"), ValueError("two")
    first.__cause__, second.__context__ = second, first
    return first


@pytest.mark.parametrize(
    "make",
    [
        lambda: _chained(10_000),
        _endless,
        lambda: ValueError("x" * 10_000_000),
        lambda: ValueError(*range(100_000)),
        lambda: OSError(2, "No such file", "caf\udce9" * 1_000),
    ],
)
def test_what_is_recorded_of_an_exception_is_bounded(spans: CapturedSpans, make: Callable[[], BaseException]) -> None:
    error = make()
    with pytest.raises(type(error)) as caught, traced_block("test.block"):
        raise error
    assert caught.value is error
    span = spans.one("test.block")
    attributes: Any = span.event("exception").attributes
    assert len(attributes["exception.message"]) <= 2_048
    assert len(attributes["exception.stacktrace"].encode()) <= 4 * 64 * 1024
    assert len(span.status.description or "") <= 2_048
    assert attributes["exception.stacktrace"].splitlines()[-1].startswith(("ValueError: ", "FileNotFoundError: "))
    while error.__cause__ is not None and error.__cause__ is not caught.value:
        error.__cause__, error = None, error.__cause__


def test_stack_of_a_thousand_frames_is_cut_at_its_outer_end(spans: CapturedSpans) -> None:
    def dive(depth: int) -> None:
        if not depth:
            raise DeclinedError(_BOTTOM)
        dive(depth - 1)

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(5_000)
    try:
        with pytest.raises(DeclinedError), traced_block("test.outer"), traced_block("test.block"):
            dive(1_000)
    finally:
        sys.setrecursionlimit(before)
    stack = _stack(spans.one("test.block"))
    assert "Previous line repeated 196 more times" in stack  # 200 frames, four of them shown
    assert stack.endswith("DeclinedError: at the bottom\n")


def test_recursion_without_end_is_an_error_and_the_callers(spans: CapturedSpans) -> None:
    @traced("test.dive")
    def dive() -> None:
        dive()

    with pytest.raises(RecursionError):
        dive()
    assert spans
    assert spans[-1].status.status_code is StatusCode.ERROR


class _Raises(Exception):  # noqa: N818  # what it does
    def __str__(self) -> str:
        raise SystemExit(3)


class _NoString(Exception):  # noqa: N818
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]  # noqa: PLE0307


class _Recursive(Exception):  # noqa: N818
    def __str__(self) -> str:
        return str(self)


class _UsesTheSpan(Exception):  # noqa: N818
    def __str__(self) -> str:
        set_attribute("asked", True)
        record_exception(ValueError("inner"))
        return "used"


class _Hidden(Exception):  # noqa: N818
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError

    @property
    def __notes__(self) -> Any:
        raise RuntimeError

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError

    __eq__ = __hash__ = __bool__ = None  # type: ignore[assignment]


class _OddDict(Exception):  # noqa: N818
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError


class _Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__", "__mro__"):
            raise RuntimeError
        return super().__getattribute__(name)


class _OfMeta(Exception, metaclass=_Meta):  # noqa: N818
    """One whose class does not tell its name."""


_HOSTILE: Final[dict[str, type[Exception]]] = {
    "text that raises": _Raises,
    "text that is none": _NoString,
    "text without end": _Recursive,
    "text that uses the span": _UsesTheSpan,
    "hidden attributes": _Hidden,
    "odd dict": _OddDict,
    "nameless class": _OfMeta,
}


@pytest.mark.parametrize("kind", _HOSTILE.values(), ids=_HOSTILE)
def test_hostile_exception_reaches_the_caller_and_is_an_error(spans: CapturedSpans, kind: type[Exception]) -> None:
    error = kind()

    @traced("test.call")
    def call() -> None:
        raise error

    caught = None
    try:
        with traced_block("test.outer"):
            call()
    except Exception as reached:  # noqa: BLE001  # pytest.raises would look at it too closely
        caught = reached
    assert caught is error
    assert [span.status.status_code for span in spans] == [StatusCode.ERROR] * 2
    name = type.__dict__["__name__"].__get__(kind)
    assert all(str(span.attributes["error.type"]).endswith(name) for span in spans)
    assert _recorded(spans).count("test.call") >= 1
