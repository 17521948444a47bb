"""One request through everything: two web services, a database, a broker and a worker leave one tree."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tracekit.cli.service import Service
from tracekit.view.reading import read_trace_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otlp_receiver import HttpReceiver

    from tracekit.export.record import SpanRecord

for module in ("fastapi", "sqlalchemy", "aiosqlite", "httpx", "uvicorn"):
    pytest.importorskip(module, reason="needs the extra `demo`")
httpx = pytest.importorskip("httpx")
aio_pika = pytest.importorskip("aio_pika")

pytestmark = [pytest.mark.services("rabbitmq"), pytest.mark.slow, pytest.mark.timeout(240)]

EXAMPLES: Final = Path(__file__).parent.parent / "examples"
BROKER_URL: Final = "amqp://guest:guest@127.0.0.1:5672/"
POSTGRES: Final = "127.0.0.1:5432/test"
CONCURRENCY: Final = 50
# For a machine that is busy.
DEADLINE_S: Final = 60.0

PAID: Final = """
    orders: POST /orders
      orders: orders.create
        orders: orders.validate
          orders: SELECT products
        orders: orders.save
          orders: INSERT orders
          orders: INSERT order_lines
        orders: payment_gateway.charge
          orders: POST
            payments: POST /charges
              payments: payments.to_euro
              payments: payments.authorize
        orders: orders.change_status
          orders: UPDATE orders
        orders: send QUEUE
          shipping: process QUEUE
            shipping: shipping.ship
"""
PAID_BUT_NOT_SHIPPED: Final = PAID.replace("process QUEUE", "process QUEUE ERROR").replace("ship\n", "ship ERROR\n")
FAILED: Final = """
    orders: POST /orders ERROR
      orders: orders.create ERROR
        orders: orders.validate
          orders: SELECT products
        orders: orders.save
          orders: INSERT orders
          orders: INSERT order_lines
        orders: payment_gateway.charge ERROR
          orders: POST ERROR
            payments: POST /charges ERROR
              payments: payments.to_euro ERROR
"""
STREAMED: Final = """
    orders: GET /orders.csv
      orders: orders.export
        orders: SELECT orders
"""


def outline(trace: list[SpanRecord]) -> str:
    """The services, names and errors of a trace, children below their parent in the order in which they started."""
    assert len({span.span_id for span in trace}) == len(trace)
    lines: list[str] = []

    def add(parent_id: str | None, level: int) -> None:
        for span in trace:
            if span.parent_id == parent_id:
                error = " ERROR" if span.status == "error" else ""
                lines.append(f"{'  ' * level}{span.service}: {span.name}{error}")
                add(span.span_id, level + 1)

    trace = sorted(trace, key=lambda span: span.start_time_ns)
    add(None, 0)
    # What has no parent among them would be left out.
    assert len(lines) == len(trace), [span.name for span in trace]
    return "\n".join(lines)


class Shop:
    """The order service, the payment service and the shipping worker, in processes of their own."""

    def __init__(self, directory: Path, database_url: str, **environment: str) -> None:
        self.queue = f"tracekit-{uuid.uuid4().hex}"
        self.spans = directory / "spans.jsonl"
        self._directory = directory
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "ORDERS_"))},
            "OTEL_TRACES_EXPORTER": f"file:{self.spans}",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "ORDERS_DATABASE_URL": database_url,
            "ORDERS_BROKER_URL": BROKER_URL,
            "ORDERS_QUEUE": self.queue,
            **environment,
        }

    def log(self, name: str) -> str:
        return (self._directory / f"{name}.log").read_text(encoding="utf-8")

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            payments = stack.enter_context(self._service("payments", "orders.payments:app"))
            self._environment["ORDERS_PAYMENTS_URL"] = payments.url
            orders = stack.enter_context(self._service("orders", "orders.app:app"))
            stack.enter_context(self._worker())
            payments.wait_until_ready()
            orders.wait_until_ready()
            self.url = orders.url
            yield

    def _service(self, name: str, app: str) -> Service:
        log = self._directory / f"{name}.log"
        return Service(app, directory=EXAMPLES, environment=self._environment, log=log)

    @contextmanager
    def _worker(self) -> Iterator[None]:
        with (self._directory / "shipping.log").open("wb") as log:
            command = [sys.executable, "-m", "orders.shipping"]
            self._shipping = subprocess.Popen(command, cwd=EXAMPLES, env=self._environment, stderr=log)
        try:
            yield
        finally:
            self._shipping.send_signal(signal.SIGTERM)
            self._shipping.wait(DEADLINE_S)

    def order(self, client: Any, **fields: Any) -> int:
        """Place an order and return the status of the answer."""
        order = {
            "customer": "Ada",
            "card_number": uuid.uuid4().hex,
            "lines": [{"sku": "tea", "quantity": 1}],
            **fields,
        }
        return int(client.post(f"{self.url}/orders", json=order).status_code)

    def wait_until_processed(self, messages: int) -> None:
        """Wait until the worker has processed so many *messages*."""
        deadline = time.monotonic() + DEADLINE_S
        while sum(span.name.startswith("process ") for span in self._spans()) < messages:
            assert self._shipping.poll() is None, self.log("shipping")
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def traces(self) -> list[list[SpanRecord]]:
        """The traces of all requests, in the order in which they began; complete once the processes have ended."""
        traces = read_trace_file(self.spans).traces()
        return [trace for trace in traces if any(" /" in span.name for span in trace)]

    def outlines(self) -> list[str]:
        """The outlines of these traces."""
        return [outline(trace).replace(self.queue, "QUEUE") for trace in self.traces()]

    def _spans(self) -> tuple[SpanRecord, ...]:
        return read_trace_file(self.spans).spans if self.spans.exists() else ()


def has_postgres() -> bool:
    try:
        import asyncpg  # noqa: F401

        socket.create_connection(("127.0.0.1", 5432), timeout=2).close()
    except (ImportError, OSError):
        return False
    return True


@contextmanager
def empty_database(directory: Path) -> Iterator[str]:
    """A schema of our own in PostgreSQL where that runs, else a file of SQLite's; gives its URL."""
    if not has_postgres():
        yield f"sqlite+aiosqlite:///{directory / 'orders.db'}"
        return
    import asyncpg

    schema = f"tracekit_{uuid.uuid4().hex}"

    async def run(statement: str) -> None:
        connection = await asyncpg.connect(f"postgresql://root@{POSTGRES}")
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run(f"CREATE ROLE {schema} LOGIN; CREATE SCHEMA {schema} AUTHORIZATION {schema}"))
    try:
        # The schema called like the user is searched first.
        yield f"postgresql+asyncpg://{schema}@{POSTGRES}"
    finally:
        asyncio.run(run(f"DROP SCHEMA {schema} CASCADE; DROP ROLE {schema}"))


@contextmanager
def open_shop(directory: Path, **environment: str) -> Iterator[Shop]:
    with empty_database(directory) as database_url:
        shop = Shop(directory, database_url, **environment)
        try:
            with shop.running():
                yield shop
        finally:
            asyncio.run(delete(shop.queue))


async def delete(queue: str) -> None:
    async with await aio_pika.connect(BROKER_URL) as connection, connection.channel() as channel:
        await channel.queue_delete(queue)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop to which one request of each kind was sent."""
    with open_shop(tmp_path_factory.mktemp("shop")) as shop:
        with httpx.Client(timeout=DEADLINE_S, trust_env=False) as client:
            assert shop.order(client) == 201
            assert shop.order(client, customer="") == 201
            assert shop.order(client, currency="CHF") == 502
            assert len(client.get(f"{shop.url}/orders.csv").text.splitlines()) == 4
        shop.wait_until_processed(2)
    return shop


def test_each_request_is_one_tree_in_order_through_every_process(shop: Shop) -> None:
    expected = [textwrap.dedent(text).strip() for text in (PAID, PAID_BUT_NOT_SHIPPED, FAILED, STREAMED)]
    assert shop.outlines() == expected


def test_operations_record_a_failure_once_a_process(shop: Shop) -> None:
    failures = [
        (span.service, span.name, event.exception)
        for trace in shop.traces()
        for span in trace
        for event in span.events
        # The server's span records what leaves the app besides.
        if "exception.stacktrace" in event.attributes and not span.name.startswith("POST /")
    ]
    assert failures == [
        ("shipping", "shipping.ship", "NoAddress: 2"),
        ("orders", "payment_gateway.charge", "PaymentFailed: the payment service answered 500"),
        ("payments", "payments.to_euro", "KeyError: 'CHF'"),
    ]


def test_log_lines_of_both_ends_lead_to_the_trace(shop: Shop) -> None:
    paid, not_shipped, *_ = (trace[0].trace_id for trace in shop.traces())
    assert f"INFO {paid} order 1 is paid" in shop.log("orders")
    assert f"INFO {paid} order 1 goes to Ada" in shop.log("shipping")
    assert f"ERROR {not_shipped} not shipped" in shop.log("shipping")


def test_fifty_requests_at_once_are_fifty_trees_and_counted(tmp_path: Path, otlp_http: HttpReceiver) -> None:
    metrics = {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{otlp_http.endpoint}/v1/metrics",
    }
    with open_shop(tmp_path, **metrics) as shop:
        with (
            httpx.Client(timeout=DEADLINE_S, trust_env=False, limits=httpx.Limits(max_connections=None)) as client,
            ThreadPoolExecutor(CONCURRENCY) as pool,
        ):
            assert set(pool.map(lambda _: shop.order(client), range(CONCURRENCY))) == {201}
        shop.wait_until_processed(CONCURRENCY)
    assert Counter(shop.outlines()) == {textwrap.dedent(PAID).strip(): CONCURRENCY}
    for trace in shop.traces():
        # Of one order each, nothing of a neighbour's among it.
        assert len({span.attributes["order.id"] for span in trace if "order.id" in span.attributes}) == 1
    # Each process sends its last metrics when it ends.
    counted = {request.resource["service.name"]: request.points() for request in otlp_http.metrics}
    for service, operation in (
        ("orders", "orders.create"),
        ("payments", "payments.authorize"),
        ("shipping", "process QUEUE"),
    ):
        name = operation.replace("QUEUE", shop.queue)
        assert counted[service]["tracekit.operation.duration", (name,)] == CONCURRENCY
