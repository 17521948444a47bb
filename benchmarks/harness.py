"""
Measuring many ways to do the same thing on a machine that is never quiet.

All cases of a table run in one process and take turns in many short rounds, in another order each round. A ratio is
taken inside a round, where both sides met the same machine, and the table shows the median of these ratios and their
middle half. Times alone depend on the machine; quote ratios.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import random
import statistics
import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESULTS: Final = Path(__file__).parent / "results"

_VERSIONS_OF: Final = ("tracekit", "opentelemetry", "wrapt", "logfire", "protobuf", "grpcio")


def _nothing() -> None:
    pass


@final
@dataclass(frozen=True, slots=True)
class Case:
    """
    One way to do the thing.

    Args:
        name: Its row in the table.
        run: Does the thing as many times as it is told.
        between: Runs after each round, outside the measured time (drain a queue).
        most: Most times in one round (before a queue is full), or None.
    """

    name: str
    run: Callable[[int], object]
    between: Callable[[], object] = _nothing
    most: int | None = None


@final
@dataclass(frozen=True, slots=True)
class Table:
    """
    Cases to compare.

    Args:
        title: What is done once ("one call of a function").
        cases: The ways to do it.
        baseline: The name of the case the ratios are to.
    """

    title: str
    cases: Sequence[Case]
    baseline: str


@final
@dataclass(frozen=True, slots=True)
class Row:
    """
    What came out for one case.

    Args:
        name: The case.
        median_ns: Median over the rounds of the time for one, in nanoseconds.
        ratio: Median over the rounds of its time to the baseline's.
        ratio_low: Lower quartile of these ratios.
        ratio_high: Upper quartile of these ratios.
    """

    name: str
    median_ns: float
    ratio: float
    ratio_low: float
    ratio_high: float


def measure(table: Table, *, rounds: int, round_ms: float = 2.0) -> list[Row]:
    """
    Run *table*'s cases in turns.

    Args:
        table: The cases.
        rounds: How many turns each case gets.
        round_ms: How long one turn should take, in milliseconds.
    """
    times = {case.name: _times_for(case, round_ms) for case in table.cases}
    samples: dict[str, list[float]] = {case.name: [] for case in table.cases}
    order = list(table.cases)
    gc.collect()
    gc.freeze()  # what is here already stays out of the collections below
    shuffle = random.Random(0).shuffle  # noqa: S311  # the order, not a secret
    for _ in range(rounds):
        shuffle(order)
        for case in order:
            samples[case.name].append(_time_one(case, times[case.name]))
    baseline = samples[table.baseline]
    return [_row(case.name, samples[case.name], baseline) for case in table.cases]


def _times_for(case: Case, round_ms: float) -> int:
    """Warm the case up and return how many times fill one round."""
    times = 1
    while (took_ns := _time_one(case, times) * times) < round_ms * 1e6 and (case.most is None or times < case.most):
        times = max(times + 1, min(times * 10, int(times * round_ms * 1e6 / max(took_ns, 1))))
    return times if case.most is None else min(times, case.most)


def _time_one(case: Case, times: int) -> float:
    """Return the nanoseconds one took, on average over *times*."""
    # A collection belongs to no case in particular: it happens between them.
    gc.collect()
    gc.disable()
    try:
        start_ns = perf_counter_ns()
        case.run(times)
        return (perf_counter_ns() - start_ns) / times
    finally:
        gc.enable()
        case.between()


def _row(name: str, samples: list[float], baseline: list[float]) -> Row:
    ratios = [mine / theirs for mine, theirs in zip(samples, baseline, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return Row(name, statistics.median(samples), median, low, high)


def show(table: Table, rows: Sequence[Row]) -> None:
    """Print the table."""
    width = max(len(row.name) for row in rows)
    print(f"\n{table.title}\n{'':{width}}  {'µs':>8}  {'ratio':>7}  middle half")
    for row in rows:
        spread = f"{row.ratio_low:.3f} - {row.ratio_high:.3f}"
        print(f"{row.name:{width}}  {row.median_ns / 1000:8.3f}  {row.ratio:7.3f}  {spread}")
    print(f"{'':{width}}  ratio to: {table.baseline}")


def save(name: str, tables: Sequence[tuple[Table, Sequence[Row]]], *, rounds: int) -> Path:
    """Write what was measured, where and with what, as JSON; return the file."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(timezone.utc)
    path = RESULTS / f"{name}-{now:%Y%m%dT%H%M%SZ}.json"
    report = {
        "benchmark": name,
        "time": now.isoformat(timespec="seconds"),
        "rounds": rounds,
        "machine": _machine(),
        "versions": _versions(),
        "tables": [
            {"title": table.title, "baseline": table.baseline, "rows": [asdict(row) for row in rows]}
            for table, rows in tables
        ],
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return path


def _machine() -> dict[str, Any]:
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _versions() -> dict[str, str]:
    found = {distribution.metadata["Name"]: distribution.version for distribution in distributions()}
    return {name: version for name, version in sorted(found.items()) if name.lower().startswith(_VERSIONS_OF)}
