"""Celery over RabbitMQ, with workers in processes of their own: one trace through tasks, retries and tasks of tasks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from brokers import Exchange, assert_failed_once, assert_joined

from tracekit.messaging import producing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

celery = pytest.importorskip("celery")

pytestmark = pytest.mark.services("rabbitmq")

BROKER: Final = "amqp://guest:guest@127.0.0.1:5672//"

TASKS: Final = f"""
import celery

import tracekit
from tracekit.messaging import consuming, producing

app = celery.Celery("shop", broker={BROKER!r})
app.conf.update(task_ignore_result=True, worker_redirect_stdouts=False)

tracekit.configure(service="worker", exporter="file:traces.jsonl")

@tracekit.traced("orders.handle")
def handle(body, attempt):
    if body == "poison" or (body == "flaky" and attempt == 0):
        raise ValueError("cannot read it")

@app.task(bind=True, name="shop.order", acks_late=True, max_retries=1)
def order(self, body):
    queue = self.request.delivery_info["routing_key"]
    try:
        with consuming(queue, self.request, system="celery", message_id=self.request.id):
            handle(body, self.request.retries)
            if body == "order":
                with producing(queue, system="celery") as headers:
                    self.apply_async(("invoice",), queue=queue, headers=headers)
    except ValueError as error:
        if self.request.retries == self.max_retries:
            print("failed", body, flush=True)
        raise self.retry(countdown=0, exc=error)
    print("done", body, flush=True)
"""


@pytest.fixture
def app(exchange: Exchange, tmp_path: Path) -> Iterator[Any]:
    """A client, and a worker in another process with a queue of its own."""
    (tmp_path / "tasks.py").write_text(TASKS)
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "CRITICAL"]
    pool = ["--pool", "prefork", "--concurrency", "1", "--queues", exchange.name, "--hostname", exchange.name]
    exchange.start([sys.executable, "-m", "celery", "--app", "tasks", "--quiet", "worker", *quiet, *pool])
    with celery.Celery("shop", broker=BROKER, set_as_current=False) as app:
        yield app
        with app.connection() as connection:
            connection.default_channel.queue_delete(exchange.name)


def send(app: Any, queue: str, body: str) -> None:
    with producing(queue, system="celery") as headers:
        app.send_task("shop.order", (body,), queue=queue, headers=headers)


def stop(exchange: Exchange, app: Any) -> None:
    # By message: a signal waits for the worker's next poll, 10 seconds at worst.
    app.control.shutdown(destination=[f"celery@{exchange.name}"])
    exchange.finish()


def test_retry_joins_the_trace_of_the_producer(exchange: Exchange, app: Any) -> None:
    for body in ("flaky", "poison"):
        send(app, exchange.name, body)
    assert {exchange.line(), exchange.line()} == {"done flaky", "failed poison"}
    stop(exchange, app)
    processed = exchange.spans(f"process {exchange.name}")
    handled = {span.parent_id: span for span in exchange.spans("orders.handle")}
    producers = exchange.spans(f"send {exchange.name}")
    for sent, statuses in zip(producers, (["error", "ok"], ["error", "error"]), strict=True):
        attempts = [span for span in processed if span.trace_id == sent.trace_id]
        assert [span.status for span in attempts] == statuses
        for span in attempts:
            assert_joined(sent, span)
            if span.status == "error":
                assert_failed_once(span, handled[span.span_id])


def test_task_of_a_task_stays_in_the_trace(exchange: Exchange, app: Any) -> None:
    send(app, exchange.name, "order")
    assert [exchange.line(), exchange.line()] == ["done order", "done invoice"]
    stop(exchange, app)
    sent, sent_on = exchange.spans(f"send {exchange.name}")
    order, invoice = exchange.spans(f"process {exchange.name}")
    assert_joined(sent, order)
    assert sent_on.parent_id == order.span_id
    assert (invoice.trace_id, invoice.parent_id) == (sent.trace_id, sent_on.span_id)
