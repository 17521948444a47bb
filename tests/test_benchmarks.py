"""The benchmarks run, say whether what is asked of them holds, and write it into documents."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.harness import Case, measure, take_turns
from benchmarks.report import filled
from benchmarks.tables import Table, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent


def table(*targets: Target) -> Table:
    return Table("a call", "µs", {"by hand": [10.0, 20.0, 40.0], "traced": [1.0, 2.0, 8.0]}, "by hand", targets)


@pytest.mark.parametrize(
    ("target", "found", "holds"),
    [
        (Target("traced", "by hand", 0.12), 0.1, True),
        (Target("traced", "by hand", 0.09), 0.1, False),
        (Target("by hand", "traced", 4, at_least=True), 10, True),
        (Target("by hand", "traced", 11, at_least=True), 10, False),
        (Target("by hand", "traced", 18, by="more"), 18, True),
        (Target("by hand", "traced", 17, by="more"), 18, False),
    ],
)
def test_a_target_holds_by_the_median_of_what_the_rounds_say(target: Target, found: float, *, holds: bool) -> None:
    (verdict,) = table(target).as_json()["targets"]
    assert verdict["found"][0] == pytest.approx(found)
    assert verdict["holds"] is holds


def test_a_target_next_to_a_peer_that_is_not_installed_is_left_out() -> None:
    assert table(Target("traced", "peer", 1)).as_json()["targets"] == []


def test_all_cases_take_a_turn_in_each_round() -> None:
    turns: list[str] = []

    def case(name: str) -> Callable[[], int]:
        def turn() -> int:
            turns.append(name)
            return len(turns)

        return turn

    samples = take_turns({name: case(name) for name in "abc"}, 4)
    rounds = [turns[at : at + 3] for at in range(0, 12, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 4, "b": 4, "c": 4}


def test_a_case_runs_inside_what_it_asks_for_and_never_more_often_than_it_may() -> None:
    happened: list[str | int] = []

    @contextmanager
    def within() -> Iterator[None]:
        happened.append("in")
        yield
        happened.append("out")

    case = Case("call", happened.append, within, lambda: happened.append("between"), most=3)
    measured = measure("a call", [case], "call", rounds=2)
    assert len(measured.samples["call"]) == 2
    # Each time once before it is measured.
    assert happened[:5] == ["in", 1, 1, "out", "between"]
    assert happened[-5:] == ["in", 1, 3, "out", "between"]
    assert max(times for times in happened if isinstance(times, int)) == 3


def test_results_of_interpreters_stand_side_by_side_in_a_document() -> None:
    def result() -> dict[str, Any]:
        of_table = table(Target("traced", "by hand", 0.12), Target("traced", "by hand", 5, by="more")).as_json()
        return {"tables": [of_table]}

    results = {"3.11": {"calls": result()}, "3.13": {"calls": result()}}
    written = filled("Before\n<!-- benchmarks: calls -->\nold\n<!-- end of benchmarks -->\nafter\n", results)
    assert written.startswith("Before\n<!-- benchmarks: calls -->\n\n`python -m benchmarks calls`\n")
    assert "| | 3.11 µs | ratio | 3.13 µs | ratio |" in written.replace("|  |", "| |")
    assert "| traced | 2.00 | 0.100 (0.100 - 0.150) | 2.00 | 0.100 (0.100 - 0.150) |" in written
    assert written.endswith("<!-- end of benchmarks -->\nafter\n")
    assert "old" not in written
    assert filled(written, results) == written


def test_every_benchmark_has_its_place_in_the_document_of_performance() -> None:
    document = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert [name for name in BENCHMARKS if f"<!-- benchmarks: {name} -->" not in document] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    saved = {json.loads(path.read_text(encoding="utf-8"))["benchmark"] for path in tmp_path.iterdir()}
    # No peer need be installed.
    assert saved | {"peers"} == set(BENCHMARKS)
