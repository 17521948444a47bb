"""
What a delivered span costs: a process that makes spans as fast as it can, sent over OTLP/HTTP to another process.

The processor time is that of the process that makes and sends, from its first span to the end of its shutdown; spans
are counted where they arrive.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from benchmarks.callables import call_function, function, write_function
from benchmarks.harness import Effort, take_turns
from benchmarks.receiver import Receiver, receiver
from benchmarks.stacks import STOCK, TRACEKIT, set_up
from benchmarks.tables import Table, Target
from tracekit import traced

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS: Final = 5.0
_SECONDS_QUICK: Final = 1.5
# Spans made between two looks at the clock.
_STRETCH: Final = 500

BY_HAND: Final = "by hand, the SDK's batch processor and exporter"
TRACED: Final = "@traced, configure()"
_STACKS: Final = {BY_HAND: STOCK, TRACED: TRACEKIT}
DELIVERED: Final = "a span delivered over OTLP/HTTP: processor time"


def tables(effort: Effort) -> Iterator[Table]:
    """Measure both stacks."""
    if not effort.wants(DELIVERED):
        return
    seconds = _SECONDS_QUICK if effort.quick else _SECONDS
    with receiver() as there:
        runs = take_turns(
            {name: partial(_run, stack, there, seconds) for name, stack in _STACKS.items()},
            effort.turns(3, 1),
        )

    def table(title: str, unit: str, figure: str, *targets: Target) -> Table:
        samples = {name: [run[figure] for run in of_stack] for name, of_stack in runs.items()}
        return Table(title, unit, samples, BY_HAND, targets)

    yield table(DELIVERED, "µs", "cpu_us", Target(TRACED, BY_HAND, 0.2))
    yield table("spans delivered in a second", "spans", "rate", Target(TRACED, BY_HAND, 4, at_least=True))
    yield table("spans made and not delivered", "%", "lost_percent")


def _run(stack: str, there: Receiver, seconds: float) -> dict[str, float]:
    before = there.spans()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pipeline", stack, there.endpoint, str(seconds)],
        capture_output=True,
        text=True,
        check=True,
    )
    made: dict[str, Any] = json.loads(done.stdout)
    delivered = there.spans() - before
    return {
        "cpu_us": made["cpu_s"] / delivered * 1e6,
        "rate": delivered / made["wall_s"],
        "lost_percent": 100 * (1 - delivered / made["spans"]),
    }


def main() -> None:
    """Make spans for the seconds that the command line says; print what that took."""
    stack, endpoint, seconds = sys.argv[1:]
    logging.disable()  # both say how many they lose
    shutdown = set_up(stack, endpoint)
    func = write_function(trace.get_tracer("benchmarks")) if stack == STOCK else traced(function)
    spans = 0
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall_s < float(seconds):
        call_function(func, _STRETCH)
        spans += _STRETCH
    shutdown()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    print(json.dumps({"spans": spans, "wall_s": wall_s, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
