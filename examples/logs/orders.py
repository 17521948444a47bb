"""
Find every log line of a failed order by its trace id.

Run it (`python examples/logs/orders.py`), and it does what you would do by hand: it takes the trace id from the line
that shows the error, and greps the log for it. Orders are handled by several threads, so their lines are mixed.
"""

from __future__ import annotations

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import tracekit
from tracekit import traced
from tracekit.logs import install

log = logging.getLogger("shop")


class JsonLines(logging.Formatter):
    """One JSON object a line: the message, and the fields that `install()` adds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as JSON."""
        fields = {name: getattr(record, name, None) for name in ("trace_id", "span_id", "service")}
        line = {"level": record.levelname, "message": record.getMessage(), **fields}
        return json.dumps({name: value for name, value in line.items() if value is not None})


@traced("orders.create")
def create_order(order_id: int) -> None:
    """Reserve and charge."""
    log.info("order %d received", order_id)
    reserve_stock(order_id)
    charge(order_id)
    log.info("order %d created", order_id)


@traced("stock.reserve")
def reserve_stock(order_id: int) -> None:
    """Put the goods aside."""
    log.info("stock reserved for order %d", order_id)


@traced("payments.charge")
def charge(order_id: int) -> None:
    """Take the money, if the card is good."""
    log.info("charging order %d", order_id)
    if order_id == 3:  # noqa: PLR2004  # this one fails
        msg = "card declined"
        raise ValueError(msg)


def handle(order_id: int) -> None:
    """Do what a web framework does: log what an order failed with, when its span has ended."""
    try:
        create_order(order_id)
    except ValueError as error:
        log.error("order %d failed: %s", order_id, error, exc_info=error)  # noqa: TRY400  # the stack trace is in the span


def grep(text: str, path: Path) -> list[str]:
    """Return the lines of *path* with *text* in them."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if text in line]


def main(path: Path) -> None:
    """Handle some orders, then find out what happened to the one that failed."""
    tracekit.configure(service="shop", exporter="none")
    install()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonLines())
    log.addHandler(handler)
    log.setLevel(logging.INFO)

    log.info("ready")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(handle, range(1, 6)))

    (failure,) = grep('"ERROR"', path)
    trace_id = json.loads(failure)["trace_id"]
    sys.stdout.write(f"$ grep {trace_id} app.log\n")
    for line in grep(trace_id, path):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    with TemporaryDirectory() as directory:
        main(Path(directory) / "app.log")
