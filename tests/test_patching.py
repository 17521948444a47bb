"""Tracing code that somebody else wrote: found, replaced, put back, before and after it is imported."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import pickle
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
import wrapt

from tracekit import arg, configure, trace_callable, trace_module, traced
from tracekit.errors import InstrumentationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tracekit.testing import CapturedSpans

SHOP: Final = """
import functools
from json import dumps

class Base:
    def cancel(self, order_id):
        return ("cancelled", order_id)
    @classmethod
    def make(cls):
        return cls

class Orders(Base):
    size = 3
    shout = len
    def save(self, order_id, *, channel="web"):
        return ("saved", order_id, channel)
    async def send(self, order_id):
        return ("sent", order_id)
    def lines(self, order_id):
        got = yield order_id
        return got
    async def stream(self, order_id):
        yield order_id
    @staticmethod
    def price(order_id):
        return 12.5
    @classmethod
    def load(cls, order_id):
        return (cls, order_id)
    @property
    def total(self):
        return 7
    def __call__(self, order_id):
        return order_id
    def _hidden(self):
        return "hidden"
    class Line:
        def weigh(self):
            return 1

class _Private:
    def save(self):
        return "private"

class Table(dict):
    pass

def create_order(order_id):
    return Orders().save(order_id)

@functools.lru_cache
def rate(currency):
    return currency

def _helper():
    return "helped"

def fail():
    raise KeyError("order")

double = lambda number: number * 2
Alias = Orders
orders = Orders()
limit = 3
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Write a module that can be imported, and forget it at the end."""
    monkeypatch.syspath_prepend(str(tmp_path))
    # A file written twice within the resolution of its time stamp must be compiled again.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written: list[str] = []

    def write(name: str, code: str = SHOP) -> None:
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
        importlib.invalidate_caches()
        written.append(name.removesuffix(".__init__"))

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def shop(write: Callable[..., None]) -> Any:
    write("shop")
    return importlib.import_module("shop")


# What is traced, and how.


def test_function_of_a_module_is_traced(shop: Any, spans: CapturedSpans) -> None:
    undo = trace_callable("shop.create_order")
    assert shop.create_order(7) == ("saved", 7, "web")
    undo()
    shop.create_order(8)
    assert dict(spans.one("shop.create_order").attributes) == {"code.function.name": "shop.create_order", "order_id": 7}


def test_options_are_those_of_traced(shop: Any, spans: CapturedSpans) -> None:
    undo = trace_callable(
        "shop.Orders.save", "stock.save", kind="client", attributes={"order.id": arg("order_id"), "a": 1}
    )
    shop.Orders().save(7, channel="app")
    undo()
    span = spans.one("stock.save")
    assert span.kind.name == "CLIENT"
    assert dict(span.attributes) == {"code.function.name": "shop.Orders.save", "order.id": 7, "a": 1}


@pytest.mark.parametrize(
    ("target", "options", "name"),
    [
        ("shop.Orders.save", {}, "orders.save"),
        ("shop.Orders.save", {"service": "stock"}, "stock.save"),
        ("shop.Orders.cancel", {}, "orders.cancel"),
        ("shop.Orders.Line.weigh", {}, "line.weigh"),
        ("shop.double", {}, "shop.double"),
        ("shop.dumps", {}, "shop.dumps"),
        ("shop.Alias.save", {}, "alias.save"),
    ],
)
def test_span_is_named_by_the_target(
    shop: Any, spans: CapturedSpans, target: str, options: dict[str, Any], name: str
) -> None:
    undo = trace_callable(target, **options)
    shop.Orders().save(1), shop.Orders().cancel(1), shop.Orders.Line().weigh(), shop.double(1), shop.dumps(1)
    undo()
    assert [span.name for span in spans] == [name]


def test_name_without_a_dot_is_the_operation(shop: Any, spans: CapturedSpans) -> None:
    undo = trace_callable("shop.Orders.save", "keep")
    shop.Orders().save(1)
    undo()
    spans.one("orders.keep")


@pytest.mark.anyio
async def test_every_kind_of_method_keeps_its_kind_and_its_answers(shop: Any, spans: CapturedSpans) -> None:
    names = ("save", "send", "lines", "stream", "price", "load", "__call__", "make", "cancel")
    undos = [trace_callable(f"shop.Orders.{name}") for name in names]
    orders = shop.Orders()
    assert inspect.iscoroutinefunction(orders.send)
    assert inspect.isgeneratorfunction(orders.lines)
    assert inspect.isasyncgenfunction(orders.stream)
    assert str(inspect.signature(orders.save)) == "(order_id, *, channel='web')"
    assert orders.save(1) == ("saved", 1, "web")
    assert await orders.send(2) == ("sent", 2)
    assert list(orders.lines(3)) == [3]
    assert [item async for item in orders.stream(4)] == [4]
    assert shop.Orders.price(5) == orders.price(5) == 12.5
    assert orders.load(6) == (shop.Orders, 6)
    assert orders(7) == 7
    assert shop.Orders.make() is shop.Orders
    assert orders.cancel(8) == ("cancelled", 8)
    for undo in undos:
        undo()
    assert [span.name.partition(".")[2] for span in spans] == [*names[:5], "price", *names[5:]]


def test_inherited_method_is_traced_on_the_named_class_only(shop: Any, spans: CapturedSpans) -> None:
    before = dict(vars(shop.Orders))
    undo = trace_callable("shop.Orders.cancel")
    shop.Orders().cancel(1)
    shop.Base().cancel(2)
    undo()
    assert spans.one("orders.cancel").attributes["order_id"] == 1
    assert len(spans) == 1
    assert dict(vars(shop.Orders)) == before


def test_method_of_one_object_is_traced_on_that_object_only(shop: Any, spans: CapturedSpans) -> None:
    undo = trace_callable("shop.orders.save")
    shop.orders.save(1)
    shop.Orders().save(2)
    undo()
    assert spans.one("orders.save").attributes["order_id"] == 1
    assert vars(shop.orders) == {}


@pytest.mark.anyio
async def test_bound_coroutine_method_is_awaited_inside_its_span(shop: Any, spans: CapturedSpans) -> None:
    undo = trace_callable("shop.orders.send")
    assert inspect.iscoroutinefunction(shop.orders.send)
    assert await shop.orders.send(1) == ("sent", 1)
    undo()
    spans.one("orders.send")


def test_exception_passes_and_is_recorded(shop: Any, spans: CapturedSpans) -> None:
    undo = trace_callable("shop.fail")
    with pytest.raises(KeyError, match="order"):
        shop.fail()
    undo()
    assert spans.one("shop.fail").attributes["error.type"] == "KeyError"


@pytest.mark.parametrize("target", ["json.loads", "json.decoder.scanstring", "math.sqrt", "time.sleep", "builtins.len"])
def test_function_of_the_standard_library_is_traced_and_restored(target: str, spans: CapturedSpans) -> None:
    module, _, name = target.rpartition(".")
    owner = importlib.import_module(module)
    before = vars(owner)[name]
    undo = trace_callable(target)
    replaced = vars(owner)[name]
    undo()
    assert replaced is not before
    assert vars(owner)[name] is before


def test_function_written_in_c_is_called(spans: CapturedSpans) -> None:
    undo = trace_callable("time.sleep")
    time.sleep(0)
    with pytest.raises(TypeError):
        time.sleep()  # type: ignore[call-arg]
    undo()
    assert [span.status.status_code.name for span in spans.all("time.sleep")] == ["OK", "ERROR"]


def test_method_that_a_class_has_from_a_builtin_type_is_traced(shop: Any, spans: CapturedSpans) -> None:
    undo = trace_callable("shop.Table.get")
    assert shop.Table(a=1).get("a") == 1
    undo()
    spans.one("table.get")
    assert "get" not in vars(shop.Table)


def test_callable_that_does_not_bind_does_not_begin_to(shop: Any, spans: CapturedSpans) -> None:
    before = vars(shop.Orders)["shout"]
    undo = trace_callable("shop.Orders.shout")
    assert shop.Orders().shout("abc") == 3
    assert shop.Orders.shout("abc") == 3
    undo()
    assert vars(shop.Orders)["shout"] is before
    assert len(spans.all("orders.shout")) == 2


def test_cached_function_keeps_its_cache(shop: Any, spans: CapturedSpans) -> None:
    undo = trace_callable("shop.rate")
    assert shop.rate("EUR") == shop.rate("EUR") == "EUR"
    assert shop.rate.cache_info().hits == 1
    shop.rate.cache_clear()
    assert shop.rate.cache_info().currsize == 0
    undo()
    assert len(spans) == 2


@pytest.mark.anyio
async def test_methods_that_wrapt_has_wrapped_still_know_their_instance(shop: Any, spans: CapturedSpans) -> None:
    seen: list[Any] = []

    def note(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append(instance)
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper("shop", "Orders.save", note)
    wrapt.wrap_function_wrapper("shop", "Orders.send", note)
    before = vars(shop.Orders)["save"]
    undos = [trace_callable("shop.Orders.save"), trace_callable("shop.Orders.send")]
    orders = shop.Orders()
    assert orders.save(1) == ("saved", 1, "web")
    assert await orders.send(2) == ("sent", 2)
    for undo in undos:
        undo()
    assert seen == [orders, orders]
    assert vars(shop.Orders)["save"] is before
    assert [dict(span.attributes)["order_id"] for span in spans] == [1, 2]


BINDING: Final = """
import functools
import wrapt

@wrapt.decorator
def passing(wrapped, instance, args, kwargs):
    return wrapped(*args, **kwargs)

class Bound:
    def __init__(self, func):
        self.func = func
    def __get__(self, instance, owner=None):
        return functools.partial(self.func, instance)

class Orders:
    @passing
    @classmethod
    def make(cls, order_id, note=""):
        return cls.__name__, order_id
    @passing
    @staticmethod
    def check(order_id):
        return order_id
    @passing
    @classmethod
    async def load(cls, order_id):
        return cls.__name__, order_id
    @passing
    @classmethod
    def lines(cls, order_id):
        got = yield order_id
        return got
    @Bound
    def save(self, order_id):
        return type(self).__name__, order_id
    def total(self, order_id, factor):
        return order_id * factor
    double = functools.partialmethod(total, factor=2)
    @functools.singledispatchmethod
    def visit(self, order_id):
        return order_id
    @visit.register
    def _(self, order_id: str):
        return "str", order_id

class Special(Orders):
    pass
"""


@pytest.mark.anyio
async def test_members_that_bind_in_their_own_way_are_traced(write: Callable[..., None], spans: CapturedSpans) -> None:
    write("binding", BINDING)
    orders: Any = importlib.import_module("binding").Orders
    special: Any = importlib.import_module("binding").Special
    names = ("make", "check", "load", "lines", "save", "double", "visit")
    before = dict(vars(orders))
    undos = [trace_callable(f"binding.Orders.{name}", attributes={"id": arg("order_id")}) for name in names]
    assert [special.make(1), orders().make(order_id=1)] == [("Special", 1), ("Orders", 1)]
    assert [special.check(1), orders().check(1)] == [1, 1]
    assert [await special.load(1), await orders().load(1)] == [("Special", 1), ("Orders", 1)]
    lines = special.lines(1)
    assert [next(lines), next(lines, "done")] == [1, "done"]
    assert special().save(1) == ("Special", 1)
    assert orders().double(1) == 2
    assert [orders().visit(1), orders().visit("1")] == [1, ("str", "1")]
    assert [span.name.partition(".")[2] for span in spans] == [
        *("make", "make", "check", "check", "load", "load", "lines", "save", "double", "visit", "visit")
    ]
    assert {str(span.attributes["id"]) for span in spans} == {"1"}
    assert spans.all("orders.make")[0].attributes["code.function.name"] == "binding.Orders.make"
    for undo in undos:
        undo()
    assert dict(vars(orders)) == before


def test_layers_on_what_binds_in_its_own_way_come_off_in_any_order(
    write: Callable[..., None], spans: CapturedSpans
) -> None:
    write("binding", BINDING)
    orders: Any = importlib.import_module("binding").Orders
    before = vars(orders)["make"]
    first, again = trace_callable("binding.Orders.make"), trace_callable("binding.Orders.make")
    other = trace_callable("binding.Orders.make", "orders.other")
    orders.make(1)
    assert sorted(spans.names) == ["orders.make", "orders.other"]
    first()
    orders.make(1)
    other()
    again()
    assert vars(orders)["make"] is before
    spans.clear()
    orders.make(1)
    assert len(spans) == 0


def test_inherited_class_method_of_a_built_in_class_is_traced(shop: Any, spans: CapturedSpans) -> None:
    undo = trace_callable("shop.Table.fromkeys")
    assert type(shop.Table.fromkeys("ab")) is shop.Table
    undo()
    assert "fromkeys" not in vars(shop.Table)
    spans.one("table.fromkeys")


def test_replaced_function_is_pickled_by_name(shop: Any) -> None:
    undo = trace_callable("shop.create_order")
    assert pickle.loads(pickle.dumps(shop.create_order)) is shop.create_order
    undo()


def test_name_bound_elsewhere_does_not_follow(shop: Any, spans: CapturedSpans) -> None:
    create_order = shop.create_order
    undo = trace_callable("shop.create_order")
    create_order(1)
    undo()
    assert len(spans) == 0


def test_enabled_false_replaces_nothing(shop: Any) -> None:
    before = shop.create_order
    undo = trace_callable("shop.create_order", enabled=False)
    assert shop.create_order is before
    undo()


def test_function_traced_by_its_author_is_left_as_it_is(write: Callable[..., None], spans: CapturedSpans) -> None:
    write("made", "from tracekit import traced\n@traced\ndef create():\n    return 1\n")
    made = importlib.import_module("made")
    before = made.create
    undo = trace_callable("made.create")
    assert made.create is before
    undo()
    made.create()
    spans.one("made.create")


@pytest.mark.parametrize("target", ["random.getrandbits", "time.time_ns", "json.dumps", "re.compile"])
def test_what_making_and_sending_spans_calls_makes_none(target: str, tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    with configure(service="shop", exporter=f"file:{file}") as tracing:
        undo = trace_callable(target)
        traced("shop.create")(lambda: None)()
        assert tracing.flush(10)
        undo()
    assert re.findall(r'"name": ?"(\w+\.\w+)"', file.read_text(encoding="utf-8")) == ["shop.create"]


def test_builtin_that_everything_calls_does_not_trace_itself(spans: CapturedSpans) -> None:
    create = traced("shop.create")(lambda: len("ab"))
    undo = trace_callable("builtins.len")
    assert create() == 2
    undo()
    assert spans.one("shop.create").children[0].name == "builtins.len"


# Taking it back.


@pytest.mark.parametrize(
    "name", ["save", "send", "lines", "stream", "price", "load", "__call__", "cancel", "make", "shout"]
)
def test_undo_leaves_the_class_as_it_was(shop: Any, name: str) -> None:
    before = dict(vars(shop.Orders))
    undo = trace_callable(f"shop.Orders.{name}")
    assert dict(vars(shop.Orders)) != before
    undo()
    assert {key: id(value) for key, value in vars(shop.Orders).items()} == {k: id(v) for k, v in before.items()}


def test_undo_twice_is_harmless(shop: Any) -> None:
    first = trace_callable("shop.create_order")
    first()
    second = trace_callable("shop.create_order")
    replaced = shop.create_order
    first()
    assert shop.create_order is replaced
    second()


@pytest.mark.parametrize("names", [("a.one", "b.two"), ("a.one", "a.one")], ids=["other name", "same name"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_on_one_target_are_undone_in_any_order(
    shop: Any, spans: CapturedSpans, names: tuple[str, str], order: tuple[int, int]
) -> None:
    before = shop.create_order
    undos = [trace_callable("shop.create_order", name) for name in names]
    shop.create_order(0)
    assert {span.name for span in spans} == set(names)
    assert len(spans) == len(set(names))
    spans.clear()

    undos[order[0]]()
    shop.create_order(1)
    assert [span.name for span in spans] == [names[order[1]]]
    undos[order[1]]()
    assert shop.create_order is before


def test_latest_options_win_for_the_same_operation(shop: Any, spans: CapturedSpans) -> None:
    undos = [trace_callable("shop.create_order", attributes={"try": number}) for number in (1, 2, 3)]
    shop.create_order(1)
    assert spans.one("shop.create_order").attributes["try"] == 3
    before = shop.create_order.__wrapped__
    for undo in undos:
        undo()
    assert shop.create_order is before


def test_patch_of_somebody_else_on_top_survives_and_nothing_more_is_traced(shop: Any, spans: CapturedSpans) -> None:
    undo = trace_callable("shop.create_order")
    beneath = shop.create_order

    @functools.wraps(beneath)
    def theirs(*args: Any) -> Any:
        return ("theirs", beneath(*args))

    shop.create_order = theirs
    undo()
    assert shop.create_order is theirs
    assert shop.create_order(7) == ("theirs", ("saved", 7, "web"))
    assert len(spans) == 0


def test_undo_does_not_bring_back_what_was_deleted(shop: Any) -> None:
    undo = trace_callable("shop.create_order")
    del shop.create_order
    undo()
    assert not hasattr(shop, "create_order")


# Before the import, and again.


def test_module_is_not_imported_for_it(write: Callable[..., None]) -> None:
    write("shop")
    undo = trace_callable("shop.Orders.save")
    assert "shop" not in sys.modules
    undo()


def test_function_is_traced_once_its_module_is_imported(write: Callable[..., None], spans: CapturedSpans) -> None:
    write("shop")
    undo = trace_callable("shop.Orders.save", attributes={"order.id": arg("order_id")})
    shop = importlib.import_module("shop")
    shop.Orders().save(7)
    undo()
    shop.Orders().save(8)
    assert spans.one("orders.save").attributes["order.id"] == 7
    assert shop.__loader__ is shop.__spec__.loader
    assert type(shop.__loader__).__name__ == "SourceFileLoader"


def test_undo_before_the_import_traces_nothing(write: Callable[..., None]) -> None:
    write("shop")
    trace_callable("shop.create_order")()
    shop = importlib.import_module("shop")
    assert not hasattr(shop.create_order, "__wrapped__")


@pytest.mark.parametrize("imported", [(), ("firm",)])
def test_module_of_a_package_is_waited_for(
    write: Callable[..., None], spans: CapturedSpans, imported: tuple[str, ...]
) -> None:
    write("firm.__init__", "")
    write("firm.sales", SHOP)
    for name in imported:
        importlib.import_module(name)
    undo = trace_callable("firm.sales.Orders.save")
    assert "firm.sales" not in sys.modules
    importlib.import_module("firm.sales").Orders().save(7)
    undo()
    spans.one("orders.save")


def test_name_that_a_package_re_exports_is_traced_there(write: Callable[..., None], spans: CapturedSpans) -> None:
    write("firm.__init__", "from firm.sales import create_order, Orders")
    write("firm.sales", SHOP)
    undos = [trace_callable("firm.create_order"), trace_callable("firm.Orders.save")]
    firm = importlib.import_module("firm")
    firm.create_order(7)
    for undo in undos:
        undo()
    spans.assert_tree("""
        firm.create_order  order_id=7
          orders.save  order_id=7 channel=web
    """)


def test_reloaded_module_is_traced_again(shop: Any, spans: CapturedSpans) -> None:
    undos = [trace_callable("shop.create_order"), trace_module("shop", include="Orders")]
    old = shop.Orders
    importlib.reload(shop)
    shop.create_order(7)
    spans.assert_tree("""
        shop.create_order  order_id=7
          orders.save  order_id=7 channel=web
    """)
    for undo in undos:
        undo()
    spans.clear()
    shop.create_order(8)
    old().save(9)
    assert len(spans) == 0
    assert not hasattr(shop.create_order, "__wrapped__")


def test_reload_with_new_code_traces_the_new_code(shop: Any, write: Callable[..., None], spans: CapturedSpans) -> None:
    undo = trace_callable("shop.create_order")
    write("shop", "def create_order(order_id, by):\n    return by\n")
    assert importlib.reload(shop).create_order(7, by="Ada") == "Ada"
    undo()
    assert spans.one("shop.create_order").attributes["by"] == "Ada"
    assert not hasattr(shop.create_order, "__wrapped__")


def test_mistake_found_at_import_is_logged_and_the_import_goes_on(
    write: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    write("shop")
    undo = trace_callable("shop.Orders.sav")
    shop = importlib.import_module("shop")
    undo()
    assert shop.limit == 3
    assert caplog.messages == ["trace_callable('shop.Orders.sav'): shop.Orders has no 'sav'. Did you mean 'save'?"]


def test_failing_import_fails_as_without_it(write: Callable[..., None]) -> None:
    write("broken", "1 / 0")
    undo = trace_callable("broken.create")
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("broken")
    assert "broken" not in sys.modules
    undo()


def test_import_hooks_of_wrapt_and_ours_both_run(write: Callable[..., None], spans: CapturedSpans) -> None:
    write("shop")
    called: list[Any] = []
    wrapt.register_post_import_hook(called.append, "shop")
    undo = trace_callable("shop.create_order")
    shop = importlib.import_module("shop")
    shop.create_order(7)
    undo()
    assert called == [shop]
    spans.one("shop.create_order")


def test_threads_importing_tracing_and_undoing_leave_the_module_as_it_was(
    write: Callable[..., None], spans: CapturedSpans
) -> None:
    write("shop")
    barrier = threading.Barrier(8)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait()
            for _ in range(20):
                undo = trace_callable("shop.Orders.save", f"orders.save_{number}")
                assert importlib.import_module("shop").Orders().save(number) == ("saved", number, "web")
                undo()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not hasattr(sys.modules["shop"].Orders.save, "__wrapped__")
    assert {f"orders.save_{number}" for number in range(8)} <= {span.name for span in spans}


# Whole modules.


def test_module_has_its_public_functions_and_methods_traced(shop: Any, spans: CapturedSpans) -> None:
    before = {name: dict(vars(cls)) for name, cls in vars(shop).items() if isinstance(cls, type)}
    module = dict(vars(shop))
    undo = trace_module("shop")
    changed = {name for name, value in vars(shop).items() if value is not module[name]}
    methods = {
        f"{name}.{key}"
        for name in before
        for key, value in vars(module[name]).items()
        if value is not before[name][key]
    }
    shop.create_order(7)
    undo()
    assert changed == {"create_order", "rate", "fail", "double"}
    own = {"save", "send", "lines", "stream", "price", "load"}
    assert methods - {"Base.cancel", "Base.make"} == {f"{name}.{key}" for name in ("Orders", "Alias") for key in own}
    assert dict(vars(shop)) == module
    assert {name: dict(vars(module[name])) for name in before} == before
    spans.assert_tree("""
        shop.create_order  order_id=7
          orders.save  order_id=7 channel=web
    """)


@pytest.mark.parametrize(
    ("options", "traced_names"),
    [
        ({"include": "create_*"}, {"create_order"}),
        ({"include": "Orders.*", "exclude": ()}, {"Orders.save", "Orders._hidden", "Orders.Line.weigh"}),
        ({"include": ["Orders", "_helper"], "exclude": ["_hidden", "s*"]}, {"Orders.Line.weigh", "_helper"}),
        ({"include": "Line"}, {"Orders.Line.weigh"}),
        ({"exclude": ["_*", "Orders"]}, {"create_order"}),
        ({"include": "save", "exclude": ()}, {"Orders.save", "_Private.save"}),
    ],
)
def test_patterns_choose_by_qualified_name_or_part(shop: Any, options: dict[str, Any], traced_names: set[str]) -> None:
    def member(path: str) -> Any:
        return functools.reduce(getattr, path.split("."), shop)

    looked_at = ["create_order", "_helper", "Orders.save", "Orders._hidden", "Orders.Line.weigh", "_Private.save"]
    undo = trace_module("shop", **options)
    assert {path for path in looked_at if hasattr(member(path), "__wrapped__")} == traced_names
    undo()
    assert not any(hasattr(member(path), "__wrapped__") for path in looked_at)


def test_what_the_module_imported_is_left_alone(shop: Any) -> None:
    undo = trace_module("shop")
    assert shop.dumps is json.dumps
    undo()


def test_module_not_yet_imported_is_traced_once_it_is(write: Callable[..., None], spans: CapturedSpans) -> None:
    write("firm.__init__", "")
    write("firm.sales", SHOP)
    undo = trace_module("firm.sales", include="create_order", attributes={"team": "sales"})
    assert "firm" not in sys.modules
    importlib.import_module("firm.sales").create_order(7)
    undo()
    assert spans.one("sales.create_order").attributes["team"] == "sales"


def test_module_and_callable_make_one_span(shop: Any, spans: CapturedSpans) -> None:
    undos = [trace_callable("shop.create_order"), trace_module("shop", include="create_order")]
    before = vars(shop)["create_order"].__wrapped__
    shop.create_order(1)
    spans.one("shop.create_order")
    for undo in undos:
        undo()
    assert shop.create_order is before


def test_module_written_in_c_is_traced(spans: CapturedSpans) -> None:
    import math

    before = dict(vars(math))
    undo = trace_module("math", include=["sqrt", "floor"])
    assert math.sqrt(4) == 2
    undo()
    assert spans.one("math.sqrt")
    assert dict(vars(math)) == before


# Mistakes.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trace_callable("shop"), r"expected a dotted path. Write 'stripe.Charge.create'"),
        (lambda: trace_callable(json.loads), r"expected a dotted path"),  # type: ignore[arg-type]
        (lambda: trace_callable("shop.2"), r"expected a dotted path"),
        (lambda: trace_callable("shop.Orders.sav"), r"shop.Orders has no 'sav'. Did you mean 'save'"),
        (lambda: trace_callable("shop.Ordrs.save"), r"shop has no 'Ordrs'. Did you mean 'Orders'"),
        (lambda: trace_callable("shop.Orders.Line.xxxxx"), r"shop.Orders.Line has no 'xxxxx'. It has: weigh\."),
        (lambda: trace_callable("shopp.create_order"), r"there is no module 'shopp'"),
        (lambda: trace_callable("shop.limit"), r"shop.limit is of type int, expected a function or method"),
        (lambda: trace_callable("shop.Orders.total"), r"shop.Orders.total is of type property"),
        (lambda: trace_callable("shop.Orders"), r"is a class.*Write 'shop.Orders.method'"),
        (lambda: trace_callable("builtins.dict.get"), r"it cannot be replaced.*immutable type"),
        (lambda: trace_callable("shop.create_order", kind="cliet"), r"kind of shop.create_order got 'cliet'"),
        (lambda: trace_callable("shop.create_order", nmae="a"), r"unknown option 'nmae'"),  # type: ignore[call-arg]
        (lambda: trace_callable("shop.create_order", attributes={"a": arg("ordr_id")}), r"'ordr_id'.*order_id"),
        (lambda: trace_module("shopp"), r"there is no module 'shopp'"),
        (lambda: trace_module("json.loads"), r"there is no module 'json.loads'"),
        (
            lambda: trace_module("shop", include="Ordrs.*"),
            r"nothing matches include=\('Ordrs\.\*',\) .*: Base, Orders, create_order",
        ),
        (lambda: trace_module("shop", include=3), r"include got 3, expected a glob"),  # type: ignore[arg-type]
        (lambda: trace_module("shop", sample=2.0), r"sample of"),
    ],
)
def test_mistake_says_what_to_write(shop: Any, call: Callable[[], object], message: str) -> None:
    before = dict(vars(shop))
    with pytest.raises(InstrumentationError, match=message):
        call()
    assert dict(vars(shop)) == before


def test_wrong_option_is_an_error_before_the_import_too(write: Callable[..., None]) -> None:
    write("shop")
    with pytest.raises(InstrumentationError, match=r"kind of shop\.create_order got 'cliet'"):
        trace_callable("shop.create_order", kind="cliet")
    with pytest.raises(InstrumentationError, match="unknown option"):
        trace_module("shop", capturre=True)  # type: ignore[call-arg]
    assert "shop" not in sys.modules


def test_nothing_of_a_module_stays_traced_if_one_member_cannot_be(write: Callable[..., None]) -> None:
    write(
        "closed",
        "class Meta(type):\n    def __setattr__(cls, name, value):\n        raise TypeError('closed')\n"
        "def first(): pass\nclass Closed(metaclass=Meta):\n    def second(self): pass\n",
    )
    closed = importlib.import_module("closed")
    before = closed.first
    with pytest.raises(InstrumentationError, match=r"closed\.Closed\.second cannot be traced.*closed"):
        trace_module("closed", include=["first", "second"])
    assert closed.first is before
