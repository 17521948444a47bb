"""Callables that lie, raise or refuse when they are looked at: traced as they are, or refused with what to write."""

from __future__ import annotations

import functools
import itertools
import operator
import sys
import unittest.mock
from typing import TYPE_CHECKING, Any, Final

import pytest

from tracekit import traced
from tracekit.errors import InstrumentationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracekit.testing import CapturedSpans


class StrangeExit(BaseException):
    """What no handler of errors expects."""


def _raise(kind: type[BaseException] = ZeroDivisionError) -> Any:
    raise kind


def _with(**members: Any) -> Any:
    """Return an instance of a class with *members*, callable with one argument unless they say otherwise."""
    return type("Odd", (), {"__call__": lambda self, given: given, **members})()


def _raising(kind: type[BaseException] = ZeroDivisionError) -> Any:
    return property(lambda self: _raise(kind))


def _annotated(annotation: object) -> Callable[[Any], Any]:
    def func(given: Any) -> Any:
        return given

    func.__annotations__ = {"given": annotation}
    return func


def _named(**attributes: Any) -> Callable[[Any], Any]:
    def func(given: Any) -> Any:
        return given

    vars(func).update({name: value for name, value in attributes.items() if name in ("__signature__", "__wrapped__")})
    func.__module__ = attributes.get("__module__", __name__)
    return func


def _own(**attributes: Any) -> Any:
    odd = _with()
    vars(odd).update(attributes)
    return odd


def _wrapped_by_itself() -> Any:
    odd = _with()
    odd.__wrapped__ = odd
    return odd


ODD: Final[dict[str, Callable[[], Any]]] = {
    "signature that raises": lambda: _with(__signature__=_raising()),
    "signature that exits": lambda: _with(__signature__=_raising(SystemExit)),
    "signature of another type": lambda: _named(__signature__=5),
    "signature that is text": lambda: _named(__signature__="(given)"),
    "attributes that raise": lambda: _with(__getattr__=lambda self, name: _raise()),
    "attributes that exit": lambda: _with(__getattr__=lambda self, name: _raise(SystemExit)),
    "attributes that raise what is no Exception": lambda: _with(__getattr__=lambda self, name: _raise(StrangeExit)),
    "attributes without end": lambda: _with(__getattr__=lambda self, name: getattr(self, name + "_")),
    "every attribute itself": lambda: _with(__getattr__=lambda self, name: self),
    "no attribute at all": lambda: _with(__getattribute__=lambda self, name: _raise()),
    "class that raises": lambda: _with(__class__=_raising()),
    "class of a static method": lambda: _with(__class__=property(lambda self: staticmethod)),
    "dict that raises": lambda: _with(__dict__=_raising()),
    "name that raises": lambda: _with(__name__=_raising()),
    "names that are numbers": lambda: _own(__name__=5, __qualname__=7, __module__=3),
    "module that is None": lambda: _named(__module__=None),
    "doc that raises": lambda: _with(__doc__=_raising()),
    "repr that raises": lambda: _with(__repr__=lambda self: _raise()),
    "hash that raises": lambda: _with(__hash__=lambda self: _raise(), __eq__=lambda self, other: _raise()),
    "truth that raises": lambda: _with(__bool__=lambda self: _raise()),
    "wrapped that raises": lambda: _with(__wrapped__=_raising()),
    "wrapped by itself": _wrapped_by_itself,
    "static call": lambda: _with(__call__=staticmethod(lambda given: given)),
    "class call": lambda: _with(__call__=classmethod(lambda cls, given: given)),
    "partial call": lambda: _with(__call__=functools.partial(lambda given: given)),
    "call of a C function": lambda: _with(__call__=len),
    "call of a callable object": lambda: _with(__call__=_with()),
    "call that is a property": lambda: _with(__call__=property(lambda self: lambda given: given)),
    "call that raises when it is looked up": lambda: _with(__call__=_raising()),
    "partial of something odd": lambda: functools.partial(_with(__getattr__=lambda self, name: self)),
    "mock": unittest.mock.Mock,
    "magic mock": unittest.mock.MagicMock,
    "mock of a function": lambda: unittest.mock.create_autospec(_annotated(int)),
    "built-in function": lambda: len,
    "built-in method": lambda: "".join,
    "method wrapper": lambda: (5).__add__,
    "slot wrapper": lambda: int.__add__,
    "class method of a built-in class": lambda: dict.fromkeys,
    "item getter": lambda: operator.itemgetter(0),
    "generic alias": lambda: list[int],
    "annotation that exits": lambda: _annotated("sys.exit(3)"),
    "annotation that raises what is no Exception": lambda: _annotated("_raise(StrangeExit)"),
    "annotation that divides by zero": lambda: _annotated("1 / 0"),
    "annotation that is no expression": lambda: _annotated("(("),
    "annotation without end": lambda: _annotated("(lambda f: f(f))(lambda f: f(f))"),
    "annotation nested beyond reason": lambda: _annotated("(" * 1_000 + "int" + ")" * 1_000),
    "annotation of any type": lambda: _annotated(_with(__repr__=lambda self: _raise(), __eq__=lambda *_: _raise())),
    "default that raises": lambda: functools.partial(lambda given, odd: given, odd=_with(__repr__=_raise)),
}


def _answer(func: Callable[[Any], Any], given: object) -> object:
    try:
        return ("answered", func(given))
    except BaseException as error:  # noqa: BLE001  # it is the answer
        return ("raised", type(error), str(error))


@pytest.mark.parametrize("name", [None, "test.odd"])
@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_odd_callable_is_traced_as_it_is_or_refused_with_what_to_write(
    make: Callable[[], Any], name: str | None, spans: CapturedSpans
) -> None:
    odd = make()
    try:
        func: Any = traced(odd) if name is None else traced(name)(odd)
    except InstrumentationError as refused:
        said = str(refused)
    else:
        _assert_transparent(odd, func, spans, name)
        return
    assert "expected" in said
    assert "Write" in said


def _assert_transparent(odd: Any, func: Any, spans: CapturedSpans, name: str | None) -> None:
    for given in ([1], 3):
        expected, actual = _answer(odd, given), _answer(func, given)
        assert actual == expected or isinstance(odd, unittest.mock.NonCallableMock)
    assert len(spans) == 2
    assert name is None or set(spans.names) == {"test.odd"}
    assert all(span.name.strip(".") for span in spans)


def test_odd_annotation_does_not_cost_those_beside_it(spans: CapturedSpans) -> None:
    from tracekit import SpanAttribute

    def func(odd: Any, order: Any) -> None: ...

    func.__annotations__ = {"odd": "sys.exit(3)", "order": "Annotated[int, SpanAttribute('order.id')]"}
    func.__globals__.setdefault("SpanAttribute", SpanAttribute)
    traced("test.func")(func)(1, 2)
    attributes = spans.one("test.func").attributes
    assert (attributes["order.id"], "odd" in attributes) == (2, False)


class ReadOnly(type):
    def __setattr__(cls, name: str, value: object) -> None:
        raise AttributeError(name)


class Refusing(type):
    def __setattr__(cls, name: str, value: object) -> None:
        if name == "second":
            sys.exit(3)
        super().__setattr__(name, value)


class RaisingMeta(type):
    def __getattr__(cls, name: str) -> Any:
        raise ZeroDivisionError(name)

    __repr__ = __bool__ = __hash__ = lambda cls: _raise()


@pytest.mark.parametrize("metaclass", [ReadOnly, Refusing])
def test_class_that_refuses_new_methods_is_refused_and_left_as_it_was(metaclass: type[type]) -> None:
    members = {"first": lambda self: 1, "second": lambda self: 2}
    cls = metaclass("Orders", (), dict(members))
    with pytest.raises(InstrumentationError, match=r"class Orders, which refuses .* Write @traced above each method"):
        traced(cls)
    assert {name: vars(cls)[name] for name in members} == members


def test_class_that_answers_with_errors_is_traced(spans: CapturedSpans) -> None:
    cls: Any = RaisingMeta("Orders", (), {"first": lambda self: 1})
    assert traced(cls) is cls
    assert cls().first() == 1
    assert len(spans) == 1


def test_what_cannot_be_called_is_refused_whatever_its_repr_does() -> None:
    odd = type("Odd", (), {"__repr__": lambda self: _raise()})()
    for wrong in (odd, staticmethod(odd), classmethod(odd), itertools.count(), sys):
        with pytest.raises(InstrumentationError, match=r"expected a function, .*Write @traced above a def"):
            traced("test.odd")(wrong)
