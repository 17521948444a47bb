"""What test_compatibility.py looks at: everything here is decorated, or nothing, as `COMPATIBILITY` says."""

# ruff: noqa: N818, PERF401, PYI034, SIM105  # samples of what programs write

from __future__ import annotations

import abc
import contextlib
import dataclasses
import enum
import functools
import os
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypedDict, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

T = TypeVar("T")


def _as_it_is(func: Any) -> Any:
    return func


if os.environ.get("COMPATIBILITY") == "traced":
    from tracekit import traced as decorate
else:
    decorate = _as_it_is


def fails() -> None:
    msg = "from below"
    raise KeyError(msg)


@decorate
def function(order: Order, /, number: int = 1, *rest: int, channel: str = "web", **more: Any) -> list[Order]:
    """
    Take an order.

    >>> function("a", 2, 3, channel="shop", note="x")
    ('a', 2, (3,), 'shop', {'note': 'x'})
    """
    return (order, number, rest, channel, more)  # type: ignore[return-value]


@decorate
async def coroutine_function(order: Order, number: int = 1, *, channel: str = "web") -> list[Order]:
    """Take an order later."""
    if channel == "fail":
        fails()
    return [order] * number


@decorate
def generator_function(number: int = 2, *, channel: str = "web") -> Generator[int, Any, str]:
    """Take orders."""
    got = []
    try:
        for item in range(number):
            got.append((yield item))
    except ValueError as error:
        got.append((yield repr(error)))  # type: ignore[misc]
    return f"{channel} {got}"


@decorate
async def async_generator_function(number: int = 2, *, channel: str = "web") -> AsyncIterator[Any]:
    """Take orders later."""
    got = []
    try:
        for item in range(number):
            got.append((yield item))
    except ValueError as error:
        got.append((yield repr(error)))
    yield f"{channel} {got}"


@decorate
def raises(error: BaseException) -> None:
    raise error


@decorate
def raises_from() -> None:
    try:
        fails()
    except KeyError as error:
        msg = "from above"
        raise ValueError(msg) from error


@decorate
def handled() -> Any:
    import sys

    return sys.exc_info()[1]


@decorate
def depth_of(levels: int) -> int:
    return 0 if levels == 0 else 1 + depth_of(levels - 1)


@decorate
def warns() -> None:
    import warnings

    warnings.warn("old", DeprecationWarning, stacklevel=1)


function.own = "attribute"


@functools.cache
@decorate
def cached(number: int) -> int:
    return number * 2


@decorate
@functools.lru_cache(maxsize=7)
def traced_cached(number: int) -> int:
    return number * 2


@functools.singledispatch
@decorate
def dispatched(value: Any) -> str:
    return "any"


@dispatched.register
@decorate
def _(value: int) -> str:
    return "int"


@decorate
@functools.singledispatch
def traced_dispatched(value: Any) -> str:
    return "any"


@traced_dispatched.register(int)
@decorate
def _(value: Any) -> str:
    return "int"


@contextlib.contextmanager
@decorate
def managed(number: int = 1) -> Iterator[int]:
    """Hold a number."""
    try:
        yield number
    except KeyError:
        pass


@decorate
@contextlib.contextmanager
def traced_managed(number: int = 1) -> Iterator[int]:
    """Hold a number."""
    yield number


@contextlib.asynccontextmanager
@decorate
async def async_managed(number: int = 1) -> AsyncIterator[int]:
    try:
        yield number
    except KeyError:
        pass


@decorate
@functools.wraps(function)
def wraps_function(*args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


@functools.wraps(function)
def wraps_of_wraps(*args: Any, **kwargs: Any) -> Any:
    return wraps_function(*args, **kwargs)


partial = decorate(functools.partial(function, "order", channel="shop"))
builtin = decorate(len)


class _Callable:
    """Called."""

    def __call__(self, number: int = 3) -> int:
        return number


callable_object = decorate(_Callable())


def local(base: int) -> Any:
    @decorate
    def add(number: int) -> int:
        return base + number

    return add


@decorate
def generic(value: T) -> T:
    return value


class Named:
    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"{owner.__name__}.{name}"

    def __get__(self, instance: object, owner: type | None = None) -> str:
        return self.name


@decorate
class Order:
    """An order."""

    kinds: ClassVar[list[type]] = []
    named = Named()

    def __init__(self, number: int = 1, note: str = "") -> None:
        self.number = number
        self.note = note

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.kinds.append(cls)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Order) and other.number == self.number

    def __hash__(self) -> int:
        return self.number

    def __repr__(self) -> str:
        return f"Order({self.number})"

    def __class_getitem__(cls, item: Any) -> str:
        return f"{cls.__name__}[{item}]"

    def total(self, factor: int = 2) -> int:
        """Return the total."""
        return self.number * factor

    async def send(self) -> Order:
        return self

    def lines(self) -> Iterator[int]:
        yield from range(self.number)

    @classmethod
    def make(cls, number: int = 5) -> Order:
        return cls(number)

    @staticmethod
    def check(number: int) -> bool:
        return number > 0

    double = functools.partialmethod(total, 4)

    @property
    @decorate
    def price(self) -> int:
        """The price."""
        return self.number * 10

    @functools.cached_property
    @decorate
    def computed(self) -> list[int]:
        return [self.number]

    class Line:
        def text(self) -> str:
            return "line"


class Special(Order):
    def total(self, factor: int = 2) -> int:
        return super().total(factor) + 1


@decorate
@dataclasses.dataclass(order=True, frozen=True)
class Point:
    across: int = 1
    down: int = dataclasses.field(default=2, compare=False)

    def moved(self, by: int = 1) -> Point:
        return dataclasses.replace(self, across=self.across + by)


@decorate
class Slotted:
    __slots__ = ("__weakref__", "value")

    def __init__(self, value: int = 1) -> None:
        self.value = value

    def get(self) -> int:
        return self.value


@decorate
class Abstract(abc.ABC):
    @abc.abstractmethod
    def run(self) -> int: ...


@decorate
class Concrete(Abstract):
    def run(self) -> int:
        return 7


class Half(abc.ABC):
    @decorate
    @abc.abstractmethod
    def above(self) -> int: ...

    @abc.abstractmethod
    @decorate
    def below(self) -> int: ...


@decorate
class Color(enum.Enum):
    RED = 1
    BLUE = 2

    def label(self) -> str:
        return self.name.lower()

    @classmethod
    def first(cls) -> Color:
        return cls.RED


@decorate
class Pair(NamedTuple):
    left: int
    right: int = 2

    def total(self) -> int:
        return self.left + self.right


@decorate
class Settings(TypedDict):
    name: str


@decorate
@runtime_checkable
class Runs(Protocol):
    def run(self) -> int: ...


@decorate
class Box(Generic[T]):
    def __init__(self, item: T) -> None:
        self.item = item

    def open(self) -> T:
        return self.item


class Meta(type):
    def __call__(cls, *args: Any) -> Any:
        made = super().__call__(*args)
        made.by_meta = True
        return made


@decorate
class WithMeta(metaclass=Meta):
    def get(self) -> bool:
        return self.by_meta  # type: ignore[attr-defined,no-any-return]


@decorate
class Failure(Exception):
    def code(self) -> int:
        return 7


class Holder:
    @decorate
    @staticmethod
    def static_above(number: int) -> int:
        return number

    @staticmethod
    @decorate
    def static_below(number: int) -> int:
        return number

    @decorate
    @classmethod
    def class_above(cls, number: int) -> tuple[str, int]:
        return cls.__name__, number

    @classmethod
    @decorate
    def class_below(cls, number: int) -> tuple[str, int]:
        return cls.__name__, number

    @decorate
    def __call__(self, number: int) -> int:
        return number

    @decorate
    def __enter__(self) -> Holder:
        return self

    @decorate
    def __exit__(self, *exc: object) -> None: ...

    @decorate
    def __len__(self) -> int:
        return 3

    @decorate
    def __getattr__(self, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"no {name}"

    @functools.singledispatchmethod
    @decorate
    def visit(self, value: Any) -> str:
        return "any"

    @visit.register
    @decorate
    def _(self, value: int) -> str:
        return "int"

    @decorate
    def __del__(self) -> None: ...
