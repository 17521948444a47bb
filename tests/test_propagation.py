"""Contexts that are current for a block, and the propagators that carry them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from tracekit import extract, inject, remote_parent, set_baggage, traced_block, use_context
from tracekit.testing import capture_spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
CARRIER: Final = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}
TRACER: Final = TracerProvider().get_tracer(__name__)


def named(name: str) -> Context:
    return context_api.set_value("name", name, Context())


def name_of_current() -> object:
    return context_api.get_value("name")


def current_trace_id() -> str | None:
    span_context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(span_context.trace_id) if span_context.is_valid else None


@pytest.fixture(autouse=True)
def nothing_is_left_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    before = context_api.get_current()
    yield
    assert context_api.get_current() is before
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_context_is_current_inside_the_block_only() -> None:
    before, context = context_api.get_current(), named("a")
    with use_context(context) as given_back:
        assert given_back is context
        assert context_api.get_current() is context
    assert context_api.get_current() is before


@pytest.mark.anyio
async def test_block_works_with_async_with() -> None:
    async with use_context(named("a")):
        await asyncio.sleep(0)
        assert name_of_current() == "a"
        async with remote_parent(CARRIER):
            assert current_trace_id() == TRACE_ID
        assert name_of_current() == "a"


def test_exception_leaves_the_block_untouched() -> None:
    error = ValueError("x")
    with pytest.raises(ValueError, match="x") as caught, use_context(named("a")):
        raise error
    assert caught.value is error
    assert error.__context__ is None


def test_remote_parent_is_the_parent_of_spans() -> None:
    with remote_parent(CARRIER) as context:
        assert context_api.get_current() is context
        span = TRACER.start_span("server")
    assert span.get_span_context().trace_id == int(TRACE_ID, 16)
    parent = span.parent  # type: ignore[attr-defined]
    assert parent is not None
    assert parent.is_remote


@pytest.mark.parametrize("carrier", [None, {}, {"traceparent": "junk"}, 3])
def test_without_a_remote_parent_spans_start_a_new_trace(carrier: object) -> None:
    with TRACER.start_as_current_span("unrelated") as unrelated, remote_parent(carrier):
        span = TRACER.start_span("server")
    assert span.get_span_context().trace_id != unrelated.get_span_context().trace_id
    assert span.parent is None  # type: ignore[attr-defined]


def test_extract_takes_nothing_from_the_current_context() -> None:
    with use_context(baggage.set_baggage("a", "1", named("a"))):
        assert extract({}) == Context()
        assert set(extract(CARRIER)) == set(extract(CARRIER).keys())
        assert baggage.get_all(extract(CARRIER)) == {}


@pytest.mark.parametrize("context", [None, {}, 3, CARRIER])
def test_what_is_no_context_changes_nothing(context: Any) -> None:
    before = context_api.get_current()
    with use_context(context):
        assert context_api.get_current() is before


def test_one_block_may_be_entered_again() -> None:
    block, inner = use_context(named("a")), use_context(named("b"))
    with block, inner, block:
        assert name_of_current() == "a"
    with block:
        assert name_of_current() == "a"


def test_one_block_may_be_entered_by_threads_at_once() -> None:
    block, both_inside = remote_parent(CARRIER), threading.Barrier(2)
    seen: list[tuple[str | None, str | None]] = []

    def work() -> None:
        with block:
            both_inside.wait(10)
            inside = current_trace_id()
        seen.append((inside, current_trace_id()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(TRACE_ID, None)] * 2


def test_blocks_that_overlap_leave_nothing_behind() -> None:
    first, second = use_context(named("first")), use_context(named("second"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert name_of_current() == "second"
    second.__exit__(None, None, None)
    assert name_of_current() is None


@given(st.lists(st.integers(0, 4), max_size=30))
def test_current_context_is_that_of_the_innermost_open_block(steps: list[int]) -> None:
    """In whatever order blocks are entered and left, except that a block left below others is current no more."""
    blocks = {number: use_context(named(str(number))) for number in range(5)}
    is_open: list[int] = []
    for number in steps:
        if number in is_open:
            is_open.remove(number)
            blocks[number].__exit__(None, None, None)
        else:
            is_open.append(number)
            blocks[number].__enter__()
        assert name_of_current() == (str(is_open[-1]) if is_open else None)
    for number in is_open:
        blocks[number].__exit__(None, None, None)
    assert name_of_current() is None


OVERLAPPING: Final[dict[str, Callable[[], Any]]] = {
    "context": lambda: use_context(named("context")),
    "remote": lambda: remote_parent(CARRIER),
    "baggage": lambda: set_baggage("tenant", "a"),
    "span": lambda: traced_block("test.block"),
}


@given(st.lists(st.tuples(st.sampled_from([*OVERLAPPING]), st.integers(0, 5)), max_size=12), st.booleans())
def test_blocks_and_spans_may_outlive_each_other(steps: list[tuple[str, int]], is_inside: bool) -> None:
    """As plain generators make them, each holding a block open, closed in any order."""
    contextvars.Context().run(_overlap, steps, is_inside)


def _overlap(steps: list[tuple[str, int]], is_inside: bool) -> None:
    with capture_spans(), traced_block("test.outer") if is_inside else contextlib.nullcontext():
        base = context_api.get_current()
        is_open: list[Any] = []
        for kind, number in steps:
            if number < len(is_open):
                is_open.pop(number).__exit__(None, None, None)
            else:
                is_open.append(OVERLAPPING[kind]())
                is_open[-1].__enter__()
            current = trace.get_current_span()
            assert current.is_recording() or not isinstance(current, ReadableSpan), "an ended span is current"
        for block in is_open:
            block.__exit__(None, None, None)
        assert context_api.get_current() == base


def test_leaving_without_entering_changes_nothing() -> None:
    with use_context(named("a")):
        use_context(named("b")).__exit__(None, None, None)
        assert name_of_current() == "a"


def test_what_is_attached_inside_and_never_detached_ends_with_the_block() -> None:
    with use_context(named("a")):
        context_api.attach(named("leaked"))
        set_baggage("tenant", "a")
    assert name_of_current() is None


def test_block_left_in_another_context_changes_nothing_there() -> None:
    block = use_context(named("a"))
    foreign = contextvars.copy_context()
    foreign.run(context_api.attach, named("foreign"))
    with use_context(named("outer")):
        block.__enter__()
        foreign.run(block.__exit__, None, None, None)
        assert foreign.run(name_of_current) == "foreign"
    assert name_of_current() is None


def test_block_in_a_generator_that_is_collected_by_another_thread_is_repaired() -> None:
    def steps() -> Iterator[object]:
        with use_context(named("generator")):
            yield name_of_current()

    with use_context(named("outer")):
        generator = steps()
        assert next(generator) == "generator"
        thread = threading.Thread(target=generator.close)
        thread.start()
        thread.join()
        with use_context(named("next")):
            pass
        assert name_of_current() == "outer"


@pytest.mark.anyio
async def test_block_in_an_async_generator_that_is_closed_by_another_task_logs_nothing() -> None:
    async def steps() -> AsyncIterator[object]:
        async with remote_parent(CARRIER):
            yield current_trace_id()

    generator = steps()
    first = asyncio.ensure_future(anext(generator))
    assert await first == TRACE_ID
    assert current_trace_id() is None
    await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]
    assert current_trace_id() is None
    gc.collect()


@pytest.mark.anyio
async def test_tasks_inherit_the_block_and_outlive_it() -> None:
    left = asyncio.Event()

    async def work() -> str | None:
        await left.wait()
        return current_trace_id()

    async with remote_parent(CARRIER):
        task = asyncio.create_task(work())
    left.set()
    assert await task == TRACE_ID
    assert current_trace_id() is None


@pytest.mark.anyio
async def test_tasks_keep_the_block_they_inherited_after_one_of_their_own() -> None:
    left = asyncio.Event()

    async def work() -> str | None:
        await left.wait()
        with use_context(named("a")):
            pass
        return current_trace_id()

    async with remote_parent(CARRIER):
        task = asyncio.create_task(work())
    left.set()
    assert await task == TRACE_ID


@pytest.mark.anyio
async def test_block_around_repairs_what_another_task_has_left() -> None:
    async def steps() -> AsyncIterator[object]:
        async with remote_parent(CARRIER):
            yield current_trace_id()

    async with use_context(named("outer")):
        generator = steps()
        assert await anext(generator) == TRACE_ID
        await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]
        async with use_context(named("next")):
            pass
        assert name_of_current() == "outer"
        generator = steps()
        assert await anext(generator) == TRACE_ID
        await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]
    assert current_trace_id() is None
    assert name_of_current() is None


def test_closed_blocks_do_not_pile_up() -> None:
    def steps() -> Iterator[None]:
        with use_context(named("generator")):
            yield

    def one_round() -> None:
        generator = steps()
        next(generator)
        thread = threading.Thread(target=generator.close)
        thread.start()
        thread.join()

    def open_blocks() -> int:
        gc.collect()
        return sum(type(kept).__name__ == "_Frame" for kept in gc.get_objects())

    with use_context(named("outer")):
        one_round()
        few = open_blocks()
        for _ in range(20):
            one_round()
        assert open_blocks() <= few + 1


def test_context_given_to_inject_beats_the_current_one() -> None:
    with TRACER.start_as_current_span("current") as span:
        assert inject()["traceparent"].split("-")[2] == trace.format_span_id(span.get_span_context().span_id)
        assert inject({}, extract(CARRIER)) == CARRIER


def test_nothing_is_injected_without_a_trace() -> None:
    assert inject() == {}


# -- propagators


@pytest.fixture
def use_propagator() -> Iterator[Any]:
    before = propagate.get_global_textmap()
    yield propagate.set_global_textmap
    propagate.set_global_textmap(before)


B3: Final = {"X-B3-TraceId": TRACE_ID, "X-B3-SpanId": "00f067aa0ba902b7", "X-B3-Sampled": "1"}


@pytest.mark.parametrize(
    ("module", "name", "field", "carrier"),
    [
        ("opentelemetry.propagators.b3", "B3MultiFormat", "x-b3-traceid", B3),
        (
            "opentelemetry.propagators.b3",
            "B3MultiFormat",
            "x-b3-traceid",
            {k.encode(): v.encode() for k, v in B3.items()},
        ),
        (
            "opentelemetry.propagators.b3",
            "B3MultiFormat",
            "x-b3-traceid",
            {"HTTP_" + key.upper().replace("-", "_"): value for key, value in B3.items()},
        ),
        ("opentelemetry.propagators.b3", "B3SingleFormat", "b3", [(b"B3", f"{TRACE_ID}-00f067aa0ba902b7-1".encode())]),
        (
            "opentelemetry.propagators.jaeger",
            "JaegerPropagator",
            "uber-trace-id",
            {"Uber-Trace-Id": f"{TRACE_ID}:00f067aa0ba902b7:0:1", "Uberctx-Tenant": "a"},
        ),
        (
            "opentelemetry.propagators.aws",
            "AwsXRayPropagator",
            "X-Amzn-Trace-Id",
            {"x-amzn-trace-id": f"Root=1-{TRACE_ID[:8]}-{TRACE_ID[8:]};Parent=00f067aa0ba902b7;Sampled=1"},
        ),
    ],
    ids=["b3multi", "b3multi of bytes", "b3multi of CGI", "b3", "jaeger", "xray"],
)
def test_chosen_propagator_reads_and_writes(
    use_propagator: Any, module: str, name: str, field: str, carrier: Any
) -> None:
    use_propagator(getattr(pytest.importorskip(module), name)())
    with remote_parent(carrier):
        assert current_trace_id() == TRACE_ID
        written = inject()
    assert field in written
    assert "traceparent" not in written
    with remote_parent(written):
        assert current_trace_id() == TRACE_ID
    assert inject({name.lower(): "old" for name in written}, extract(carrier)) == written


class FailingPropagator(TextMapPropagator):
    @property
    def fields(self) -> set[str]:
        raise RuntimeError

    def extract(self, *args: Any, **kwargs: Any) -> Context:
        raise RuntimeError

    inject = extract  # type: ignore[assignment]


def test_failing_propagator_reaches_nobody(use_propagator: Any, caplog: pytest.LogCaptureFixture) -> None:
    use_propagator(FailingPropagator())
    with use_context(named("a")):
        assert extract(CARRIER) == Context()
        assert inject() == {}
        assert inject(CARRIER) is CARRIER


@pytest.mark.parametrize(
    ("setting", "traceparent", "warning"),
    [
        (None, True, False),
        ("tracecontext,baggage", True, False),
        ("none", False, False),
        ("baggage", False, False),
        ("no-such-propagator", True, True),
    ],
)
def test_environment_names_the_propagators(setting: str | None, traceparent: bool, warning: bool) -> None:
    code = f"from tracekit import extract, inject; print('traceparent' in inject(context=extract({CARRIER!r})), end='')"
    environment = {key: value for key, value in os.environ.items() if key != "OTEL_PROPAGATORS"}
    if setting is not None:
        environment["OTEL_PROPAGATORS"] = setting
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert ran.stdout == str(traceparent)
    assert ("OTEL_PROPAGATORS failed" in ran.stderr) is warning


def test_failures_are_logged_without_values(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    extract({"traceparent": "secret", "tracestate": "secret", "baggage": "secret"})
    inject("secret", extract(CARRIER))
    extract("secret")
    assert "secret" not in caplog.text
