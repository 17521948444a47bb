"""SQLAlchemy's statements as spans: every engine, every way of sending, errors and parents."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from libraries import captured_spans, tracer
from opentelemetry import context as context_api
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tracekit._config import runtime
from tracekit.errors import InstrumentationError
from tracekit.instrumentation import instrument, instrumented, uninstrument
from tracekit.instrumentation.sqlalchemy import _parsed
from tracekit.testing import capture_spans

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracekit.testing import CapturedSpans


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)


@pytest.fixture
def spans() -> Iterator[CapturedSpans]:
    with captured_spans() as spans:
        yield spans


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine(tmp_path: Path) -> Any:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/async.db")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


def ask(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        connection.execute(sa.select(User).where(User.id == 7))


def test_statement_on_this_sqlalchemy_is_one_client_span_by_the_conventions(
    spans: CapturedSpans, engine: sa.Engine
) -> None:
    [state] = instrument("sqlalchemy", engine=engine)
    assert state.is_wired
    assert sa.__version__ in state.by
    ask(engine)
    [span] = spans
    assert (span.name, span.kind, span.status.status_code) == ("SELECT users", SpanKind.CLIENT, StatusCode.UNSET)
    assert dict(span.attributes) == {
        "db.system.name": "sqlite",
        "db.namespace": engine.url.database,
        "db.operation.name": "SELECT",
        "db.collection.name": "users",
        "db.query.text": "SELECT users.id, users.email \nFROM users \nWHERE users.id = ?",
    }


def test_engines_made_before_and_after_a_call_without_engine_are_traced(
    spans: CapturedSpans, engine: sa.Engine
) -> None:
    instrument("sqlalchemy")
    later = sa.create_engine("sqlite://")
    ask(engine)
    with later.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    later.dispose()
    assert spans.names == ["SELECT users", "SELECT"]


def test_connection_opened_before_the_call_is_traced(spans: CapturedSpans, engine: sa.Engine) -> None:
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        instrument("sqlalchemy")
        connection.execute(sa.text("SELECT 1"))
    assert spans.names == ["SELECT"]


def test_only_the_given_engines_are_traced(spans: CapturedSpans, engine: sa.Engine) -> None:
    one, two = sa.create_engine("sqlite://"), sa.create_engine("sqlite://")
    instrument("sqlalchemy", engines=[one, engine])
    with one.connect() as connection:
        connection.execute(sa.text("SELECT 'one'"))
    with two.connect() as connection:
        connection.execute(sa.text("SELECT 'two'"))
    ask(engine)
    one.dispose()
    two.dispose()
    assert spans.names == ["SELECT", "SELECT users"]


def test_second_engine_can_follow_the_first(spans: CapturedSpans, engine: sa.Engine) -> None:
    second = sa.create_engine("sqlite://")
    instrument("sqlalchemy", engine=engine)
    instrument("sqlalchemy", engine=second)
    ask(engine)
    with second.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    second.dispose()
    assert spans.names == ["SELECT users", "SELECT"]


def test_instrumenting_twice_and_in_both_ways_makes_one_span(spans: CapturedSpans, engine: sa.Engine) -> None:
    instrument("sqlalchemy", engine=engine)
    instrument("sqlalchemy", engine=engine)
    instrument("sqlalchemy")
    instrument("sqlalchemy")
    ask(engine)
    assert spans.names == ["SELECT users"]


def test_options_of_an_engine_keep_it_traced(spans: CapturedSpans, engine: sa.Engine) -> None:
    instrument("sqlalchemy", engine=engine)
    ask(engine.execution_options(schema_translate_map={"tenant": None}))
    assert spans.names == ["SELECT users"]


@pytest.mark.parametrize("given", ["engine", "all"])
def test_nothing_is_traced_after_uninstrument(spans: CapturedSpans, engine: sa.Engine, given: str) -> None:
    options = {"engine": engine} if given == "engine" else {}
    instrument("sqlalchemy", **options)
    uninstrument("sqlalchemy", **options)
    uninstrument("sqlalchemy", **options)
    ask(engine)
    assert spans.names == []
    assert instrumented() == ()
    instrument("sqlalchemy", **options)
    ask(engine)
    assert spans.names == ["SELECT users"]


@pytest.mark.anyio
async def test_async_engine_is_traced_under_the_span_of_its_task(
    spans: CapturedSpans, async_engine: AsyncEngine
) -> None:
    instrument("sqlalchemy", engine=async_engine)

    async def work(number: int) -> None:
        with tracer.start_as_current_span(f"task {number}"):
            async with AsyncSession(async_engine) as session:
                session.add(User(email=f"{number}@example.org"))
                await session.commit()

    await asyncio.gather(*(work(number) for number in range(10)))
    tasks = {span.context.span_id: span for span in spans if span.name.startswith("task")}
    inserts = [span for span in spans if span.name == "INSERT users"]
    assert len(inserts) == len(tasks) == 10
    assert {span.parent.span_id for span in inserts if span.parent} == set(tasks)


@pytest.mark.anyio
async def test_async_engines_are_traced_by_the_call_without_engine(
    spans: CapturedSpans, async_engine: AsyncEngine
) -> None:
    instrument("sqlalchemy")
    async with async_engine.connect() as connection:
        async for _ in await connection.stream(sa.select(User)):
            pass
    assert spans.names == ["SELECT users"]


@pytest.mark.anyio
async def test_cancelled_statement_is_no_error(spans: CapturedSpans, async_engine: AsyncEngine) -> None:
    instrument("sqlalchemy", engine=async_engine)
    forever = sa.text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
    async with async_engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        task = asyncio.ensure_future(connection.execute(forever))
        running = asyncio.Event()
        # SQLite calls back from within the statement, so the statement is running.
        loop = asyncio.get_running_loop()
        stopped: list[int] = []

        def progress() -> int:
            loop.call_soon_threadsafe(running.set)
            return len(stopped)

        await driver.set_progress_handler(progress, 10_000)
        await running.wait()
        task.cancel()
        stopped.append(1)
        with pytest.raises(asyncio.CancelledError):
            await task
    [span] = spans
    assert span.status.status_code is StatusCode.UNSET
    assert [each.name for each in span.events] == ["cancelled"]


def test_failed_statement_says_what_the_database_said_and_no_values(spans: CapturedSpans, engine: sa.Engine) -> None:
    instrument("sqlalchemy", engine=engine)
    with Session(engine) as session:
        session.add(User(id=1, email="secret@example.org"))
        session.commit()
        session.add(User(id=1, email="secret@example.org"))
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
    failed = spans[-1]
    assert failed.name == "INSERT users"
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == "IntegrityError: UNIQUE constraint failed: users.id"
    attributes = dict(failed.attributes)
    assert attributes["error.type"] == "sqlite3.IntegrityError"
    if hasattr(sqlite3.Error, "sqlite_errorname") or "db.response.status_code" in attributes:
        assert attributes["db.response.status_code"] == "SQLITE_CONSTRAINT_PRIMARYKEY"
    assert "secret" not in str(attributes)


def test_caller_gets_the_same_exception_as_without_tracing(spans: CapturedSpans, engine: sa.Engine) -> None:
    instrument("sqlalchemy", engine=engine)
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError, match="no such table: nope"):
        connection.execute(sa.text("SELECT * FROM nope"))
    [span] = spans
    assert (span.name, span.status.status_code) == ("SELECT nope", StatusCode.ERROR)


def test_failing_provider_fails_no_statement(engine: sa.Engine) -> None:
    class Broken(TracerProvider):
        def get_tracer(self, *_: Any, **__: Any) -> Any:
            msg = "broken"
            raise RuntimeError(msg)

    undo = runtime.use(provider=Broken())
    instrument("sqlalchemy", engine=engine)
    ask(engine)
    uninstrument()
    undo()


def test_bulk_insert_is_one_span_with_its_size(spans: CapturedSpans, engine: sa.Engine) -> None:
    instrument("sqlalchemy", engine=engine)
    with Session(engine) as session:
        session.add_all([User(email=f"{number}@example.org") for number in range(25)])
        session.commit()
    [span] = spans
    assert span.name == "BATCH INSERT users"
    assert span.attributes["db.operation.batch.size"] == 25
    assert span.attributes["db.query.text"] == "INSERT INTO users (email) VALUES (?) RETURNING id"


def test_failed_bulk_insert_is_one_failed_span(spans: CapturedSpans, engine: sa.Engine) -> None:
    instrument("sqlalchemy", engine=engine)
    with Session(engine) as session:
        session.add_all([User(email="same@example.org") for _ in range(25)])
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
    [span] = spans
    assert (span.name, span.status.status_code) == ("BATCH INSERT users", StatusCode.ERROR)


def test_many_sets_of_parameters_are_one_batch(spans: CapturedSpans, engine: sa.Engine) -> None:
    instrument("sqlalchemy", engine=engine)
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO users (email) VALUES (:email)"), [{"email": str(n)} for n in range(3)])
    [span] = spans
    assert span.name == "BATCH INSERT users"
    assert span.attributes["db.operation.batch.size"] == 3


def test_statements_of_a_transaction_are_children_of_the_span_around_it_in_order(
    spans: CapturedSpans, engine: sa.Engine
) -> None:
    instrument("sqlalchemy", engine=engine)
    with tracer.start_as_current_span("order"), Session(engine) as session, session.begin():
        user = User(email="a@example.org")
        session.add(user)
        session.flush()
        user.email = "b@example.org"
        with session.begin_nested():
            session.delete(user)
    *statements, order = spans
    assert [span.name for span in statements] == [
        "INSERT users",
        "UPDATE users",
        "SAVEPOINT",
        "DELETE users",
        "RELEASE",
    ]
    assert {span.parent.span_id for span in statements if span.parent} == {order.context.span_id}
    starts = [span.start_time or 0 for span in statements]
    assert starts == sorted(starts)
    for span in statements:
        assert (order.start_time or 0) <= (span.start_time or 0) <= (span.end_time or 0) <= (order.end_time or 0)


def test_raw_sql_without_parameters_shows_no_literals(spans: CapturedSpans, engine: sa.Engine) -> None:
    instrument("sqlalchemy", engine=engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET email = 'it''s secret' WHERE id = 42")
    [span] = spans
    assert span.attributes["db.query.text"] == "UPDATE users SET email = ? WHERE id = ?"


@pytest.mark.parametrize(
    ("statement", "operation", "table"),
    [
        ("select * from shop.orders o join items on 1", "SELECT", "shop.orders"),
        ('INSERT INTO "Orders" VALUES (?)', "INSERT", "Orders"),
        ("/* app=x */ -- note\n  DELETE FROM `orders`", "DELETE", "orders"),
        ("SELECT * FROM (SELECT id FROM [dbo].[orders])", "SELECT", "dbo.orders"),
        ("CREATE TABLE IF NOT EXISTS orders (id INT)", "CREATE", "orders"),
        ("(SELECT 'from nowhere')", "SELECT", ""),
        ("PRAGMA foreign_keys", "PRAGMA", ""),
        ("", "", ""),
        ("--", "", ""),
    ],
)
def test_operation_and_first_table_are_read_from_the_statement(statement: str, operation: str, table: str) -> None:
    assert _parsed(statement, True, False)[:2] == (operation, table)


@pytest.mark.parametrize(
    ("statement", "has_backslashes", "shown"),
    [
        (
            "SELECT 'a' || \"b\", $1, t1.c2 FROM t WHERE x = -1.5e3",
            False,
            'SELECT ? || "b", $1, t1.c2 FROM t WHERE x = ?',
        ),
        (r"SELECT 'it\'s', " + r'"a \"secret\"", `a1` FROM t', True, "SELECT ?, ?, `a1` FROM t"),
        ("SELECT $tag$it's secret$tag$, $$x$$", False, "SELECT ?, ?"),
    ],
)
def test_literals_of_every_dialect_are_hidden(statement: str, has_backslashes: bool, shown: str) -> None:
    assert _parsed(statement, False, has_backslashes)[2] == shown


def test_suppressed_statements_make_no_span(spans: CapturedSpans, engine: sa.Engine) -> None:
    instrument("sqlalchemy", engine=engine)
    token = context_api.attach(context_api.set_value("suppress_instrumentation", True))
    ask(engine)
    context_api.detach(token)
    assert spans.names == []


@pytest.mark.parametrize("official_first", [True, False])
def test_official_instrumentation_beside_ours_makes_no_second_span(spans: CapturedSpans, official_first: bool) -> None:
    official = SQLAlchemyInstrumentor()
    if not official_first:
        instrument("sqlalchemy")
    official.instrument(tracer_provider=runtime.provider, skip_dep_check=True)
    try:
        engine = sa.create_engine("sqlite://")
        if official_first:
            instrument("sqlalchemy", engine=engine)
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
        engine.dispose()
    finally:
        official.uninstrument()
    assert [name for name in spans.names if name != "connect"] == ["SELECT"]


def test_spans_follow_the_provider_of_the_moment(spans: CapturedSpans, engine: sa.Engine) -> None:
    instrument("sqlalchemy", engine=engine)
    ask(engine)
    with capture_spans() as other:
        ask(engine)
    ask(engine)
    assert (spans.names, other.names) == (["SELECT users"] * 2, ["SELECT users"])


def test_statement_runs_as_it_is_without_a_provider(engine: sa.Engine) -> None:
    instrument("sqlalchemy", engine=engine)
    ask(engine)
    uninstrument()


def test_listeners_of_the_user_still_run(spans: CapturedSpans, engine: sa.Engine) -> None:
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    instrument("sqlalchemy", engine=engine)
    ask(engine)
    assert len(seen) == len(spans) == 1


def test_wrong_engine_and_unknown_option_say_what_to_write(spans: CapturedSpans) -> None:
    with pytest.raises(InstrumentationError, match=r"given a str; expected an Engine .*engine=engine"):
        instrument("sqlalchemy", engine="sqlite://")
    with pytest.raises(InstrumentationError, match=r"'enigne'. It takes: engine, engines"):
        instrument("sqlalchemy", enigne=1)
