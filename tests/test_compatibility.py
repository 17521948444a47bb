"""What can be asked of a function or class, asked of the decorated one and of the one left alone: the same answers."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import doctest
import functools
import gc
import importlib.util
import inspect
import io
import itertools
import multiprocessing
import pickle
import pickletools
import pydoc
import re
import subprocess
import sys
import traceback
import types
import typing
import unittest.mock
import warnings
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import cloudpickle
import pytest

from tracekit.testing import capture_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Check: TypeAlias = "Callable[[Any], Any]"

SHOP: Final = Path(__file__).parent / "compatibility_shop.py"
FUNCTIONS: Final = ("function", "coroutine_function", "generator_function", "async_generator_function", "generic")
CLASSES: Final = (
    "Order",
    "Point",
    "Slotted",
    "Concrete",
    "Color",
    "Pair",
    "Settings",
    "Runs",
    "Box",
    "WithMeta",
    "Failure",
)
CHECKS: Final[dict[str, Check]] = {}

# What differs, and why; docs/traced.md says so too.
DIFFERENT: Final = {
    "own attributes say what is wrapped": "`__wrapped__` leads to the function, where inspect and others look for it",
    "code object is that of the function": "it is the wrapper's; the function's own is that of `__wrapped__`",
    "file of the code object": "likewise; inspect.getsource and getsourcelines look at what is wrapped",
    "frames of a traceback": "the wrapper is one more frame",
    "kind to inspect: partial": "partial objects and callable objects become functions",
}


@pytest.fixture(scope="module")
def shops() -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        yield {kind: _load(kind, patch) for kind in ("plain", "traced")}


def _load(kind: str, patch: pytest.MonkeyPatch) -> Any:
    patch.setenv("COMPATIBILITY", kind)
    spec = importlib.util.spec_from_file_location("compatibility_shop", SHOP)
    assert spec is not None
    assert spec.loader is not None
    shop = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, "compatibility_shop", shop)
    spec.loader.exec_module(shop)
    return shop


def _answer(ask: Check, shop: Any) -> object:
    try:
        return ("answered", _comparable(ask(shop)))
    except Exception as error:  # noqa: BLE001  # it is the answer
        return ("raised", type(error), re.sub(r"0x[0-9a-f]+", "0x", str(error)))


def _comparable(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub(r"0x[0-9a-f]+", "0x", value)
    if isinstance(value, (list, tuple)):
        return [_comparable(item) for item in value]
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    return (
        value if isinstance(value, (int, float, bytes, bool, type(None))) else re.sub(r"0x[0-9a-f]+", "0x", repr(value))
    )


def check(name: str, *given: Any) -> Callable[[Check], Check]:
    def add(ask: Check) -> Check:
        assert name not in CHECKS
        CHECKS[name] = functools.partial(ask, *given) if given else ask
        return ask

    return add


def each(name: str, values: tuple[str, ...]) -> Callable[[Callable[[Any], Any]], Any]:
    """Ask the same of several members of the shop."""

    def add(ask: Callable[[Any], Any]) -> Any:
        for value in values:
            check(f"{name}: {value}")(lambda shop, value=value: ask(getattr(shop, value)))
        return ask

    return add


# --- inspect ---------------------------------------------------------------------------------------------------------

_KINDS: Final = (
    *(inspect.isfunction, inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction),
    *(inspect.ismethod, inspect.isroutine, inspect.isclass, inspect.isabstract, asyncio.iscoroutinefunction, callable),
    *(inspect.ismethoddescriptor, inspect.isdatadescriptor, inspect.isbuiltin),
)


def _kinds(member: Any) -> list[bool]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of asyncio.iscoroutinefunction, from Python 3.14 on
        return [bool(is_kind(member)) for is_kind in _KINDS]


each("kind to inspect", (*FUNCTIONS, *CLASSES, "partial", "cached", "dispatched", "managed", "async_managed"))(_kinds)
each("type", (*FUNCTIONS, "Order", "Color", "cached", "managed"))(type)
each("signature", (*FUNCTIONS, *CLASSES, "partial", "callable_object", "wraps_function", "wraps_of_wraps", "managed"))(
    lambda member: str(inspect.signature(member))
)
each("full argument specification", FUNCTIONS)(inspect.getfullargspec)
each("source", (*FUNCTIONS, *CLASSES, "managed"))(inspect.getsource)
each("line", FUNCTIONS)(lambda member: inspect.getsourcelines(member)[1])
each("module", (*FUNCTIONS, *CLASSES))(lambda member: inspect.getmodule(member).__name__)  # type: ignore[union-attr]
each("doc", (*FUNCTIONS, *CLASSES, "managed"))(inspect.getdoc)
each("comments", FUNCTIONS)(inspect.getcomments)
each("names", (*FUNCTIONS, *CLASSES, "cached", "managed", "wraps_of_wraps"))(
    lambda member: (member.__name__, member.__qualname__, member.__module__)
)
each("defaults", FUNCTIONS)(lambda member: (member.__defaults__, member.__kwdefaults__))
each("annotations", FUNCTIONS)(lambda member: member.__annotations__)
each("type hints", ("coroutine_function", "generic", "function"))(
    lambda member: typing.get_type_hints(member, {"Order": int, "T": str, "Any": Any})
)
each("type parameters", FUNCTIONS)(lambda member: getattr(member, "__type_params__", None))
each("globals", FUNCTIONS)(lambda member: sorted(member.__globals__))
each("closure variables", ("function", "coroutine_function"))(
    lambda member: sorted(inspect.getclosurevars(inspect.unwrap(member)).globals)
)
each("positional arguments that bind", ("function", "coroutine_function", "generator_function"))(
    lambda member: [str(inspect.signature(member).bind(1).arguments), inspect.getcallargs(inspect.unwrap(member), 1)]
)
each("pydoc", (*FUNCTIONS, "Order", "Box", "Color", "Pair", "Point", "Runs"))(
    lambda member: pydoc.plain(pydoc.render_doc(member))
)
each("repr", (*FUNCTIONS, *CLASSES))(repr)
each("members of a class", CLASSES)(lambda cls: sorted(set(dir(cls))))
each("kinds of a class's members", CLASSES)(
    lambda cls: [
        (name, type(member).__name__) for name, member in sorted(vars(cls).items()) if not name.startswith("_")
    ]
)
each("classified attributes of a class", ("Order", "Point", "Color", "Holder"))(
    lambda cls: [(item.name, item.kind) for item in inspect.classify_class_attrs(cls) if not item.name.startswith("__")]
)
each("hash and equality", FUNCTIONS)(lambda member: (member == member, hash(member) == hash(member), member != 1))  # noqa: PLR0124
each("truth and order", FUNCTIONS)(lambda member: (bool(member), _answer(lambda m: m < m, member)))  # noqa: PLR0124


@each("help", ("function", "Order"))
def _help(member: Any) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        pydoc.Helper(output=out)(member)
    return out.getvalue()


@each("own attribute set later", FUNCTIONS)
def _set_later(member: Any) -> object:
    member.later = 7
    found = (member.later, vars(member)["later"])
    del member.later
    return found, hasattr(member, "later")


check("own attribute of a function")(lambda shop: shop.function.own)
check("own attributes say what is wrapped")(lambda shop: sorted(vars(shop.function)))
check("code object is that of the function")(
    lambda shop: shop.function.__code__ is inspect.unwrap(shop.function).__code__
)
check("file of the code object")(lambda shop: inspect.getsourcefile(shop.function))
check("flags of the code object")(
    lambda shop: [getattr(shop, name).__code__.co_flags & 0x3A0 for name in FUNCTIONS]  # what kind it is
)
check("unwrapping leads to a function")(lambda shop: type(inspect.unwrap(shop.wraps_of_wraps)))
check("closure of a local function")(lambda shop: inspect.unwrap(shop.local(3)).__closure__[0].cell_contents)
check("hints of a class")(lambda shop: typing.get_type_hints(shop.Point))
check("hints of a method")(lambda shop: typing.get_type_hints(shop.Order.total))
check("hints of a method with a forward reference")(lambda shop: repr(typing.get_type_hints(shop.Order.send)))
check("signature of a bound method")(lambda shop: str(inspect.signature(shop.Order().total)))
check("signature of a partial method")(lambda shop: str(inspect.signature(shop.Order.double)))
check("signature of a static and a class method")(
    lambda shop: [str(inspect.signature(getattr(shop.Holder, name))) for name in ("static_above", "class_below")]
)

# --- calls -----------------------------------------------------------------------------------------------------------

WRONG_CALLS: Final[tuple[Callable[[Any], Any], ...]] = (
    lambda call: call(),
    lambda call: call(order=1),
    lambda call: call(1, 2, unknown=3, channel=4, number=5),
    lambda call: call(1, number=2),
    lambda call: call(*range(50)),
    lambda call: call(1, channel="a", **{"": 1}),
)
for number, call in enumerate(WRONG_CALLS):
    for name in (*FUNCTIONS, "partial", "callable_object", "cached", "Order", "Point", "Pair"):
        check(f"call {number} of {name}")(
            lambda shop, name=name, call=call: _without_waiting(call(getattr(shop, name)))
        )


def _without_waiting(called: Any) -> Any:
    if inspect.iscoroutine(called):
        return asyncio.run(_await(called))
    if inspect.isasyncgen(called):
        return asyncio.run(_items(called))
    return list(called) if inspect.isgenerator(called) else called


async def _await(awaitable: Any) -> Any:
    return await awaitable


async def _items(items: Any) -> list[Any]:
    return [item async for item in items]


check("result of each kind")(
    lambda shop: [
        shop.function(1, 2, 3, channel="x", more=5),
        asyncio.run(shop.coroutine_function(1, 2)),
        list(shop.generator_function(3)),
        asyncio.run(_items(shop.async_generator_function(3))),
    ]
)
check("type of what each kind returns")(lambda shop: [type(shop.generator_function()), type(_closed(shop))])
check("name of what each kind returns")(
    lambda shop: [shop.generator_function().__qualname__, _closed(shop).__qualname__, repr(shop.generator_function())]
)
check("abstract base classes of what each kind returns")(
    lambda shop: [
        isinstance(shop.generator_function(), typing.Generator),
        isinstance(shop.async_generator_function(), typing.AsyncGenerator),
        isinstance(_closed(shop), typing.Coroutine),
        inspect.isawaitable(_closed(shop)),
    ]
)


def _closed(shop: Any) -> Any:
    coroutine = shop.coroutine_function(1)
    coroutine.close()
    return coroutine


@check("coroutine that was never awaited")
def _never_awaited(shop: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shop.coroutine_function(1)
        gc.collect()
    return [str(warning.message) for warning in caught]


@check("steps of a generator")
def _steps(shop: Any) -> list[Any]:
    generator = shop.generator_function(5, channel="x")
    answers = [next(generator), generator.send("a"), generator.throw(ValueError("b"))]
    with pytest.raises(StopIteration) as stopped:
        generator.send("c")
    return [*answers, stopped.value.value, inspect.getgeneratorstate(generator), next(generator, "done")]


@check("steps of an async generator")
def _async_steps(shop: Any) -> list[Any]:
    async def main() -> list[Any]:
        generator = shop.async_generator_function(5)
        answers = [await anext(generator), await generator.asend("a"), await generator.athrow(ValueError("b"))]
        await generator.aclose()
        return [*answers, await anext(generator, "done")]

    return asyncio.run(main())


check("yield from a generator")(
    lambda shop: list(itertools.chain(shop.generator_function(2), shop.generator_function(1)))
)
check("length hint")(lambda shop: _answer(len, shop.generator_function()))
check("recursion")(lambda shop: shop.depth_of(100))
check("exception in flight")(lambda shop: _while_handling(shop.handled))
check("no exception in flight")(lambda shop: shop.handled())
check("warning")(lambda shop: _warned(shop.warns))
check("frames of a traceback")(lambda shop: [frame.name for frame in _frames(shop)])
check("frames of a traceback that are the program's")(
    lambda shop: [frame.name for frame in _frames(shop) if Path(frame.filename) == SHOP]
)


def _frames(shop: Any) -> list[Any]:
    try:
        shop.raises_from()
    except ValueError as error:
        return list(traceback.extract_tb(error.__traceback__))
    raise AssertionError


def _while_handling(func: Any) -> Any:
    try:
        raise LookupError("mine")  # noqa: EM101, TRY301
    except LookupError:
        return repr(func())


def _warned(func: Any) -> list[Any]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        func()
    return [(str(item.message), item.filename, item.category, item.lineno) for item in caught]


@check("exception is the same object, with the same cause and context")
def _exception(shop: Any) -> list[Any]:
    error = KeyError("x")
    with pytest.raises(KeyError) as caught:
        shop.raises(error)
    with pytest.raises(ValueError, match="from above") as chained:
        shop.raises_from()
    cause = chained.value.__cause__
    return [
        caught.value is error,
        error.__context__,
        error.args,
        vars(error),
        repr(cause),
        cause is chained.value.__context__,
    ]


# --- decorators around and below -------------------------------------------------------------------------------------

check("cache information")(
    lambda shop: [shop.cached(1), shop.cached(1), repr(shop.cached.cache_info()), shop.cached.cache_clear()]
)
check("cache information above")(
    lambda shop: [shop.traced_cached(1), shop.traced_cached(1), repr(shop.traced_cached.cache_info())]
)
check("cache parameters")(lambda shop: shop.cached.cache_parameters())
check("cache parameters above")(lambda shop: shop.traced_cached.cache_parameters())
check("single dispatch")(
    lambda shop: [shop.dispatched("a"), shop.dispatched(1), list(map(repr, shop.dispatched.registry))]
)
check("single dispatch above")(
    lambda shop: [
        shop.traced_dispatched("a"),
        shop.traced_dispatched(1),
        list(map(repr, shop.traced_dispatched.registry)),
    ]
)
check("implementation for a class")(lambda shop: shop.traced_dispatched.dispatch(int)(5))
check("single dispatch of a method")(lambda shop: [shop.Holder().visit("a"), shop.Holder().visit(1)])
check("context manager")(lambda shop: _enter(shop.managed, KeyError("x")))
check("context manager above")(lambda shop: _enter(shop.traced_managed, None))
check("context manager that fails")(lambda shop: _enter(shop.traced_managed, KeyError("x")))
check("context manager as a decorator")(lambda shop: shop.managed(2)(lambda: 5)())
check("async context manager")(lambda shop: asyncio.run(_enter_async(shop.async_managed)))
check("exit stack")(lambda shop: contextlib.ExitStack().enter_context(shop.managed(4)))
check("partial")(lambda shop: [shop.partial(3), repr(inspect.signature(shop.partial))])
check("partial of it")(lambda shop: functools.partial(shop.function, 1)(2, channel="x"))
check("built-in function")(lambda shop: shop.builtin([1, 2]))
check("callable object")(lambda shop: [shop.callable_object(), shop.callable_object(number=4)])
check("reduce, map, sorted and filter take it")(
    lambda shop: [list(map(shop.generic, [2, 1])), sorted([2, 1], key=shop.generic), list(filter(shop.generic, [0, 1]))]
)


def _enter(manager: Any, error: Exception | None) -> Any:
    with manager(3) as given:
        if error is not None:
            raise error
    return given


async def _enter_async(manager: Any) -> Any:
    async with manager(3) as given:
        raise KeyError(given)
    return given


# --- classes ---------------------------------------------------------------------------------------------------------

check("class in square brackets")(lambda shop: [shop.Order[int], repr(shop.Box[int]), shop.Box[int](3).open()])
check("descriptor learns its name")(lambda shop: [shop.Order.named, shop.Order().named, shop.Special.named])
check("subclasses are announced")(lambda shop: shop.Order.kinds)
check("super")(lambda shop: shop.Special(3).total())
check("method resolution order")(lambda shop: [cls.__name__ for cls in shop.Special.__mro__])
check("bound method")(lambda shop: _bound(shop.Order(3).total))
check("bound class method")(lambda shop: [shop.Order.make(2), shop.Special.make(2), shop.Order.make.__self__])
check("equality of bound methods")(lambda shop: _equal_methods(shop.Order(3)))
check("partial method")(lambda shop: shop.Order(3).double())
check("property")(lambda shop: [shop.Order(3).price, shop.Order.price.__doc__, type(shop.Order.price)])
check("property that cannot be set")(lambda shop: setattr(shop.Order(), "price", 3))
check("cached property")(lambda shop: _cached_property(shop.Order(4)))
check("static and class methods in either order")(
    lambda shop: [
        (getattr(holder, name)(3), type(vars(shop.Holder)[name]))
        for name in ("static_above", "static_below", "class_above", "class_below")
        for holder in (shop.Holder, shop.Holder())
    ]
)
check("dunder methods")(lambda shop: _dunders(shop.Holder()))
check("missing attribute")(lambda shop: [shop.Holder().unknown, hasattr(shop.Holder(), "__unknown__")])
check("attribute that is not there")(lambda shop: shop.Order().unknown)
check("nested class")(lambda shop: [shop.Order.Line().text(), shop.Order.Line.__qualname__])
check("dataclass")(
    lambda shop: [repr(shop.Point()), shop.Point(1) < shop.Point(2), repr(shop.Point().moved(3)), hash(shop.Point())]
)
check("fields of a dataclass")(
    lambda shop: [(field.name, field.type) for field in __import__("dataclasses").fields(shop.Point)]
)
check("frozen dataclass")(lambda shop: setattr(shop.Point(), "across", 3))
check("matching a dataclass")(lambda shop: shop.Point.__match_args__)
check("slots")(lambda shop: [shop.Slotted(3).get(), shop.Slotted.__slots__, hasattr(shop.Slotted(), "__dict__")])
check("attribute that has no slot")(lambda shop: setattr(shop.Slotted(), "other", 3))
check("abstract class")(lambda shop: [shop.Concrete().run(), sorted(shop.Abstract.__abstractmethods__)])
check("abstract class that is not made")(lambda shop: shop.Abstract())
check("abstract methods in either order")(
    lambda shop: [sorted(shop.Half.__abstractmethods__), shop.Half.above.__isabstractmethod__]
)
check("abstract methods in either order are not made")(lambda shop: shop.Half())
check("enumeration")(
    lambda shop: [list(shop.Color), shop.Color.RED.label(), shop.Color.first(), shop.Color(2), shop.Color["RED"]]
)
check("member that an enumeration has not")(lambda shop: shop.Color(5))
check("named tuple")(
    lambda shop: [shop.Pair(1), shop.Pair(1).total(), shop.Pair._fields, shop.Pair(1)._replace(left=4)]
)
check("typed dict")(
    lambda shop: [shop.Settings(name="x"), shop.Settings.__required_keys__, shop.Settings.__annotations__]
)
check("protocol")(
    lambda shop: [isinstance(shop.Concrete(), shop.Runs), isinstance(3, shop.Runs), shop.Runs._is_protocol]
)
check("protocol that is not made")(lambda shop: shop.Runs())
check("generic class")(lambda shop: [shop.Box(3).open(), shop.Box.__parameters__, shop.Box.__orig_bases__])
check("metaclass")(lambda shop: [shop.WithMeta().get(), type(shop.WithMeta)])
check("exception class")(
    lambda shop: [shop.Failure("x").code(), repr(shop.Failure("x", 2)), issubclass(shop.Failure, Exception)]
)
check("instance of a class")(
    lambda shop: [isinstance(shop.Special(), shop.Order), issubclass(shop.Special, shop.Order)]
)
check("class made by type()")(lambda shop: type("Made", (shop.Order,), {"extra": shop.function})(2).total())
check("function as a method")(lambda shop: type("Made", (), {"method": shop.generic})().method().__class__.__name__)
check("function on an instance")(lambda shop: types.MethodType(shop.function, 5)(6))
check("explicit binding")(lambda shop: shop.function.__get__(7)(8))


def _bound(method: Any) -> list[Any]:
    return [
        method(),
        method(factor=3),
        method.__self__,
        method.__func__.__name__,
        method.__name__,
        method.__doc__,
        repr(method),
    ]


def _equal_methods(order: Any) -> list[bool]:
    return [order.total == order.total, hash(order.total) == hash(order.total), order.total == type(order)(4).total]


def _cached_property(order: Any) -> list[bool]:
    return [order.computed is order.computed, vars(order)["computed"] == [4]]


def _dunders(holder: Any) -> list[Any]:
    with holder as entered:
        return [entered is holder, len(holder), holder(5), bool(holder)]


# --- copies and travels ----------------------------------------------------------------------------------------------

each("pickle", (*FUNCTIONS, *CLASSES))(
    lambda member: [pickle.loads(pickle.dumps(member, protocol)) is member for protocol in range(6)]
)
each("pickled bytes", (*FUNCTIONS, *CLASSES))(lambda member: [pickle.dumps(member, protocol) for protocol in range(6)])
each("cloudpickle by reference", (*FUNCTIONS, *CLASSES))(
    lambda member: cloudpickle.loads(cloudpickle.dumps(member)) is member
)
each("copy", (*FUNCTIONS, *CLASSES))(lambda member: [copy.copy(member) is member, copy.deepcopy(member) is member])
each("weak reference", FUNCTIONS)(lambda member: [weakref.ref(member)() is member, type(weakref.proxy(member))])
check("pickled bound method")(lambda shop: pickle.loads(pickle.dumps(shop.Order(3).total))(2))
check("bytes of a pickled bound method")(lambda shop: pickle.dumps(shop.Order(3).total, 4))
check("pickled class method")(lambda shop: pickle.loads(pickle.dumps(shop.Order.make))(2))
check("pickled static method")(
    lambda shop: pickle.loads(pickle.dumps(shop.Holder.static_above)) is shop.Holder.static_above
)
check("pickled instances")(
    lambda shop: [
        pickle.loads(pickle.dumps(made))
        for made in (shop.Order(3), shop.Point(4), shop.Color.RED, shop.Pair(1), shop.Failure("x"))
    ]
)
check("copied instances")(
    lambda shop: [copy.copy(shop.Order(3)), copy.deepcopy([shop.Point(4)]), copy.copy(shop.Slotted(3)).get()]
)
check("copied partial")(lambda shop: copy.deepcopy(functools.partial(shop.function, 1))(2))
check("weak method")(lambda shop: _weak_method(shop.Order(3)))
check("keys of a weak dictionary")(
    lambda shop: [weakref.WeakKeyDictionary({shop.function: 1})[shop.function], len({shop.function, shop.function})]
)
check("cloudpickle of a local function")(lambda shop: cloudpickle.loads(cloudpickle.dumps(shop.local(3)))(4))
check("pickle of a local function")(lambda shop: pickle.dumps(shop.local(3)))
check("pickle names the function itself")(
    lambda shop: [argument for _, argument, _ in pickletools.genops(pickle.dumps(shop.function, 2)) if argument]
)
check("thread pool")(lambda shop: _in_pool(ThreadPoolExecutor(1), shop))
for method in multiprocessing.get_all_start_methods():
    check(f"process pool, {method}")(
        lambda shop, method=method: _in_pool(ProcessPoolExecutor(1, multiprocessing.get_context(method)), shop)
    )


@check("pickled exception that was raised")
def _pickled_exception(shop: Any) -> list[Any]:
    error = KeyError("x", 3)
    with contextlib.suppress(KeyError):
        shop.raises(error)
    arrived = pickle.loads(pickle.dumps(error))
    return [arrived.args, vars(arrived), type(arrived)]


def _weak_method(order: Any) -> list[Any]:
    method = weakref.WeakMethod(order.total)
    found = method()
    assert found is not None
    return [found(), method == weakref.WeakMethod(order.total)]


@check("local function lives no longer than its references")
def _weak_local(shop: Any) -> object:
    reference = weakref.ref(shop.local(3))
    return reference()


@check("cloudpickle by value")
def _by_value(shop: Any) -> list[Any]:
    cloudpickle.register_pickle_by_value(shop)
    try:
        sent = cloudpickle.dumps((shop.function, shop.generator_function, shop.local(3), shop.Order))
    finally:
        cloudpickle.unregister_pickle_by_value(shop)
    function, generator_function, add, order = cloudpickle.loads(sent)
    return [function(1), list(generator_function(2)), add(4), order(3).total()]


def _in_pool(pool: Any, shop: Any) -> list[Any]:
    with pool:
        calls = (shop.function, 1), (shop.Order(3).total,), (shop.Order.make, 2), (shop.Holder.static_below, 3)
        return [pool.submit(*call).result() for call in calls]


# --- tools that look inside ------------------------------------------------------------------------------------------


@check("doctest")
def _doctest(shop: Any) -> list[Any]:
    found = doctest.DocTestFinder().find(shop, "shop")
    runner = doctest.DocTestRunner(verbose=False)
    results = [runner.run(test, out=lambda _: None) for test in found]
    return [[test.name for test in found if test.examples], [tuple(result) for result in results]]


@check("mock with the specification of a function")
def _autospec(shop: Any) -> list[Any]:
    mock = unittest.mock.create_autospec(shop.function, return_value=3)
    answers = [mock(1, 2), _answer(lambda call: call(), mock), str(inspect.signature(mock))]
    later = unittest.mock.create_autospec(shop.coroutine_function, return_value=5)
    cls = unittest.mock.create_autospec(shop.Order)
    return [
        *answers,
        asyncio.run(later(1)),
        type(cls.return_value.send).__name__,
        _answer(lambda c: c.total(1, 2, 3), cls()),
    ]


@check("patching")
def _patched(shop: Any) -> list[Any]:
    before = shop.function
    with unittest.mock.patch.object(shop, "function", autospec=True) as function:
        function.return_value = 3
        inside = shop.function(1)
    with unittest.mock.patch.object(shop.Order, "total", return_value=9):
        method = shop.Order().total()
    return [inside, method, shop.function is before, shop.Order(3).total()]


check("mock that wraps it")(lambda shop: unittest.mock.Mock(wraps=shop.function)(1, 2))
check("members of the module by kind")(
    lambda shop: [name for name, _ in inspect.getmembers(shop, inspect.iscoroutinefunction)]
)
check("callable with keywords that are its parameters")(lambda shop: shop.function(1, order=2, self=3, cls=4, func=5))
check("functions from the module by a star import")(
    lambda shop: sorted(name for name in vars(shop) if not name.startswith("_"))
)
check("to_thread and run_in_executor")(lambda shop: asyncio.run(asyncio.to_thread(shop.function, 1)))
check("gather and wait_for")(lambda shop: asyncio.run(_gathered(shop)))
check("name of a task's coroutine")(lambda shop: asyncio.run(_task_name(shop)))
check("stack of a suspended task")(lambda shop: asyncio.run(_task_stack(shop)))


async def _gathered(shop: Any) -> list[Any]:
    both = await asyncio.gather(
        shop.coroutine_function(1), shop.coroutine_function(2, channel="fail"), return_exceptions=True
    )
    return [repr(both), await asyncio.wait_for(shop.coroutine_function(3), 5)]


async def _task_name(shop: Any) -> str:
    task = asyncio.ensure_future(shop.coroutine_function(1))
    name = task.get_coro().__qualname__
    await task
    return name


async def _task_stack(shop: Any) -> list[str]:
    generator = shop.async_generator_function()
    await anext(generator)
    await generator.aclose()
    return [type(generator).__name__, generator.__name__]


@check("module run as a program")
def _as_program(shop: Any) -> list[Any]:
    code = "from compatibility_shop import *; print(function(1), Order(3).total(), list(generator_function()))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=SHOP.parent, capture_output=True, text=True, check=True
    )
    return [done.stdout, done.stderr]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork, while other threads run
@pytest.mark.parametrize("name", CHECKS)
def test_decorated_and_plain_answer_alike(name: str, shops: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {}
    for kind, shop in shops.items():
        monkeypatch.setenv("COMPATIBILITY", kind)
        monkeypatch.setitem(sys.modules, "compatibility_shop", shop)
        with capture_spans():
            answers[kind] = _answer(CHECKS[name], shop)
    if name in DIFFERENT:
        assert answers["traced"] != answers["plain"], f"{name}: no exception any more"
    else:
        assert answers["traced"] == answers["plain"]


def test_there_are_more_checks_than_others_were_put_to() -> None:
    sys.stdout.write(f"{len(CHECKS)} checks, {len(DIFFERENT)} of them documented exceptions\n")
    assert len(CHECKS) >= 87
    assert DIFFERENT.keys() <= CHECKS.keys()


def test_every_difference_is_documented() -> None:
    documented = (SHOP.parent.parent / "docs" / "traced.md").read_text(encoding="utf-8")
    assert [reason for reason in DIFFERENT.values() if reason not in documented] == []
