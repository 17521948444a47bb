"""Whether a call costs the same however deep it is nested, beside however many tasks, after however many calls."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from time import process_time_ns
from typing import TYPE_CHECKING, Final

from benchmarks.callables import call_function, function
from benchmarks.harness import Case, Effort, measure, take_turns
from benchmarks.providers import MOST_SPANS, engine, made_by
from benchmarks.tables import Table, Target
from tracekit import traced, traced_block

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from opentelemetry.sdk.trace import TracerProvider

# Within 10 %.
_FLAT: Final = 1.1
# One page of the allocator's arenas, for 900,000 calls.
_GROWTH_KB: Final = 1_024
# The first has no parent and begins a trace, which costs more: the second is what the others are compared with.
_DEPTHS: Final = (1, 2, 10, 100, 500)
_TASKS: Final = (1, 100, 1_000, 10_000)
# By the second of them the process has as much memory as its queue and its caches need.
_CALLS: Final = (1_000, 100_000, 1_000_000)
_CALLS_QUICK: Final = (1_000, 10_000, 100_000)
# How often the cost is measured then.
_STRETCHES: Final = 40


def tables(effort: Effort) -> Iterator[Table]:
    """Measure each."""
    if effort.wants("nested"):
        provider = engine()
        cases = [_nested(provider, depth) for depth in _DEPTHS]
        _, base, *deeper = cases
        targets = [Target(case.name, base.name, _FLAT) for case in deeper]
        title = "a call nested so many spans deep"
        yield measure(title, cases, base.name, targets, rounds=effort.turns(100, 15))
    if effort.wants("concurrent tasks"):
        yield _concurrent(effort)
    if effort.wants("after so many calls"):
        yield from _repeated(effort)


def _nested(provider: TracerProvider, depth: int) -> Case:
    run = partial(call_function, traced(function))
    return Case(f"depth {depth}", run, partial(_inside, provider, depth), provider.force_flush, MOST_SPANS)


@contextmanager
def _inside(provider: TracerProvider, depth: int) -> Generator[None]:
    with ExitStack() as stack:
        stack.enter_context(made_by(provider))
        for _ in repeat(None, depth - 1):
            stack.enter_context(traced_block("calls.parent"))
        yield


def _concurrent(effort: Effort) -> Table:
    """Measure what tracing adds to a call of which so many are open at once, each in a task of its own."""

    async def waiting(turns: int) -> None:
        for _ in repeat(None, turns):
            await asyncio.sleep(0)

    async def run(tasks: int, func: object) -> float:
        # Each case makes as many calls in all: many waves of few tasks, or few of many.
        gc.collect()
        gc.disable()
        took_ns = 0
        try:
            for _ in repeat(None, _TASKS[-1] // tasks):
                start_ns = process_time_ns()
                await asyncio.gather(*[func(2) for _ in repeat(None, tasks)])  # type: ignore[operator]
                took_ns += process_time_ns() - start_ns
        finally:
            gc.enable()
        return took_ns / _TASKS[-1] / 1000

    provider = engine(queue_size=2 * _TASKS[-1], batch_size=2 * _TASKS[-1])
    decorated = traced("calls.waiting")(waiting)

    def added(tasks: int) -> float:
        with made_by(provider):
            with_spans = asyncio.run(run(tasks, decorated))
            provider.force_flush()
        return with_spans - asyncio.run(run(tasks, waiting))

    names = {f"{tasks:,} concurrent tasks": tasks for tasks in _TASKS}
    samples = take_turns({name: partial(added, tasks) for name, tasks in names.items()}, effort.turns(9, 3))
    first, *others = names
    title = "what tracing adds to a call beside concurrent tasks"
    return Table(title, "µs", samples, first, [Target(name, first, _FLAT) for name in others])


def _repeated(effort: Effort) -> Iterator[Table]:
    """Measure the cost of the calls after so many, and the memory, in processes of their own."""
    milestones = _CALLS_QUICK if effort.quick else _CALLS
    runs = take_turns({"": partial(_in_a_process, milestones)}, effort.turns(3, 1))[""]
    names = [f"after {calls:,} calls" for calls in milestones]
    times = {name: [run[2 * at] for run in runs] for at, name in enumerate(names)}
    sizes = {name: [run[2 * at + 1] for run in runs] for at, name in enumerate(names)}
    first, *others = names
    yield Table("a call after so many calls", "µs", times, first, [Target(name, first, _FLAT) for name in others])
    _, grown, last = names
    growth = [Target(last, grown, _GROWTH_KB, by="more")]
    yield Table("memory of the process after so many calls", "kB", sizes, None, growth)


def _in_a_process(milestones: Sequence[int]) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.flat", *map(str, milestones)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


def main() -> None:
    """Call as often as the command line says; print what a call costs then, and the memory of the process."""
    func, provider, calls = traced(function), engine(), 0
    with made_by(provider):
        for milestone in map(int, sys.argv[1:]):
            for _ in repeat(None, (milestone - calls) // MOST_SPANS):
                call_function(func, MOST_SPANS)
                provider.force_flush()  # what grows is not the queue
            took: list[float] = []
            for _ in range(_STRETCHES):
                start_ns = process_time_ns()
                call_function(func, MOST_SPANS)
                took.append((process_time_ns() - start_ns) / MOST_SPANS / 1000)
                provider.force_flush()
            calls = milestone
            gc.collect()
            # The lower quartile: what others did on this machine meanwhile is no matter of how many calls there were.
            print(sorted(took)[_STRETCHES // 4], _resident_kb())


def _resident_kb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


if __name__ == "__main__":
    main()
