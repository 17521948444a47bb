"""What the order service keeps (tables), takes (`NewOrder`) and answers (`OrderView`)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

Status = Literal["pending", "paid", "declined"]


class Base(DeclarativeBase):
    """What all tables share."""


class Product(Base):
    """Something that can be ordered."""

    __tablename__ = "products"

    sku: Mapped[str] = mapped_column(primary_key=True)
    price_cents: Mapped[int]


class Order(Base):
    """Who ordered, and what became of it."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    currency: Mapped[str]
    total_cents: Mapped[int]
    status: Mapped[str]
    lines: Mapped[list[OrderLine]] = relationship()


class OrderLine(Base):
    """How many of one product."""

    __tablename__ = "order_lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id))
    sku: Mapped[str] = mapped_column(ForeignKey(Product.sku))
    quantity: Mapped[int]


class NewOrderLine(BaseModel):
    """How many of one product a customer wants."""

    sku: str
    quantity: int = Field(gt=0)


class NewOrder(BaseModel):
    """What a customer sends."""

    customer: str
    lines: list[NewOrderLine] = Field(min_length=1)
    card_number: str
    currency: str = "EUR"


class OrderView(BaseModel):
    """What a customer gets to see of an order."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    status: Status
    currency: str
    total_cents: int
