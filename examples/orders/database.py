"""The database of the order service: SQLite, unless `ORDERS_DATABASE_URL` names another one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from tracekit import traced

from .models import Base, Product

engine = create_async_engine(os.environ.get("ORDERS_DATABASE_URL", "sqlite+aiosqlite:///orders.db"))
new_session = async_sessionmaker(engine, expire_on_commit=False)

PRODUCTS = {"tea": 450, "teapot": 3_900, "cup": 1_200}


@traced
async def prepare() -> None:
    """Make the tables and the products that are missing."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with new_session() as session:
        for sku, price_cents in PRODUCTS.items():
            await session.merge(Product(sku=sku, price_cents=price_cents))
        await session.commit()


async def session_of_request() -> AsyncIterator[AsyncSession]:
    """Give each request a session of its own."""
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(session_of_request)]
