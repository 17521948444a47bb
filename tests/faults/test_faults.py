"""Each fault of delivery and exit, caused for real over both protocols, comes out as it must."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from fault_rows import ROWS, Row, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks")

# The end of a process may take 5 s. What takes longer than this has hung, on whatever machine.
PATIENCE_S = 40.0

# Rows that only tracekit's own spans pass, and what those of the SDK do.
OF_THE_ENGINE = {
    "C18 open at the end": "those that are open at the end of the process are lost",
    "A12 fork while a span is locked": "their locks stay taken in the child",
}


def marks_of(row: Row, number: int) -> Iterator[pytest.MarkDecorator]:
    if number or not row.is_quick:
        yield pytest.mark.slow
    if row.name in OF_THE_ENGINE:
        yield pytest.mark.engine(OF_THE_ENGINE[row.name])


CASES = [
    pytest.param(row, protocol, id=f"{row.name}-{protocol}", marks=tuple(marks_of(row, number)))
    for row in ROWS
    for number, protocol in enumerate(row.protocols)
]


@pytest.mark.parametrize(("row", "protocol"), CASES)
def test_fault_comes_out_as_it_must(row: Row, protocol: str) -> None:
    outcome = run(row, "tracekit", protocol, patience_s=PATIENCE_S)
    assert outcome.status == row.status, outcome
    assert outcome.said.items() >= row.says.items(), outcome
    if row.arrived is not None:
        assert outcome.arrived == row.arrived, outcome
    stats = outcome.said.get("stats")
    if row.dropped is not None:
        assert stats is not None, outcome
        assert stats["dropped"] == row.dropped, outcome
    if stats is not None:
        left = stats["exported"] + stats["spooled"] + stats["queued"] + sum(stats["dropped"].values())
        assert stats["sampled"] == row.made == left, outcome
    if row.arrived is None and stats is not None:
        assert outcome.arrived == stats["exported"], outcome
