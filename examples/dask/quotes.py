"""
Trace work that Dask spreads over worker processes, as one trace.

Run it (`python examples/dask/quotes.py traces.jsonl`), then look at the trace: `tracekit view traces.jsonl`.
"""

from __future__ import annotations

import os
import sys

from distributed import Client, LocalCluster

import tracekit
from tracekit import ContextExecutor, propagate, set_attribute, traced


@traced("quotes.price")
def price(order_id: int) -> float:
    """Compute one price, in some worker."""
    set_attribute("worker.pid", os.getpid())
    return fetch_rate(order_id) * 12.5


@traced("quotes.fetch_rate")
def fetch_rate(order_id: int) -> float:
    """Stand for something slow."""
    return 1.0 + order_id % 3


@traced("quotes.total")
def total(prices: list[float]) -> float:
    """Add up, in some worker."""
    return sum(prices)


@traced("quotes.batch")
def quote(client: Client, orders: int) -> float:
    """Have all orders priced."""
    # As an executor, or by the functions of Dask's own:
    prices = list(ContextExecutor(client.get_executor()).map(price, range(orders)))
    return client.submit(propagate(total), prices).result()


def main(path: str) -> None:
    """Price some orders on a cluster of two processes."""
    # Workers are set up likewise, by the first piece of work that reaches them.
    tracekit.configure(service="quotes", exporter=f"file:{path}")
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        print(f"6 orders cost {quote(client, 6)}, see: tracekit view {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
