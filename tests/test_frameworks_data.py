"""SQLAlchemy, Pydantic, attrs and dataclasses find in traced methods what they look for in plain ones."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import attrs
import pydantic
import pytest
from sqlalchemy import create_engine, event, func, select
from sqlalchemy.ext.hybrid import hybrid_method, hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, validates

from tracekit import traced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Engine

    from tracekit.testing import CapturedSpans


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    price: Mapped[int]

    @hybrid_property
    @traced
    def gross(self) -> int:
        return self.price * 2

    @hybrid_property
    def label(self) -> str:
        return self.item.upper()

    @label.inplace.expression
    @classmethod
    @traced
    def _label_expression(cls) -> ColumnElement[str]:
        return func.upper(cls.item)

    @hybrid_method
    @traced
    def costs_more_than(self, limit: int) -> bool:
        return self.price > limit

    @validates("price")
    @traced
    def check_price(self, key: str, price: int) -> int:
        if price < 0:
            msg = "negative"
            raise ValueError(msg)
        return price


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_hybrids_work_on_rows_and_in_queries(engine: Engine, spans: CapturedSpans) -> None:
    with Session(engine) as session:
        session.add_all([Order(item="tea", price=2), Order(item="pot", price=30)])
        session.commit()
        assert session.scalars(select(Order.label).where(Order.gross == 4)).one() == "TEA"
        order = session.scalars(select(Order).where(Order.costs_more_than(10))).one()
        assert (order.label, order.gross, order.costs_more_than(40)) == ("POT", 60, False)
    assert {"order.gross", "order._label_expression", "order.costs_more_than", "order.check_price"} == {*spans.names}


def test_a_traced_validator_of_sqlalchemy_refuses(spans: CapturedSpans) -> None:
    with pytest.raises(ValueError, match="negative"):
        Order(item="tea", price=-1)
    assert spans.one("order.check_price").attributes["key"] == "price"


def test_sqlalchemy_finds_the_arity_of_a_traced_listener_and_removes_it(engine: Engine, spans: CapturedSpans) -> None:
    @traced("listeners.insert")
    def before_insert(mapper: Any, connection: Any, target: Order) -> None:
        target.item = target.item.strip()

    @traced("listeners.execute")
    def before_execute(
        conn: Any, clauseelement: Any, multiparams: Any, params: Any, execution_options: Any
    ) -> None: ...

    @traced("listeners.named")
    def connect(**kw: Any) -> None:
        assert {*kw} == {"dbapi_connection", "connection_record"}

    event.listen(Order, "before_insert", before_insert)
    event.listen(engine, "before_execute", before_execute)
    event.listen(engine, "first_connect", connect, named=True)
    with Session(engine) as session:
        session.add(Order(item=" tea ", price=2))
        session.commit()
        assert session.scalars(select(Order.item)).one() == "tea"
    event.remove(Order, "before_insert", before_insert)
    event.remove(engine, "before_execute", before_execute)
    assert not event.contains(Order, "before_insert", before_insert)
    assert len(spans.all("listeners.insert")) == 1
    assert len(spans.all("listeners.execute")) == 2


class Invoice(pydantic.BaseModel):
    number: str
    total: int
    paid: int = 0

    @pydantic.field_validator("number", mode="before")
    @classmethod
    @traced
    def strip(cls, value: str) -> str:
        return value.strip()

    @pydantic.field_validator("total")
    @traced
    @classmethod
    def not_negative(cls, value: int, info: pydantic.ValidationInfo) -> int:
        assert info.data["number"], "has a number"
        if value < 0:
            msg = "negative"
            raise ValueError(msg)
        return value

    @pydantic.model_validator(mode="after")
    @traced
    def not_overpaid(self) -> Invoice:
        assert self.paid <= self.total
        return self

    @pydantic.field_serializer("total")
    @traced
    def in_cents(self, total: int) -> int:
        return total * 100

    @pydantic.computed_field
    @property
    @traced
    def open(self) -> int:
        return self.total - self.paid


def test_pydantic_runs_traced_validators_serializers_and_computed_fields(spans: CapturedSpans) -> None:
    invoice = Invoice(number=" 7 ", total=3, paid=1)
    assert invoice.model_dump() == {"number": "7", "total": 300, "paid": 1, "open": 2}
    with pytest.raises(pydantic.ValidationError, match="negative"):
        Invoice(number="8", total=-1)
    assert {*spans.names} == {
        f"invoice.{name}" for name in ("strip", "not_negative", "not_overpaid", "in_cents", "open")
    }


def test_pydantic_validates_the_arguments_of_a_traced_function(spans: CapturedSpans) -> None:
    @pydantic.validate_call
    @traced("maths.half")
    def half(number: int) -> float:
        return number / 2

    @traced("maths.double")
    @pydantic.validate_call
    def double(number: int) -> int:
        return number * 2

    assert (half("4"), double("4")) == (2.0, 8)  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError):
        half("four")  # type: ignore[arg-type]
    assert spans.one("maths.half").attributes["number"] == 4


@traced
@attrs.define
class Point:
    x: int = attrs.field(converter=int)
    y: int = attrs.field(default=0)

    @y.validator
    def _check_y(self, attribute: Any, value: int) -> None:
        if value < 0:
            msg = f"{attribute.name} is negative"
            raise ValueError(msg)

    def moved(self, *, by: int) -> Point:
        return attrs.evolve(self, x=self.x + by)


def test_a_traced_attrs_class_keeps_slots_validators_and_equality(spans: CapturedSpans) -> None:
    point = Point("1").moved(by=2)  # type: ignore[arg-type]
    assert point == Point(3) == copy.deepcopy(point)
    assert not hasattr(point, "__dict__")
    with pytest.raises(ValueError, match="y is negative"):
        Point(1, -1)
    assert spans.one("point.moved").attributes["by"] == 2


def test_attrs_takes_a_traced_default_and_hook_methods(spans: CapturedSpans) -> None:
    @attrs.define
    class Basket:
        items: list[str] = attrs.field()
        count: int = attrs.field(init=False)

        @items.default
        @traced("baskets.default")
        def _no_items(self) -> list[str]:
            return []

        @traced("baskets.post_init")
        def __attrs_post_init__(self) -> None:
            self.count = len(self.items)

    assert (Basket().count, Basket(["tea"]).count) == (0, 1)
    assert [len(spans.all(name)) for name in ("baskets.default", "baskets.post_init")] == [1, 2]


@traced
@dataclass(frozen=True, slots=True, order=True)
class Money:
    amount: int
    currency: str = "EUR"

    def __post_init__(self) -> None:
        assert self.amount >= 0

    def plus(self, other: Money) -> Money:
        return replace(self, amount=self.amount + other.amount)

    @classmethod
    def parse(cls, text: str) -> Money:
        return cls(int(text))

    @property
    def cents(self) -> int:
        return self.amount * 100


def test_a_traced_dataclass_is_the_dataclass_it_was(spans: CapturedSpans) -> None:
    three = Money.parse("1").plus(Money(2))
    assert (three, three.cents, asdict(three)) == (Money(3), 300, {"amount": 3, "currency": "EUR"})
    assert repr(three) == "Money(amount=3, currency='EUR')"
    assert Money(1) < three
    assert len({three, Money(3)}) == 1
    assert spans.names == ["money.parse", "money.plus"]
