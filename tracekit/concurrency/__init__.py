"""Context in threads, executors, other processes and tasks. Messages and requests are for `propagation`."""

from __future__ import annotations

from tracekit.concurrency.executors import ContextExecutor
from tracekit.concurrency.propagating import propagate
from tracekit.concurrency.tasks import spawn

__all__ = ["ContextExecutor", "propagate", "spawn"]
