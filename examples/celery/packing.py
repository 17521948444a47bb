"""
Trace tasks from the program that sends them into Celery's worker processes, as one trace.

Run it (`python examples/celery/packing.py traces.jsonl`) with Redis on this machine, then look at the trace:
`tracekit view traces.jsonl`. It starts a worker for itself, which elsewhere is `celery --app packing worker`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from celery import Celery, Task
from celery.result import AsyncResult
from celery.signals import worker_init

import tracekit
from tracekit import inject, set_attribute, traced

BROKER = os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/0")

app = Celery("packing", broker=BROKER, backend=BROKER)
app.conf.task_default_queue = os.environ.get("PACKING_QUEUE", "packing")


@worker_init.connect
def set_up_worker(**_signal: object) -> None:
    """Set tracing up before the worker forks its processes, which export on their own."""
    tracekit.configure(service="packing", exporter=f"file:{os.environ['TRACES']}")


# `traced` stands below `task`: what Celery registers and calls is the traced function.
@app.task(bind=True)
@traced("packing.pack", kind="consumer", parent=lambda self: self.request.headers)
def pack(self: Task, order_id: int) -> str:  # noqa: ARG001  # for `parent=`
    """Pack one order, in a worker process; returns the id of the task that labels it."""
    set_attribute("worker.pid", os.getpid())
    return label.apply_async((order_id,), headers=inject()).id


@app.task(bind=True)
@traced("packing.label", kind="consumer", parent=lambda self: self.request.headers)
def label(self: Task, order_id: int) -> str:  # noqa: ARG001  # for `parent=`
    """Print the label, in another task."""
    return f"order {order_id} is ready"


@traced("orders.ship")
def ship(order_ids: list[int]) -> list[str]:
    """Send the orders to the workers, and wait for them."""
    packing = [pack.apply_async((order_id,), headers=inject()) for order_id in order_ids]
    return [wait_for(app.AsyncResult(wait_for(packed))) for packed in packing]


def wait_for(result: AsyncResult) -> str:
    """Return what a task returns, and remove it from the backend."""
    returned = result.get(timeout=60)
    result.forget()
    return returned


def main(path: str) -> None:
    """Ship some orders with a worker of two processes, each of which ends after two tasks."""
    tracekit.configure(service="orders", exporter=f"file:{path}")
    options = ["--concurrency=2", "--max-tasks-per-child=2", "--loglevel=error", "--without-mingle", "--without-gossip"]
    worker = subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, "-m", "celery", "--app", "packing", "--quiet", "worker", *options],
        cwd=Path(__file__).parent,
        env={**os.environ, "TRACES": str(Path(path).resolve())},
    )
    try:
        for line in ship([1, 2, 3, 4]):
            print(line)
    finally:
        worker.terminate()  # it ends when its tasks are done
        worker.wait()
    print(f"see: tracekit view {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
