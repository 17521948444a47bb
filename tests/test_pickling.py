"""Traced functions travel: pickled, copied, referred to weakly, run in other processes. There they are traced still."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
import weakref
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import cloudpickle
import pytest

from tracekit import arg, traced
from tracekit.testing import capture_spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tracekit.testing import CapturedSpans

PROTOCOLS: Final = range(pickle.HIGHEST_PROTOCOL + 1)
START_METHODS: Final = multiprocessing.get_all_start_methods()


@traced("travel.double", attributes={"travel.number": arg("number")})
def double(number: int) -> int:
    return number * 2


@traced("travel.double_async")
async def double_async(number: int) -> int:
    return number * 2


@traced("travel.count")
def count(number: int) -> Iterator[int]:
    yield from range(number)


@traced("travel.count_async")
async def count_async(number: int) -> AsyncIterator[int]:
    yield number


@traced
class Adder:
    def __init__(self, base: int) -> None:
        self.base = base

    def add(self, number: int) -> int:
        return self.base + number

    @classmethod
    def zero(cls) -> Adder:
        return cls(0)

    @staticmethod
    def plain(number: int) -> int:
        return number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adder) and other.base == self.base

    def __hash__(self) -> int:
        return self.base


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("library", [pickle, cloudpickle])
@pytest.mark.parametrize("func", [double, double_async, count, count_async, Adder, Adder.plain, Adder.add])
def test_pickle_by_reference_gives_the_very_same_function(func: Any, library: Any, protocol: int) -> None:
    assert library.loads(library.dumps(func, protocol)) is func


@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_a_pickled_class_method_is_traced_where_it_arrives(library: Any, spans: CapturedSpans) -> None:
    zero = library.loads(library.dumps(Adder.zero))
    assert zero() == Adder(0)
    assert spans.names == ["adder.zero"]


@pytest.mark.parametrize("protocol", PROTOCOLS[2:])
def test_a_pickled_bound_method_is_traced_where_it_arrives(protocol: int, spans: CapturedSpans) -> None:
    add = pickle.loads(pickle.dumps(Adder(2).add, protocol))
    assert add(3) == 5
    assert spans.one("adder.add").attributes["number"] == 3


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copied_function_is_the_function(duplicate: Callable[[Any], Any]) -> None:
    assert duplicate(double) is double
    assert duplicate({"func": double})["func"] is double


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copied_instance_of_a_traced_class_is_traced(duplicate: Callable[[Any], Any], spans: CapturedSpans) -> None:
    adder = duplicate(Adder(2))
    assert adder == Adder(2)
    assert adder.add(1) == 3
    assert spans.names == ["adder.add"]


def test_a_weak_reference_lives_as_long_as_the_function() -> None:
    @traced
    def brief() -> None: ...

    reference = weakref.ref(brief)
    assert reference() is brief
    del brief
    assert reference() is None


def test_a_weak_method_lives_as_long_as_its_instance(spans: CapturedSpans) -> None:
    adder = Adder(1)
    method = weakref.WeakMethod(adder.add)
    bound = method()
    assert bound is not None
    assert bound(1) == 2
    del bound, adder
    assert method() is None
    assert spans.names == ["adder.add"]


SCRIPT: Final = """
    import asyncio, sys
    import cloudpickle
    from tracekit import SpanAttribute, add_event, arg, result, traced
    from typing import Annotated

    LIMIT = 10

    @traced("main.work", attributes={"work.number": arg("number"), "work.limit": lambda number: LIMIT - number,
                                     "work.result": result()}, expected=LookupError, kind="client")
    def work(number, *, more=1):
        add_event("working")
        return helper(number) + more

    @traced
    def helper(number: Annotated[int, SpanAttribute("helper.number")]):
        return number * 2

    @traced
    async def work_async(number):
        return work(number)

    @traced
    def count(number):
        yield from range(number)

    @traced
    async def count_async(number):
        for item in range(number):
            yield item

    @traced
    class Worker:
        def run(self, number):
            return self.rest(number)

        @staticmethod
        @traced
        def rest(number):
            return number - 1

    sys.stdout.buffer.write(cloudpickle.dumps((work, work_async, count, count_async, Worker)))
"""


def test_cloudpickle_by_value_carries_the_tracing_along(tmp_path: Path, spans: CapturedSpans) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    sent = subprocess.run([sys.executable, str(script)], capture_output=True, check=True).stdout
    work, work_async, count, count_async, worker = pickle.loads(sent)

    assert work(3) == 7
    span = spans.one("main.work")
    assert span.attributes["work.number"] == 3
    assert span.attributes["work.limit"] == 7
    assert span.attributes["work.result"] == 7
    assert [event.name for event in span.events] == ["working"]
    assert spans.one("script.helper").attributes["helper.number"] == 3
    assert spans.one("script.helper").parent is span
    spans.clear()

    with pytest.raises(StopIteration):
        work_async(3).send(None)
    assert list(count(2)) == [0, 1]
    with pytest.raises(StopIteration):
        count_async(2).__anext__().send(None)
    assert worker().run(3) == 2
    assert {"script.work_async", "script.count", "worker.run", "worker.rest"} <= {*spans.names}


def test_cloudpickle_by_value_carries_a_closure(spans: CapturedSpans) -> None:
    def adder(base: int) -> Callable[[int], int]:
        @traced("closures.add", capture=("number",))
        def add(number: int) -> int:
            return base + number

        return add

    add = cloudpickle.loads(cloudpickle.dumps(adder(3)))
    assert add(4) == 7
    assert spans.one("closures.add").attributes["number"] == 4
    assert traced("closures.add")(add) is add


def _call_traced(func: Callable[[int], Any], number: int) -> tuple[Any, list[str]]:
    """Call *func* in a child: what it returns, and the spans it made there."""
    with capture_spans() as spans:
        return func(number), spans.names


def _put_spans(func: Callable[[int], Any], queue: Any) -> None:
    queue.put(_call_traced(func, 5))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork, while other threads run
@pytest.mark.parametrize("method", START_METHODS)
def test_a_process_pool_calls_the_traced_function_in_its_workers(method: str) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert list(pool.map(double, [1, 2])) == [2, 4]
        assert pool.submit(_call_traced, double, 4).result() == (8, ["travel.double"])
        assert pool.submit(_call_traced, Adder(1).add, 4).result() == (5, ["adder.add"])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", START_METHODS)
def test_a_process_runs_the_traced_function(method: str) -> None:
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    child = context.Process(target=_put_spans, args=(double, queue))
    child.start()
    assert queue.get() == (10, ["travel.double"])
    child.join()
    traced_itself = context.Process(target=double, args=(1,))
    traced_itself.start()
    traced_itself.join()
    assert (child.exitcode, traced_itself.exitcode) == (0, 0)
