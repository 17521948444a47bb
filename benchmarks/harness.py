"""
Measuring many ways to do the same thing on a machine that is never quiet.

All cases of a table take turns in many short rounds, in another order each round. A ratio is taken inside a round,
where both sides met the same machine, and the table shows the median of these ratios and their middle half. Times
are processor time of the process, which a busy machine moves least, and depend on the machine; quote ratios.
"""

from __future__ import annotations

import gc
import random
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from time import process_time_ns
from typing import TYPE_CHECKING, Final, TypeVar, final

from benchmarks.tables import Table, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

T = TypeVar("T")

_ROUND_MS: Final = 2.0
# Of a turn so much is run before it is measured.
_WARM_PART: Final = 10


@final
@dataclass(frozen=True, slots=True)
class Effort:
    """
    How much is measured.

    Args:
        quick: A glance, not a figure to quote.
        rounds: Turns each case gets (None: as many as the benchmark thinks it needs).
        only: Only tables whose title contains this.
    """

    quick: bool = False
    rounds: int | None = None
    only: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether what comes out may be quoted."""
        return not self.quick and self.rounds is None and not self.only

    def turns(self, thorough: int, quick: int) -> int:
        """Return how many turns each case gets."""
        return self.rounds or (quick if self.quick else thorough)

    def wants(self, title: str) -> bool:
        """Tell whether the table with this *title* is asked for."""
        return self.only in title


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
        within: What it runs inside, entered and left outside the measured time.
        between: Runs after each round, outside the measured time (drain a queue).
        most: Most times in one round (before a queue is full), or None.
    """

    name: str
    run: Callable[[int], object]
    within: Callable[[], AbstractContextManager[object]] = nullcontext
    between: Callable[[], object] = _nothing
    most: int | None = None


def measure(
    title: str,
    cases: Sequence[Case],
    baseline: str,
    targets: Sequence[Target] = (),
    *,
    rounds: int,
    round_ms: float = _ROUND_MS,
) -> Table:
    """
    Measure in microseconds of processor time what doing a thing once costs.

    Args:
        title: What is done once.
        cases: The ways to do it.
        baseline: The case the ratios are to.
        targets: What cases may come to.
        rounds: How many turns each case gets.
        round_ms: How long one turn should take, in milliseconds.
    """
    times = {case.name: _times_for(case, round_ms) for case in cases}
    gc.collect()
    gc.freeze()  # what is here already stays out of the collections below
    try:
        samples = take_turns({case.name: partial(_time_one, case, times[case.name]) for case in cases}, rounds)
    finally:
        gc.unfreeze()
    return Table(title, "µs", samples, baseline, targets)


def take_turns(cases: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Ask each of *cases* for a sample a round, in another order each round."""
    samples: dict[str, list[T]] = {case: [] for case in cases}
    order = list(cases)
    shuffle = random.Random(0).shuffle  # noqa: S311  # the order, not a secret
    for _ in range(rounds):
        shuffle(order)
        for case in order:
            samples[case].append(cases[case]())
    return samples


def _times_for(case: Case, round_ms: float) -> int:
    """Warm the case up and return how many times fill one round."""
    _time_one(case, 1)  # imports, logs its first complaint
    times, most = 1, case.most or sys.maxsize
    while (took_ms := _time_one(case, times) * times / 1000) < round_ms and times < most:
        times = min(most, max(times + 1, min(times * 10, int(times * round_ms / max(took_ms, 1e-6)))))
    return times


def _time_one(case: Case, times: int) -> float:
    """Return the microseconds one took, on average over *times*."""
    with case.within():
        # A collection belongs to no case in particular: it happens between them.
        gc.collect()
        gc.disable()
        try:
            # The case before has left the processor's caches, and the interpreter's, to itself.
            case.run(max(1, times // _WARM_PART))
            start_ns = process_time_ns()
            case.run(times)
            took_ns = process_time_ns() - start_ns
        finally:
            gc.enable()
    case.between()
    return took_ns / times / 1000
