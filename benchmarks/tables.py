"""What came out: samples of many cases taken in rounds, what a case may cost, and whether that holds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Comparison = Literal["times", "more"]


@final
@dataclass(frozen=True, slots=True)
class Target:
    """
    What a case may come to, next to another.

    Args:
        case: The case.
        to: The other.
        limit: The most it may be; with *at_least* the least it must be.
        by: "times": the ratio of the two; "more": their difference, in the unit of the table.
        at_least: Whether the limit is a lower one.
    """

    case: str
    to: str
    limit: float
    by: Comparison = "times"
    at_least: bool = False


@final
@dataclass(frozen=True, slots=True)
class Middle:
    """The median and the middle half of what the rounds gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Middle:
        """Return it of *values*."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@final
@dataclass(frozen=True, slots=True)
class Table:
    """
    What was measured.

    Args:
        title: What was done once ("a call of a function").
        unit: Of the samples.
        samples: For each case one sample a round, in the order of the rounds.
        baseline: The case the ratios are to; None where a ratio says nothing.
        targets: What cases may come to.
    """

    title: str
    unit: str
    samples: Mapping[str, Sequence[float]]
    baseline: str | None = None
    targets: Sequence[Target] = ()

    def compared(self, case: str, to: str, by: Comparison = "times") -> Middle:
        """
        Return what *case* came to next to another.

        Compared round by round, where both met the same machine.
        """
        pairs = zip(self.samples[case], self.samples[to], strict=True)
        if by == "more":
            return Middle.of([mine - theirs for mine, theirs in pairs])
        return Middle.of([mine / theirs if theirs else float("nan") for mine, theirs in pairs])

    def as_json(self) -> dict[str, Any]:
        """Return what `report` reads."""
        targets = [target for target in self.targets if {target.case, target.to} <= set(self.samples)]
        return {
            "title": self.title,
            "unit": self.unit,
            "baseline": self.baseline,
            "rows": [self._row(case) for case in self.samples],
            "targets": [self._verdict(target) for target in targets],
        }

    def _row(self, case: str) -> dict[str, Any]:
        ratio = None if self.baseline is None else _numbers(self.compared(case, self.baseline))
        return {"case": case, "value": _numbers(Middle.of(self.samples[case])), "ratio": ratio}

    def _verdict(self, target: Target) -> dict[str, Any]:
        found = self.compared(target.case, target.to, target.by)
        holds = found.median >= target.limit if target.at_least else found.median <= target.limit
        return {
            "case": target.case,
            "to": target.to,
            "by": target.by,
            "at_least": target.at_least,
            "limit": target.limit,
            "found": _numbers(found),
            "holds": holds,
        }


def _numbers(middle: Middle) -> list[float]:
    return [middle.median, middle.low, middle.high]


def plain(number: float) -> str:
    """Return *number* with three digits that count."""
    for below, digits in _DIGITS:
        if abs(number) < below:
            return f"{number:,.{digits}f}"
    return f"{number:,.0f}"


_DIGITS: Final = ((0.9995, 3), (9.995, 2), (99.95, 1))


def asked_of(verdict: Mapping[str, Any], unit: str) -> str:
    """Return what a verdict's target asks: `at most 0.12 x by hand`."""
    bound = "at least" if verdict["at_least"] else "at most"
    if verdict["by"] == "more":
        return f"{bound} {_limit(verdict)} {unit} more than {verdict['to']}"
    return f"{bound} {_limit(verdict)} x {verdict['to']}"


def _limit(verdict: Mapping[str, Any]) -> str:
    return f"{verdict['limit']:,.3g}" if verdict["limit"] < 1_000 else plain(verdict["limit"])  # noqa: PLR2004  # digits


def show(table: Table) -> None:
    """Print *table*, and below it each target."""
    shown = table.as_json()
    width = max(len(case) for case in table.samples)
    head = "" if table.baseline is None else f"  {'ratio':>7}  middle half"
    print(f"\n{table.title}\n{'':{width}}  {table.unit:>10}{head}")
    for row in shown["rows"]:
        line = f"{row['case']:{width}}  {plain(row['value'][0]):>10}"
        if row["ratio"] is not None:
            line += f"  {plain(row['ratio'][0]):>7}  {plain(row['ratio'][1])} - {plain(row['ratio'][2])}"
        print(line)
    if table.baseline is not None:
        print(f"{'':{width}}  ratio to: {table.baseline}")
    for verdict in shown["targets"]:
        found, low, high = map(plain, verdict["found"])
        holds = "holds" if verdict["holds"] else "FAILS"
        print(f"  {holds}  {verdict['case']}: {found} ({low} - {high}), {asked_of(verdict, table.unit)}")
