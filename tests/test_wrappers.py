"""What runs instead of a traced callable: the same kind of thing to everybody, and one span around each call."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import multiprocessing
import pickle
import sys
import threading
import typing
from collections.abc import AsyncIterator, Iterator  # typing.get_type_hints() asks for them
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN, StatusCode
from strategies import run

from tracekit import configure, current_span, current_span_id, traced, traced_block
from tracekit.testing import CapturedSpans, capture_spans

if TYPE_CHECKING:
    from collections.abc import Callable


def function(a: int, /, b: str = "b", *rest: int, c: float = 1.5, **more: int) -> str:
    """Say something."""
    return f"{a}{b}{rest}{c}{more}"


async def coroutine_function(a: int, b: str = "b") -> str:
    """Say something."""
    return f"{a}{b}"


def generator_function(a: int, b: str = "b") -> Iterator[str]:
    """Say something."""
    yield f"{a}{b}"


async def async_generator_function(a: int, b: str = "b") -> AsyncIterator[str]:
    """Say something."""
    yield f"{a}{b}"


KINDS: list[Any] = [function, coroutine_function, generator_function, async_generator_function]
every_kind = pytest.mark.parametrize("func", KINDS, ids=lambda func: func.__name__)


def _call(func: Callable[..., Any], *args: Any) -> Any:
    """Call *func*, run what it returns, and return what came of it."""
    made = func(*args)
    if inspect.iscoroutine(made):
        return run(made)
    if inspect.isgenerator(made):
        (item,) = made
        return item
    if inspect.isasyncgen(made):
        return run(made.__anext__())
    return made


# --- the same kind of thing ------------------------------------------------------------------------------------------


@every_kind
def test_wrapper_is_of_the_same_kind_to_inspect(func: Any) -> None:
    wrapped = traced(func)
    for asks in (
        inspect.isfunction,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    ):
        assert asks(wrapped) is asks(func)
    # Deprecated since 3.14, and what frameworks ask before that.
    if sys.version_info < (3, 14):
        assert asyncio.iscoroutinefunction(wrapped) is asyncio.iscoroutinefunction(func)


@every_kind
def test_wrapper_tells_the_same_about_itself(func: Any) -> None:
    wrapped = traced("test.call", attributes={"key": 1})(func)
    assert wrapped.__wrapped__ is func
    assert inspect.signature(wrapped) == inspect.signature(func)
    assert typing.get_type_hints(wrapped) == typing.get_type_hints(func)
    assert inspect.getdoc(wrapped) == "Say something."
    assert inspect.getsource(wrapped) == inspect.getsource(func)
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(wrapped, name) == getattr(func, name)


def test_attributes_of_a_function_are_on_its_wrapper() -> None:
    def func() -> None: ...

    func.flag = 3  # type: ignore[attr-defined]
    assert traced(func).flag == 3  # type: ignore[attr-defined]


@traced("test.pickled")
def pickled(a: int) -> int:
    return a + 1


class Pickled:
    @traced("test.method")
    def method(self, a: int) -> int:
        return a + 1

    def __eq__(self, other: object) -> bool:
        return type(other) is Pickled

    __hash__ = None  # type: ignore[assignment]


def test_wrapper_can_be_pickled_and_copied(spans: CapturedSpans) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(pickled, protocol)) is pickled
    assert copy.copy(pickled) is copy.deepcopy(pickled) is pickled
    method = pickle.loads(pickle.dumps(Pickled().method))
    assert method(1) == 2
    assert copy.deepcopy(Pickled()).method(1) == 2
    assert spans.names == ["test.method"] * 2


def test_wrapper_pickled_by_value_is_still_traced(spans: CapturedSpans) -> None:
    offset = 5

    @traced("test.local", attributes={"a": lambda a: a}, capture_result=True)
    def local(a: int) -> int:
        return a + offset

    assert pickle.loads(cloudpickle.dumps(local))(1) == 6
    assert dict(spans.one("test.local").attributes).items() >= {"a": 1, "return_value": 6}.items()


@pytest.mark.slow
def test_wrapper_runs_in_a_spawned_process() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(pickled, [1, 2]) == [2, 3]


# --- one span around each call ---------------------------------------------------------------------------------------


@every_kind
def test_call_answers_the_same_in_one_span_that_is_ok(spans: CapturedSpans, func: Any) -> None:
    assert _call(traced("test.call")(func), 1, "c") == _call(func, 1, "c")
    span = spans.one("test.call")
    if func is not async_generator_function:  # which was not run to its end
        assert span.status.status_code is StatusCode.OK


def test_span_is_current_in_the_call_and_not_after_it(spans: CapturedSpans) -> None:
    @traced("test.function")
    def sync() -> str | None:
        return current_span_id()

    @traced("test.coroutine")
    async def coroutine() -> str | None:
        await asyncio.sleep(0)
        return current_span_id()

    inside = [sync(), asyncio.run(coroutine())]
    assert inside == [f"{span.span_id:016x}" for span in spans]
    assert current_span() is INVALID_SPAN


def test_calls_nest_and_siblings_stand_side_by_side(spans: CapturedSpans) -> None:
    @traced("test.leaf")
    def leaf() -> None: ...

    @traced("test.branch")
    async def branch() -> None:
        leaf()
        await asyncio.sleep(0)
        leaf()

    @traced("test.root")
    async def root() -> None:
        await asyncio.gather(branch(), branch())
        leaf()

    asyncio.run(root())
    spans.assert_tree(
        """
        test.root
          test.branch
            test.leaf
            test.leaf
          test.branch
            test.leaf
            test.leaf
          test.leaf
        """
    )


def test_recursion_nests(spans: CapturedSpans) -> None:
    @traced("test.count")
    def count(n: int) -> int:
        return n and 1 + count(n - 1)

    assert count(50) == 50
    assert len(spans) == 51
    assert len({span.trace_id for span in spans}) == 1


def test_one_python_frame_a_call_leaves_half_the_recursion_limit(spans: CapturedSpans) -> None:
    deepest = 0

    def plain(depth: int) -> None:
        nonlocal deepest
        deepest = depth
        wrapped(depth + 1)

    wrapped = traced("test.call")(plain)
    with pytest.raises(RecursionError):
        wrapped(0)
    assert deepest > sys.getrecursionlimit() // 2 - 120
    assert current_span() is INVALID_SPAN


def test_threads_have_calls_of_their_own(spans: CapturedSpans) -> None:
    @traced("test.call")
    def call() -> str | None:
        barrier.wait()
        return current_span_id()

    barrier = threading.Barrier(4)
    seen: list[str | None] = []
    threads = [threading.Thread(target=lambda: seen.append(call())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(filter(None, seen)) == sorted(f"{span.span_id:016x}" for span in spans)


def test_method_class_method_and_static_method_are_called_as_ever(spans: CapturedSpans) -> None:
    class Plain:
        def method(self, a: int) -> tuple[object, int]:
            return self, a

    class Traced:
        @traced
        def method(self, a: int) -> tuple[object, int]:
            return self, a

        @traced
        @classmethod
        def class_outer(cls, a: int) -> tuple[object, int]:
            return cls, a

        @classmethod
        @traced
        def class_inner(cls, a: int) -> tuple[object, int]:
            return cls, a

        @traced
        @staticmethod
        def static_outer(a: int) -> int:
            return a

        @staticmethod
        @traced
        def static_inner(a: int) -> int:
            return a

        @property
        @traced
        def value(self) -> int:
            return 3

    instance = Traced()
    assert instance.method(1) == (instance, 1) == Traced.method(instance, 1)
    assert instance.class_outer(1) == Traced.class_outer(1) == (Traced, 1) == Traced.class_inner(1)
    assert instance.static_outer(1) == Traced.static_outer(1) == 1 == Traced.static_inner(1)
    assert instance.value == 3
    assert {*spans.names} == {
        *("traced.method", "traced.class_outer", "traced.class_inner", "traced.static_outer", "traced.static_inner"),
        "traced.value",
    }
    for name in ("class_outer", "class_inner"):
        assert isinstance(inspect.getattr_static(Traced, name), classmethod)
    for name in ("static_outer", "static_inner"):
        assert isinstance(inspect.getattr_static(Traced, name), staticmethod)
    assert inspect.signature(Traced.method) == inspect.signature(Plain.method)


def test_partials_and_callable_objects_are_traced(spans: CapturedSpans) -> None:
    class Caller:
        def __call__(self, a: int) -> int:
            return a + 1

    class AsyncCaller:
        async def __call__(self, a: int) -> int:
            return a + 1

    class GeneratorCaller:
        def __call__(self, a: int) -> Iterator[int]:
            yield a + 1

    assert traced("test.partial")(functools.partial(int, base=2))("101") == 5
    assert traced("test.object")(Caller())(1) == 2
    wrapped = traced("test.async_object")(AsyncCaller())
    assert inspect.iscoroutinefunction(wrapped)
    assert run(wrapped(1)) == 2
    assert list(traced("test.generator_object")(GeneratorCaller())(1)) == [2]
    assert run(traced("test.async_partial")(functools.partial(coroutine_function, b="x"))(1)) == "1x"
    assert len(spans) == 5
    assert all(span.status.status_code is StatusCode.OK for span in spans)


def test_closed_coroutine_ends_its_span_without_touching_the_context(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    @traced("test.call")
    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        running = wait()
        step = asyncio.create_task(_first_step(running))
        await step
        with traced_block("test.closing") as closing:
            running.close()
            assert current_span() is closing

    asyncio.run(main())
    assert [event.name for event in spans.one("test.call").events] == ["cancelled"]
    assert not caplog.records


async def _first_step(coroutine: Any) -> None:
    coroutine.send(None)


# --- providers -------------------------------------------------------------------------------------------------------


@every_kind
def test_without_a_provider_no_span_is_made_and_nothing_is_read(func: Any) -> None:
    read: list[int] = []
    wrapped = traced("test.call", attributes={"key": lambda: read.append(1)}, parent=lambda: read.append(2))(func)
    assert _call(wrapped, 1, "c") == _call(func, 1, "c")
    assert not read


def test_next_call_sees_the_provider_that_is_set_by_then() -> None:
    @traced("test.call")
    def call() -> bool:
        return current_span().is_recording()

    assert not call()
    with capture_spans() as first:
        assert call()
        with capture_spans() as second:
            assert call()
        assert call()
    assert not call()
    assert (len(first), len(second)) == (2, 1)


def test_global_provider_of_opentelemetry_is_used() -> None:
    @traced("test.call")
    def call() -> None: ...

    call()
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    call()
    (span,) = exporter.get_finished_spans()
    assert span.name == "test.call"
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "tracekit"


def test_disabled_sdk_makes_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    @traced("test.call")
    def call() -> bool:
        return current_span() is INVALID_SPAN

    assert call()
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    assert call()
    configure(exporter="none")
    assert call()


def test_code_location_is_recorded_if_asked_for() -> None:
    wrapped = traced("test.call")(function)
    configure(code_location=True, exporter="none")
    with capture_spans() as spans:
        wrapped(1)
    attributes = spans.one("test.call").attributes
    assert attributes["code.file.path"] == __file__
    assert attributes["code.line.number"] == function.__code__.co_firstlineno
    assert attributes["code.function.name"] == f"{__name__}.function"


class _Failing:
    """A part of a pipeline on which everything fails."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError(name)

        return fail


@pytest.mark.parametrize("part", ["sampler", "id_generator", "processor", "get_tracer"])
@every_kind
def test_pipeline_that_fails_costs_the_span_and_nothing_else(part: str, func: Any) -> None:
    failing: Any = _Failing()
    provider = TracerProvider(
        shutdown_on_exit=False,
        **({part: failing} if part in ("sampler", "id_generator") else {}),
    )
    if part == "processor":
        provider.add_span_processor(failing)
    if part == "get_tracer":
        provider.get_tracer = failing.get_tracer  # type: ignore[method-assign]
    wrapped = traced("test.call", tracer_provider=provider)(func)
    assert _call(wrapped, 1, "c") == _call(func, 1, "c")
    assert current_span() is INVALID_SPAN
