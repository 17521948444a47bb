"""
What one call costs: plain, in an empty closure, with `@traced`, by hand as a guide shows it, with other decorators.

Off is without any provider, unsampled with a sampler that says no, recorded with the SDK's provider and batch processor
and an exporter that discards. No case exports while it is measured: the queue is emptied between the rounds.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, final

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import Status, StatusCode, Tracer

from benchmarks.harness import Case, Table
from benchmarks.peers import peers
from tracekit import arg, traced

# Below the size of an export batch: the processor's thread stays asleep while a round is measured.
MOST_SPANS: Final = 400

BY_HAND: Final = "by hand, recorded"


@final
class Discard(SpanExporter):
    """An exporter that takes everything and keeps nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002  # the interface's name
        """Take *spans*."""
        return SpanExportResult.SUCCESS


def recording_provider() -> TracerProvider:
    """Return the SDK's provider with its batch processor, as an application has it."""
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Discard(), schedule_delay_millis=3_600_000))
    return provider


# The work: nearly nothing, so that what is measured is what is around it.


def function(count: int, amount: float) -> float:
    return count * amount


async def coroutine_function(count: int, amount: float) -> float:
    return count * amount


def generator_function(count: int, amount: float) -> Generator[float, None, None]:
    yield from repeat(amount, count)


async def async_generator_function(count: int, amount: float) -> AsyncGenerator[float, None]:
    for _ in repeat(None, count):
        yield amount


# An empty closure round each: the least any decorator can cost.


def close_function(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def closure(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return closure


def close_coroutine_function(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    async def closure(*args: Any, **kwargs: Any) -> Any:
        return await func(*args, **kwargs)

    return closure


def close_generator_function(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def closure(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from func(*args, **kwargs))

    return closure


def close_async_generator_function(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    async def closure(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        async for item in func(*args, **kwargs):
            yield item

    return closure


# By hand: a span, two attributes, the status, the exception. Twins: only the kind of function differs.


def write_function(tracer: Tracer) -> Callable[..., Any]:
    def by_hand(count: int, amount: float) -> float:
        with tracer.start_as_current_span("calls.function") as span:
            span.set_attribute("count", count)
            span.set_attribute("amount", amount)
            try:
                result = count * amount
                span.set_status(Status(StatusCode.OK))
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, str(error)))
                span.record_exception(error)
                raise
            else:
                return result

    return by_hand


def write_coroutine_function(tracer: Tracer) -> Callable[..., Any]:
    async def by_hand(count: int, amount: float) -> float:
        with tracer.start_as_current_span("calls.coroutine_function") as span:
            span.set_attribute("count", count)
            span.set_attribute("amount", amount)
            try:
                result = count * amount
                span.set_status(Status(StatusCode.OK))
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, str(error)))
                span.record_exception(error)
                raise
            else:
                return result

    return by_hand


def write_generator_function(tracer: Tracer) -> Callable[..., Any]:
    def by_hand(count: int, amount: float) -> Generator[float, None, None]:
        with tracer.start_as_current_span("calls.generator_function") as span:
            span.set_attribute("count", count)
            span.set_attribute("amount", amount)
            try:
                yield from repeat(amount, count)
                span.set_status(Status(StatusCode.OK))
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, str(error)))
                span.record_exception(error)
                raise

    return by_hand


def write_async_generator_function(tracer: Tracer) -> Callable[..., Any]:
    async def by_hand(count: int, amount: float) -> AsyncGenerator[float, None]:
        with tracer.start_as_current_span("calls.async_generator_function") as span:
            span.set_attribute("count", count)
            span.set_attribute("amount", amount)
            try:
                for _ in repeat(None, count):
                    yield amount
                span.set_status(Status(StatusCode.OK))
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, str(error)))
                span.record_exception(error)
                raise

    return by_hand


# Doing it many times.


def call_function(func: Callable[..., Any], times: int) -> None:
    for _ in repeat(None, times):
        func(1, 9.5)


def call_coroutine_function(func: Callable[..., Any], times: int) -> None:
    async def call() -> None:
        for _ in repeat(None, times):
            await func(1, 9.5)

    _finish(call())


def call_generator_function(func: Callable[..., Any], times: int) -> None:
    for _ in repeat(None, times):
        for _ in func(1, 9.5):
            pass


def call_async_generator_function(func: Callable[..., Any], times: int) -> None:
    async def call() -> None:
        for _ in repeat(None, times):
            async for _ in func(1, 9.5):
                pass

    _finish(call())


def step_generator(func: Callable[..., Any], times: int) -> None:
    for _ in func(times, 9.5):
        pass


def step_async_generator(func: Callable[..., Any], times: int) -> None:
    async def step() -> None:
        async for _ in func(times, 9.5):
            pass

    _finish(step())


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run *coroutine*, which never waits, without the cost of an event loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    msg = "the coroutine waited for something"
    raise RuntimeError(msg)


@final
@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of callable: the function, the ways around it, and how to do it many times."""

    title: str
    func: Callable[..., Any]
    close: Callable[[Callable[..., Any]], Callable[..., Any]]
    write: Callable[[Tracer], Callable[..., Any]]
    repeat: Callable[[Callable[..., Any], int], None]
    spans_for_each: bool = True


KINDS: Final = (
    Kind("a call of a function", function, close_function, write_function, call_function),
    Kind(
        "a call of a coroutine function",
        coroutine_function,
        close_coroutine_function,
        write_coroutine_function,
        call_coroutine_function,
    ),
    Kind(
        "a call of a generator function, one item",
        generator_function,
        close_generator_function,
        write_generator_function,
        call_generator_function,
    ),
    Kind(
        "a call of an async generator function, one item",
        async_generator_function,
        close_async_generator_function,
        write_async_generator_function,
        call_async_generator_function,
    ),
    Kind(
        "an item of a generator",
        generator_function,
        close_generator_function,
        write_generator_function,
        step_generator,
        spans_for_each=False,
    ),
    Kind(
        "an item of an async generator",
        async_generator_function,
        close_async_generator_function,
        write_async_generator_function,
        step_async_generator,
        spans_for_each=False,
    ),
)


def tables() -> Iterator[Table]:
    """Return a table for each kind of callable."""
    # A full queue would be logged; the cases keep it from filling.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    recording = recording_provider()
    dropping = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    for kind in KINDS:
        yield Table(kind.title, list(_cases(kind, recording, dropping)), BY_HAND if kind.spans_for_each else "plain")


def _cases(kind: Kind, recording: TracerProvider, dropping: TracerProvider) -> Iterator[Case]:
    func = kind.func

    def case(name: str, func: Callable[..., Any]) -> Case:
        most = MOST_SPANS if kind.spans_for_each else None
        return Case(name, functools.partial(kind.repeat, func), recording.force_flush, most)

    def cheap(name: str, func: Callable[..., Any]) -> Case:
        return Case(name, functools.partial(kind.repeat, func))

    extractors: dict[str, Any] = {"order.count": arg("count"), "order.amount": lambda amount: amount}
    yield cheap("plain", func)
    yield cheap("closure", kind.close(func))
    yield cheap("@traced, off", traced(func))
    yield cheap("@traced, unsampled", traced(tracer_provider=dropping)(func))
    yield case("@traced, recorded, no attributes", traced(tracer_provider=recording, capture=False)(func))
    yield case("@traced, recorded", traced(tracer_provider=recording)(func))
    yield case("@traced, recorded, two extractors", traced(tracer_provider=recording, attributes=extractors)(func))
    yield cheap("by hand, off", kind.write(trace.get_tracer("benchmarks")))
    yield cheap("by hand, unsampled", kind.write(dropping.get_tracer("benchmarks")))
    yield case(BY_HAND, kind.write(recording.get_tracer("benchmarks")))
    if "generator" in kind.title:
        return  # there the raw decorator and the peers end the span before the first item, or leak it
    yield cheap("raw decorator, off", trace.get_tracer("benchmarks").start_as_current_span("calls.raw")(func))
    raw = recording.get_tracer("benchmarks").start_as_current_span("calls.raw")
    yield case("raw decorator, recorded, no attributes", raw(func))
    for peer in peers(Discard):
        yield Case(peer.name, functools.partial(kind.repeat, peer.decorate(func)), peer.flush, MOST_SPANS)
