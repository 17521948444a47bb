"""`@traced` with the decorators of the standard library, above and below them."""

from __future__ import annotations

import abc
import asyncio
import atexit
import contextlib
import copy
import functools
import inspect
import operator
import pickle
import threading
import types
import typing
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tracekit import traced

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator

    from tracekit.testing import CapturedSpans

pytestmark = pytest.mark.anyio

CACHES = pytest.mark.parametrize(
    "cache", [functools.cache, functools.lru_cache, functools.lru_cache(maxsize=2, typed=True)]
)


# Caches.


@CACHES
def test_traced_above_a_cache_traces_each_call(cache: Any, spans: CapturedSpans) -> None:
    @traced
    @cache
    def rate(currency: str) -> list[str]:
        return [currency]

    assert rate("EUR") is rate("EUR")
    assert rate.cache_info()[:2] == (1, 1)
    assert "maxsize" in rate.cache_parameters()
    rate.cache_clear()
    assert rate.cache_info().currsize == 0
    assert str(inspect.signature(rate)) == "(currency: 'str') -> 'list[str]'"
    assert [span.attributes["currency"] for span in spans] == ["EUR", "EUR"]


@CACHES
def test_traced_below_a_cache_traces_each_miss(cache: Any, spans: CapturedSpans) -> None:
    @cache
    @traced
    def rate(currency: str) -> list[str]:
        return [currency]

    assert rate("EUR") is rate("EUR")
    assert rate.cache_info()[:2] == (1, 1)
    assert len(spans) == 1


@pytest.mark.parametrize("above", [True, False])
def test_cached_method_binds(above: bool, spans: CapturedSpans) -> None:
    class Rates:
        if above:

            @traced
            @functools.cache  # noqa: B019  # the point
            def rate(self, currency: str) -> list[str]:
                return [currency]
        else:

            @functools.cache  # noqa: B019  # the point
            @traced
            def rate(self, currency: str) -> list[str]:
                return [currency]

    rates = Rates()
    assert rates.rate("EUR") is rates.rate("EUR")
    assert spans.names == ["rates.rate"] * (2 if above else 1)


def test_cached_property_below_is_computed_once(spans: CapturedSpans) -> None:
    class Order:
        @functools.cached_property
        @traced
        def total(self) -> list[int]:
            """Sum."""
            return [7]

    order = Order()
    assert order.total is order.total
    assert Order.total.__doc__ == "Sum."
    assert spans.names == ["order.total"]


# Properties and other descriptors.


def test_property_below_traces_each_access(spans: CapturedSpans) -> None:
    class Order:
        def __init__(self) -> None:
            self.value = 1

        @property
        @traced
        def total(self) -> int:
            """Sum."""
            return self.value

        @total.setter
        @traced("order.set_total")
        def total(self, value: int) -> None:
            self.value = value

        @total.deleter
        @traced("order.drop_total")
        def total(self) -> None:
            self.value = 0

    order = Order()
    order.total = 5
    assert order.total == 5
    del order.total
    assert Order.total.__doc__ == "Sum."
    assert spans.names == ["order.set_total", "order.total", "order.drop_total"]


@pytest.mark.parametrize("descriptor", ["property", "cached_property", "singledispatchmethod", "partialmethod"])
def test_traced_above_a_descriptor_says_what_to_write(descriptor: str) -> None:
    from tracekit.errors import InstrumentationError

    def total(self: Any) -> int:
        return 7

    kind = {"property": property}.get(descriptor) or getattr(functools, descriptor)
    with pytest.raises(InstrumentationError, match=rf"{descriptor}.*above a def"):
        traced(kind(total))


@pytest.mark.parametrize("above", [True, False])
def test_static_and_class_methods_in_either_order(above: bool, spans: CapturedSpans) -> None:
    def price(order_id: int) -> int:
        return order_id

    def load(cls: type) -> type:
        return cls

    class Order:
        static = traced("order.price")(staticmethod(price)) if above else staticmethod(traced("order.price")(price))
        of_class = traced("order.load")(classmethod(load)) if above else classmethod(traced("order.load")(load))

    class Sub(Order): ...

    assert isinstance(vars(Order)["static"], staticmethod)
    assert isinstance(vars(Order)["of_class"], classmethod)
    assert Order.static(1) == Order().static(1) == Sub.static(1) == 1
    assert (Sub.of_class(), Sub().of_class(), Order.of_class()) == (Sub, Sub, Order)
    assert spans.names == ["order.price"] * 3 + ["order.load"] * 3


@pytest.mark.parametrize("above", [True, False])
def test_abstract_method_stays_abstract(above: bool, spans: CapturedSpans) -> None:
    class Gateway(abc.ABC):  # noqa: B024  # either has it
        if above:

            @traced
            @abc.abstractmethod
            def charge(self) -> str:
                return "base"
        else:

            @abc.abstractmethod
            @traced
            def charge(self) -> str:
                return "base"

    class Stripe(Gateway):
        def charge(self) -> str:
            return super().charge()  # type: ignore[safe-super]

    with pytest.raises(TypeError, match="abstract"):
        Gateway()  # type: ignore[abstract]
    assert Stripe().charge() == "base"
    assert spans.names == ["gateway.charge"]


def test_partialmethod_of_a_traced_method(spans: CapturedSpans) -> None:
    class Order:
        @traced
        def mark(self, status: str) -> str:
            return status

        pay = functools.partialmethod(mark, "paid")

    assert Order().pay() == "paid"
    assert spans.one("order.mark").attributes["status"] == "paid"


# Dispatch.


def test_traced_above_singledispatch_traces_the_dispatch(spans: CapturedSpans) -> None:
    @traced
    @functools.singledispatch
    def show(value: object) -> str:
        return "object"

    @show.register
    def _(value: int) -> str:
        return "int"

    @show.register(str)
    def _(value: Any) -> str:
        return "str"

    assert (show(1), show("a"), show(None)) == ("int", "str", "object")
    assert show.dispatch(int)(1) == "int"
    assert set(show.registry) == {object, int, str}
    assert [span.name.partition(".")[2] for span in spans] == ["show"] * 3


def test_traced_below_singledispatch_traces_the_implementations(spans: CapturedSpans) -> None:
    @functools.singledispatch
    @traced
    def show(value: object) -> str:
        return "object"

    @show.register
    @traced("values.show_int")
    def _(value: int) -> str:
        return "int"

    assert (show(1), show(None)) == ("int", "object")
    assert [span.name.partition(".")[2] for span in spans] == ["show_int", "show"]


def test_singledispatchmethod_of_traced_methods(spans: CapturedSpans) -> None:
    class Printer:
        @functools.singledispatchmethod
        @traced
        def show(self, value: object) -> str:
            return "object"

        @show.register
        @traced
        def show_int(self, value: int) -> str:
            return "int"

        @show.register
        @classmethod
        @traced
        def show_str(cls, value: str) -> str:
            return "str"

    assert [Printer().show(value) for value in (None, 1, "a")] == ["object", "int", "str"]
    assert spans.names == ["printer.show", "printer.show_int", "printer.show_str"]


# Context managers.


def test_traced_below_contextmanager_spans_the_body(spans: CapturedSpans) -> None:
    @contextlib.contextmanager
    @traced("orders.transaction")
    def transaction(name: str) -> Iterator[str]:
        try:
            yield name
        except KeyError:
            traced("orders.rollback")(lambda: None)()

    with transaction("t") as name:
        assert len(spans) == 0
    with transaction("u"):
        raise KeyError(name)

    @transaction("v")
    def run() -> str:
        return "ran"

    assert run() == run() == "ran"
    assert [span.name for span in spans.all("orders.transaction")] == ["orders.transaction"] * 4
    assert spans.one("orders.rollback").parent is spans.all("orders.transaction")[1]
    assert {span.status.status_code.name for span in spans} == {"OK"}


def test_exception_leaves_a_traced_contextmanager_as_without_it(spans: CapturedSpans) -> None:
    @contextlib.contextmanager
    @traced("orders.transaction")
    def transaction() -> Iterator[None]:
        yield

    error = KeyError("order")
    with pytest.raises(KeyError) as caught, transaction():
        raise error
    assert caught.value is error
    assert error.__context__ is None
    for stop in (StopIteration("a"), StopIteration()):
        with pytest.raises(StopIteration) as stopped, transaction():
            raise stop
        assert stopped.value is stop


def test_traced_above_contextmanager_spans_the_making(spans: CapturedSpans) -> None:
    @traced("orders.transaction")
    @contextlib.contextmanager
    def transaction(name: str) -> Iterator[str]:
        yield name

    with transaction("t") as name:
        assert name == "t"
        assert len(spans) == 1
    assert spans.one("orders.transaction").attributes["name"] == "t"


async def test_traced_below_asynccontextmanager_spans_the_body(spans: CapturedSpans) -> None:
    @contextlib.asynccontextmanager
    @traced("orders.transaction")
    async def transaction(name: str) -> AsyncIterator[str]:
        try:
            yield name
        except KeyError:
            await asyncio.sleep(0)

    async with transaction("t") as name:
        assert name == "t"
        assert len(spans) == 0
    async with transaction("u"):
        raise KeyError(name)
    error = ValueError("order")
    with pytest.raises(ValueError, match="order") as caught:
        async with transaction("v"):
            raise error
    assert caught.value is error
    assert [span.status.status_code.name for span in spans] == ["OK", "OK", "ERROR"]


async def test_exit_stacks_close_traced_context_managers(spans: CapturedSpans) -> None:
    @contextlib.contextmanager
    @traced("orders.lock")
    def lock(name: str) -> Iterator[str]:
        yield name

    @contextlib.asynccontextmanager
    @traced("orders.connect")
    async def connect(name: str) -> AsyncIterator[str]:
        yield name

    async with contextlib.AsyncExitStack() as stack:
        assert stack.enter_context(lock("a")) == "a"
        assert await stack.enter_async_context(connect("b")) == "b"
        stack.callback(traced("orders.clean")(lambda: None))
        stack.push_async_callback(traced("orders.drain")(asyncio.sleep), 0)
    assert spans.names == ["orders.drain", "orders.clean", "orders.connect", "orders.lock"]


# Others.


def test_wraps_around_a_traced_function_makes_one_span(spans: CapturedSpans) -> None:
    @traced("orders.save")
    def save(order_id: int) -> int:
        return order_id

    @functools.wraps(save)
    def wrapper(*args: Any) -> int:
        return save(*args)

    assert wrapper(7) == 7
    assert spans.names == ["orders.save"]
    assert traced("orders.save")(wrapper)(8) == 8
    assert spans.names == ["orders.save"] * 3


def test_partial_of_a_traced_function_and_traced_partial(spans: CapturedSpans) -> None:
    def save(order_id: int, status: str) -> tuple[int, str]:
        return order_id, status

    below = functools.partial(traced("orders.save")(save), status="paid")
    above = traced("orders.pay")(functools.partial(save, status="paid"))
    assert below(7) == above(7) == (7, "paid")
    assert spans.names == ["orders.save", "orders.pay"]
    assert {span.attributes["status"] for span in spans} == {"paid"}
    assert pickle.loads(pickle.dumps(functools.partial(module_function, 1)))() == 1


@traced
def module_function(order_id: int) -> int:
    return order_id


def test_function_is_pickled_copied_and_referenced_as_itself() -> None:
    assert pickle.loads(pickle.dumps(module_function)) is module_function
    assert copy.copy(module_function) is copy.deepcopy(module_function) is module_function
    assert weakref.ref(module_function)() is module_function
    assert {module_function: 1}[module_function] == 1


def test_operator_functions_and_builtins_are_traced(spans: CapturedSpans) -> None:
    assert traced("math.add")(operator.add)(1, 2) == 3
    assert traced("values.first")(operator.itemgetter(0))([7]) == 7
    assert traced("values.upper")(str.upper)("a") == "A"
    assert traced("values.keys")({"a": 1}.keys)() == {"a"}
    assert len(spans) == 4


def test_total_ordering_and_traced_dunder(spans: CapturedSpans) -> None:
    @functools.total_ordering
    class Order:
        def __init__(self, order_id: int) -> None:
            self.order_id = order_id

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Order) and self.order_id == other.order_id

        __hash__ = None  # type: ignore[assignment]

        @traced
        def __lt__(self, other: Order) -> bool:
            return self.order_id < other.order_id

    assert Order(1) < Order(2)
    assert Order(2) >= Order(1)
    assert spans.names == ["order.__lt__"] * 2


@pytest.mark.parametrize("above", [True, False])
async def test_types_coroutine_is_awaited_as_before(above: bool, spans: CapturedSpans) -> None:
    def fetch() -> Generator[Any, Any, str]:
        yield from asyncio.sleep(0).__await__()
        return "fetched"

    decorated: Any = (
        traced("orders.fetch")(types.coroutine(fetch)) if above else types.coroutine(traced("orders.fetch")(fetch))
    )
    assert await decorated() == "fetched"
    assert spans.names == ["orders.fetch"]


def test_overload_final_and_override_leave_their_marks(spans: CapturedSpans) -> None:
    @traced
    @typing.final
    def last() -> None: ...

    @typing.no_type_check
    @traced
    def unchecked(value: 1) -> 2:  # type: ignore[valid-type]
        return value

    assert getattr(last, "__final__", True) is True
    assert unchecked.__no_type_check__ is True
    assert typing.get_type_hints(last) == {"return": type(None)}


def test_warning_of_a_traced_function_names_its_caller(spans: CapturedSpans) -> None:
    @traced
    def old() -> None:
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    with pytest.warns(DeprecationWarning, match="old") as caught:
        old()
    assert caught[0].filename == __file__


def test_callbacks_of_the_interpreter_take_traced_functions(spans: CapturedSpans) -> None:
    @traced("orders.work")
    def work(*args: Any) -> None: ...

    class Order: ...

    order = Order()
    weakref.finalize(order, work)
    del order
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    atexit.register(work)
    atexit.unregister(work)
    assert sorted([3, 1, 2], key=traced("orders.key")(lambda item: item)) == [1, 2, 3]
    assert list(map(traced("orders.map")(abs), [1, -2])) == [1, 2]
    assert functools.reduce(traced("orders.sum")(operator.add), [1, 2, 3]) == 6
    assert [spans.names.count(f"orders.{name}") for name in ("work", "key", "map", "sum")] == [2, 3, 2, 2]


def test_recursion_and_reentrancy_nest(spans: CapturedSpans) -> None:
    @traced("orders.count")
    def count(levels: int) -> int:
        return 0 if not levels else 1 + count(levels - 1)

    assert count(2) == 2
    spans.assert_tree("""
        orders.count  levels=2
          orders.count  levels=1
            orders.count  levels=0
    """)


def test_recursive_generator_nests(spans: CapturedSpans) -> None:
    @traced("orders.walk")
    def walk(levels: int) -> Generator[int, None, None]:
        yield levels
        if levels:
            yield from walk(levels - 1)

    assert list(walk(2)) == [2, 1, 0]
    spans.assert_tree("""
        orders.walk  levels=2 generator.items=3
          orders.walk  levels=1 generator.items=2
            orders.walk  levels=0 generator.items=1
    """)


async def test_reentered_coroutine_functions_do_not_mix(spans: CapturedSpans) -> None:
    @traced("orders.visit")
    async def visit(levels: int) -> int:
        await asyncio.sleep(0)
        return sum(await asyncio.gather(*(visit(levels - 1) for _ in range(2)))) if levels else 1

    assert await visit(3) == 8
    by_level = [[span for span in spans if span.attributes["levels"] == level] for level in range(4)]
    assert [len(level) for level in by_level] == [8, 4, 2, 1]
    assert all(len(span.children) == 2 for level in by_level[1:] for span in level)


def test_name_of_a_function_decorated_elsewhere_is_kept(spans: CapturedSpans) -> None:
    def repeat(times: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(func)
            def repeated(*args: Any, **kwargs: Any) -> Any:
                return [func(*args, **kwargs) for _ in range(times)]

            return repeated

        return decorate

    class Orders:
        @traced
        @repeat(2)
        def above(self, order_id: int) -> int:
            return order_id

        @repeat(2)
        @traced
        def below(self, order_id: int) -> int:
            return order_id

    assert Orders().above(7) == Orders().below(7) == [7, 7]
    assert spans.names == ["orders.above", "orders.below", "orders.below"]
    assert {span.attributes["order_id"] for span in spans} == {7}


async def test_closing_helpers_close_traced_generators(spans: CapturedSpans) -> None:
    closed: list[str] = []

    @traced("orders.lines")
    def lines() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            closed.append("lines")

    @traced("orders.stream")
    async def stream() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            closed.append("stream")

    with contextlib.closing(lines()) as generator:
        next(generator)
    async with contextlib.aclosing(stream()) as async_generator:
        await async_generator.__anext__()
    assert closed == ["lines", "stream"]
    assert [span.status.status_code.name for span in spans] == ["UNSET", "UNSET"]
