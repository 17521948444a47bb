"""Random schedules of traced tasks, generators and threads: results as without tracing, spans as the model says."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry import context as context_api
from schedules import AnyRun, Node, Run, programs

from tracekit import current_span, traced, traced_block
from tracekit.testing import CapturedSpan, capture_spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> Iterator[None]:
    """Leave out of each collection what was there before."""
    gc.freeze()
    yield
    gc.unfreeze()


@contextlib.contextmanager
def nothing_logged() -> Iterator[None]:
    """Fail where OpenTelemetry or tracekit log something: "Failed to detach context" above all."""
    records: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("opentelemetry", "tracekit")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert records == []


def _compare(program: Node, make: Callable[..., Run], **options: Any) -> int:
    """Run *program* plain and traced; return how often it paused."""
    plain = make(is_traced=False, **options)
    expected = plain.of(program)
    run = make(is_traced=True, **options)
    with nothing_logged(), capture_spans() as spans:
        before = context_api.get_current()
        actual = run.of(program)
        assert context_api.get_current() == before
    assert actual == expected
    assert run.log == plain.log
    assert run.misplaced == []
    assert spans.still_open == []
    assert {span.name: _name_of(span.parent) for span in spans} == run.parents
    assert len(spans) == len(run.parents)
    return plain.pauses


def _name_of(parent: Any) -> str | None:
    return parent.name if isinstance(parent, CapturedSpan) else parent


def _compare_everywhere(program: Node, make: Callable[..., Run], most: int, *more: dict[str, Any]) -> None:
    """Run *program* as it is, and cancelled at each of its first *most* pauses."""
    pauses = _compare(program, make)
    for cancel_at in range(min(pauses, most)):
        for options in more or ({},):
            _compare(program, make, cancel_at=cancel_at, **options)


_QUICK: Final = settings(max_examples=30, suppress_health_check=list(HealthCheck))
_LONG: Final = settings(max_examples=200, suppress_health_check=list(HealthCheck))
_BOTH: Final = ({"cancels_all": False}, {"cancels_all": True})


@_QUICK
@given(programs())
def test_any_program_of_tasks_runs_as_without_tracing_wherever_it_is_cancelled(program: Node) -> None:
    _compare_everywhere(program, Run, 3, *_BOTH)


@pytest.mark.slow
@pytest.mark.timeout(600)
@_LONG
@given(programs())
def test_any_program_of_tasks_runs_as_without_tracing_wherever_it_is_cancelled_at_length(program: Node) -> None:
    _compare_everywhere(program, Run, 40, *_BOTH)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@_QUICK
@given(programs())
def test_any_program_on_anyio_runs_as_without_tracing_wherever_it_is_cancelled(backend: str, program: Node) -> None:
    _compare_everywhere(program, functools.partial(AnyRun, backend), 3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@_LONG
@given(programs())
def test_any_program_on_anyio_runs_as_without_tracing_wherever_it_is_cancelled_at_length(
    backend: str, program: Node
) -> None:
    _compare_everywhere(program, functools.partial(AnyRun, backend), 40)


@pytest.mark.slow
def test_ten_thousand_tasks_at_once_keep_their_parents() -> None:
    @traced("s.task", capture=False)
    async def work(number: int) -> int:
        before = current_span()
        await asyncio.sleep(0)
        total = 0
        async for item in items(number):
            total += item
            assert current_span() is before
        return total

    @traced("s.items", capture=("number",))
    async def items(number: int) -> AsyncIterator[int]:
        for item in range(number % 3):
            yield item
            await asyncio.sleep(0)

    async def main() -> list[int]:
        with traced_block("s.all"):
            return await asyncio.gather(*(work(number) for number in range(10_000)))

    with nothing_logged(), capture_spans() as spans:
        assert asyncio.run(main()) == [sum(range(number % 3)) for number in range(10_000)]
    whole = spans.one("s.all")
    assert {span.parent.span_id for span in spans.all("s.task") if span.parent} == {whole.span_id}
    tasks = Counter(span.parent.span_id for span in spans.all("s.items") if span.parent)
    assert tasks == Counter(span.span_id for span in spans.all("s.task"))
    assert (len(spans), spans.still_open) == (20_001, [])
