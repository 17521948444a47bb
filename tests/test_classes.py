"""`@traced` on a class: the public methods of its body, in place, whatever kind of class it is."""

from __future__ import annotations

import abc
import copy
import dataclasses
import enum
import inspect
import pickle
import sys
import typing
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import pytest

from tracekit import arg, traced
from tracekit.errors import InstrumentationError

if TYPE_CHECKING:
    from tracekit.testing import CapturedSpans

T = TypeVar("T")


@traced
class Repository:
    """Keeps orders."""

    limit = 3

    def __init__(self, orders: dict[int, str] | None = None) -> None:
        self.orders = orders or {}

    def save(self, order_id: int, status: str = "new") -> str:
        self._write(order_id, status)
        return status

    async def send(self, order_id: int) -> int:
        return order_id

    def each(self, count: int) -> typing.Generator[int, str, str]:
        got = yield count
        return got

    async def stream(self, count: int) -> typing.AsyncGenerator[int, None]:
        yield count

    @staticmethod
    def price(order_id: int) -> float:
        return order_id * 12.5

    @classmethod
    def load(cls, order_id: int) -> Repository:
        return cls({order_id: "loaded"})

    @property
    def size(self) -> int:
        return len(self.orders)

    def _write(self, order_id: int, status: str) -> None:
        self.orders[order_id] = status

    def __len__(self) -> int:
        return self.size


class Archive(Repository):
    def save(self, order_id: int, status: str = "archived") -> str:
        return super().save(order_id, status)

    def burn(self) -> None: ...


@pytest.mark.anyio
async def test_public_methods_of_every_kind_are_traced_and_nothing_else(spans: CapturedSpans) -> None:
    repository = Repository.load(1)
    assert repository.save(7) == "new"
    assert await repository.send(8) == 8
    assert list(repository.each(2)) == [2]
    assert [item async for item in repository.stream(3)] == [3]
    assert repository.price(4) == Repository.price(4) == 50.0
    assert len(repository) == repository.size == 2
    assert spans.names == [
        "repository.load",
        "repository.save",
        "repository.send",
        "repository.each",
        "repository.stream",
        "repository.price",
        "repository.price",
    ]
    assert not any({"self", "cls"} & set(span.attributes) for span in spans)


def test_class_is_still_the_same_class() -> None:
    class Orders:
        def save(self) -> None: ...

    assert traced(Orders) is Orders
    assert Repository.__doc__ == "Keeps orders."
    assert inspect.isclass(Repository)
    assert Repository.__name__ == "Repository"
    assert str(inspect.signature(Repository.save)) == "(self, order_id: 'int', status: 'str' = 'new') -> 'str'"
    assert inspect.iscoroutinefunction(Repository.send)
    assert inspect.isgeneratorfunction(Repository.each)
    assert inspect.isasyncgenfunction(Repository.stream)


def test_instances_are_pickled_and_copied() -> None:
    repository = Repository({7: "new"})
    for twin in (pickle.loads(pickle.dumps(repository)), copy.copy(repository), copy.deepcopy(repository)):
        assert twin.orders == {7: "new"}
    assert pickle.loads(pickle.dumps(Repository)) is Repository
    assert pickle.loads(pickle.dumps(repository.save))(8) == "new"


def test_subclass_is_not_traced_by_the_decorator_of_its_base(spans: CapturedSpans) -> None:
    archive = Archive()
    archive.burn()
    archive.save(7)
    spans.assert_tree("""
        repository.save  order_id=7 status=archived
    """)


def test_subclass_traced_too_traces_its_own_methods_only(spans: CapturedSpans) -> None:
    @traced
    class Vault(Repository):
        def save(self, order_id: int, status: str = "safe") -> str:
            return super().save(order_id, status)

    before = Repository.send
    vault = Vault()
    vault.save(7)
    vault.price(2)
    assert Vault.send is before
    spans.assert_tree("""
        vault.save  order_id=7 status=safe
          repository.save  order_id=7 status=safe
        repository.price  order_id=2
    """)


def test_class_traced_twice_makes_one_span(spans: CapturedSpans) -> None:
    @traced
    @traced
    class Orders:
        def save(self) -> None: ...

    traced(Orders)().save()
    assert spans.names == ["orders.save"]


def test_method_with_a_decorator_of_its_own_keeps_its_options(spans: CapturedSpans) -> None:
    @traced(service="stock", kind="client")
    class Orders:
        @traced("books.keep", attributes={"copies": 2})
        def save(self) -> None: ...

        @traced
        @staticmethod
        def price() -> None: ...

        @classmethod
        @traced
        def load(cls) -> None: ...

        def drop(self) -> None: ...

    orders = Orders()
    orders.save(), orders.price(), orders.load(), orders.drop()
    assert spans.names == ["books.keep", "orders.price", "orders.load", "stock.drop"]
    assert spans.one("books.keep").attributes["copies"] == 2
    assert spans.one("stock.drop").kind.name == "CLIENT"


def test_options_are_for_every_method(spans: CapturedSpans) -> None:
    @traced(capture=False, attributes={"team": "sales"}, expected=KeyError)
    class Orders:
        def save(self, order_id: int) -> None:
            raise KeyError(order_id)

    with pytest.raises(KeyError):
        Orders().save(7)
    span = spans.one("orders.save")
    assert dict(span.attributes) == {"code.function.name": span.attributes["code.function.name"], "team": "sales"}
    assert span.status.status_code.name == "UNSET"


def test_enabled_false_leaves_the_class_alone() -> None:
    class Orders:
        def save(self) -> None: ...

    before = dict(vars(Orders))
    assert traced(enabled=False)(Orders) is Orders
    assert dict(vars(Orders)) == before


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("orders.save", {}, r"whose methods have names\. Write service='orders\.save'"),
        (None, {"kind": "cliet"}, r"kind of orders\.load got 'cliet'"),
        (None, {"attributes": {"order.id": arg("order_id")}}, "order_id"),
    ],
)
def test_wrong_option_is_an_error_and_leaves_the_class_alone(
    given: str | None, options: dict[str, Any], message: str
) -> None:
    class Orders:
        def load(self, order_id: int) -> None: ...

        def count(self) -> None: ...

    before = dict(vars(Orders))
    with pytest.raises(InstrumentationError, match=message):
        traced(given, **options)(Orders)
    assert dict(vars(Orders)) == before


# Kinds of classes.


@pytest.mark.parametrize("order", ["above", "below"])
@pytest.mark.parametrize("options", [{}, {"frozen": True}, {"slots": True}, {"slots": True, "frozen": True}])
def test_dataclass_in_either_order(order: str, options: dict[str, bool], spans: CapturedSpans) -> None:
    class Order:
        order_id: int
        items: list[str] = dataclasses.field(default_factory=list)

        def count(self, by: str = "all") -> int:
            return len(self.items)

    dataclass = dataclasses.dataclass(**options)
    made = traced(dataclass(Order)) if order == "above" else dataclass(traced(Order))
    instance = made(7, ["book"])
    assert instance.count() == 1
    assert instance == made(7, ["book"])
    assert repr(instance).endswith("Order(order_id=7, items=['book'])")
    assert [field.name for field in dataclasses.fields(made)] == ["order_id", "items"]
    assert dataclasses.replace(instance, order_id=8).order_id == 8
    assert hasattr(instance, "__dict__") is not options.get("slots", False)
    assert spans.names == ["order.count"]


def test_super_without_arguments_works_in_a_dataclass_with_slots(spans: CapturedSpans) -> None:
    # dataclass(slots=True) makes a new class: whether `super()` follows is Python's affair, the answer stays the same.
    def make(decorate: Any) -> Any:
        class Base:
            def save(self) -> str:
                return "base"

        @dataclasses.dataclass(slots=True)
        @decorate
        class Order(Base):
            order_id: int

            def save(self) -> str:
                return super().save()

        return Order

    def answer(cls: Any) -> Any:
        try:
            return cls(7).save()
        except TypeError as error:
            return str(error)

    assert answer(make(traced)) == answer(make(lambda cls: cls))


def test_slots_stay_slots(spans: CapturedSpans) -> None:
    @traced
    class Point:
        __slots__ = ("x",)

        def move(self, by: int) -> int:
            self.x = by
            return self.x

    point = Point()
    assert point.move(2) == 2
    assert not hasattr(point, "__dict__")
    assert spans.names == ["point.move"]


def test_abstract_class_stays_abstract(spans: CapturedSpans) -> None:
    @traced
    class Gateway(abc.ABC):
        @abc.abstractmethod
        def charge(self, amount: float) -> str:
            return "base"

        @property
        @abc.abstractmethod
        def name(self) -> str: ...

        @classmethod
        @abc.abstractmethod
        def make(cls) -> Gateway: ...

    assert Gateway.__abstractmethods__ == {"charge", "name", "make"}
    with pytest.raises(TypeError, match="abstract"):
        Gateway()  # type: ignore[abstract]

    class Half(Gateway):
        def charge(self, amount: float) -> str:
            return super().charge(amount)  # type: ignore[safe-super]

    assert Half.__abstractmethods__ == {"name", "make"}

    class Stripe(Half):
        name = "stripe"

        @classmethod
        def make(cls) -> Gateway:
            return cls()

    assert Stripe.make().charge(1.5) == "base"
    Gateway.register(int)
    assert isinstance(3, Gateway)
    assert spans.names == ["gateway.charge"]


def test_protocol_stays_a_protocol(spans: CapturedSpans) -> None:
    @traced
    @runtime_checkable
    class Saves(Protocol):
        def save(self, order_id: int) -> str: ...

    class Explicit(Saves):
        def save(self, order_id: int) -> str:
            return "explicit"

    assert isinstance(Repository(), Saves)
    assert not isinstance(3, Saves)
    assert Explicit().save(7) == "explicit"
    with pytest.raises(TypeError, match="instantiated"):
        Saves()  # type: ignore[misc]
    assert len(spans) == 0


def test_enum_stays_an_enum(spans: CapturedSpans) -> None:
    @traced
    class Status(enum.Enum):
        NEW = "new"
        PAID = "paid"

        def label(self, upper: bool = False) -> str:
            return self.value.upper() if upper else self.value

        @classmethod
        def parse(cls, text: str) -> Status:
            return cls(text)

    @traced
    class Rights(enum.IntFlag):
        READ = 1
        WRITE = 2

        def names(self) -> str:
            return str(int(self))

    assert list(Status) == [Status.NEW, Status.PAID]
    assert Status("new") is Status["NEW"] is Status.NEW
    assert Status.parse("paid").label(upper=True) == "PAID"
    assert (Rights.READ | Rights.WRITE).names() == "3"
    assert spans.names == ["status.parse", "status.label", "rights.names"]


def test_named_tuple_stays_a_tuple(spans: CapturedSpans) -> None:
    @traced
    class Point(NamedTuple):
        x: int
        y: int = 2

        def length(self) -> int:
            return self.x + self.y

    point = Point(1)
    assert (point, point._replace(x=3), point.length()) == ((1, 2), (3, 2), 3)
    assert Point._fields == ("x", "y")
    assert spans.names == ["point.length"]


def test_generic_class_stays_generic(spans: CapturedSpans) -> None:
    @traced
    class Box(Generic[T]):
        def __init__(self, item: T) -> None:
            self.item = item

        def open(self) -> T:
            return self.item

    class Numbers(Box[int]):
        pass

    assert Box[int](3).open() == Numbers(4).open() + (-1) == 3
    assert typing.get_args(Box[int]) == (int,)
    assert Box.__parameters__ == (T,)  # type: ignore[attr-defined]
    assert spans.names == ["box.open"] * 2


def test_typed_dict_and_exception_classes_stay_what_they_are(spans: CapturedSpans) -> None:
    @traced
    class Entry(typing.TypedDict):
        order_id: int

    @traced
    class DeclinedError(Exception):
        def reason(self) -> str:
            return str(self)

    assert Entry(order_id=7) == {"order_id": 7}
    with pytest.raises(DeclinedError) as caught:
        raise DeclinedError(7)
    assert caught.value.reason() == "7"
    assert spans.names == ["declined_error.reason"]


def test_metaclass_is_kept(spans: CapturedSpans) -> None:
    class Meta(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            instance = super().__call__(*args, **kwargs)
            instance.made_by = "meta"
            return instance

    @traced
    class Orders(metaclass=Meta):
        made_by: str

        def save(self) -> str:
            return self.made_by

    assert Orders().save() == "meta"
    assert type(Orders) is Meta
    assert spans.names == ["orders.save"]


def test_init_subclass_and_set_name_run_as_before(spans: CapturedSpans) -> None:
    registered: list[str] = []

    class Named:
        def __set_name__(self, owner: type, name: str) -> None:
            registered.append(f"{owner.__name__}.{name}")

    @traced
    class Plugin:
        field = Named()

        def __init_subclass__(cls, /, label: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            registered.append(label)

        def run(self) -> str:
            return type(self).__name__

    class Mail(Plugin, label="mail"):
        pass

    assert Mail().run() == "Mail"
    assert registered == ["Plugin.field", "mail"]
    assert spans.names == ["plugin.run"]


def test_nested_class_is_left_alone(spans: CapturedSpans) -> None:
    @traced
    class Order:
        class Line:
            def weigh(self) -> int:
                return 1

        @traced
        class Parcel:
            def weigh(self) -> int:
                return 2

        make = Line

    assert Order.make().weigh() + Order.Parcel().weigh() == 3
    assert spans.names == ["parcel.weigh"]


def test_multiple_inheritance_follows_the_method_resolution_order(spans: CapturedSpans) -> None:
    @traced
    class Base:
        def save(self) -> list[str]:
            return ["base"]

    @traced
    class Left(Base):
        def save(self) -> list[str]:
            return ["left", *super().save()]

    @traced
    class Right(Base):
        def save(self) -> list[str]:
            return ["right", *super().save()]

    @traced
    class Both(Left, Right):
        def save(self) -> list[str]:
            return ["both", *super().save()]

    assert Both().save() == ["both", "left", "right", "base"]
    spans.assert_tree("""
        both.save
          left.save
            right.save
              base.save
    """)


def test_callables_that_are_no_methods_are_left_alone() -> None:
    class Handler:
        def __call__(self) -> str:
            return "handled"

    handler = Handler()

    @traced
    class Orders:
        handle = handler
        count = len
        kind = int
        total = property(lambda self: 3)

    assert Orders.handle is handler
    assert Orders.count is len
    assert Orders().count("abc") == 3
    assert Orders.kind is int
    assert Orders().total == 3


def test_method_that_is_shared_by_two_classes_is_traced_in_each(spans: CapturedSpans) -> None:
    def save(self: Any) -> str:
        return type(self).__name__

    @traced
    class First:
        keep = save

    class Second:
        keep = save

    assert (First().keep(), Second().keep()) == ("First", "Second")
    assert len(spans) == 1


def test_method_calls_of_itself_are_nested(spans: CapturedSpans) -> None:
    @traced
    class Tree:
        def depth(self, levels: int) -> int:
            return 0 if levels == 0 else 1 + self.depth(levels - 1)

    assert Tree().depth(3) == 3
    spans.assert_tree("""
        tree.depth  levels=3
          tree.depth  levels=2
            tree.depth  levels=1
              tree.depth  levels=0
    """)


def test_missing_attribute_and_wrong_call_read_as_without_it() -> None:
    with pytest.raises(AttributeError, match="'Repository' object has no attribute 'sav'"):
        Repository().sav()  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"Repository\.save\(\) missing 1 required positional argument: 'order_id'"):
        Repository().save()  # type: ignore[call-arg]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax of type parameters is 3.12's")
def test_class_with_type_parameters_keeps_them() -> None:
    scope: dict[str, Any] = {"traced": traced}
    exec(
        "@traced\nclass Box[T]:\n    def put[U](self, item: T, other: U) -> U:\n        return other\n",
        {"__name__": "boxes", **scope},
        scope,
    )
    box = scope["Box"]
    assert [str(parameter) for parameter in box.__type_params__] == ["T"]
    assert [str(parameter) for parameter in box.put.__type_params__] == ["U"]
    assert box[int]().put(1, "a") == "a"
