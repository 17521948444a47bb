"""
Cause each fault, once for tracekit and once for OpenTelemetry's own SDK and exporters, and print both as a table.

    python -m tests.faults [TEXT]      only rows whose name contains TEXT
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from fault_rows import ROWS, STACKS, run  # noqa: E402  # found only now

if TYPE_CHECKING:
    from fault_rows import Outcome, Row


def cells(row: Row, outcome: Outcome) -> str:
    """Say how many spans arrived, what the flush said of it, and how long the process took."""
    cell = f"{outcome.arrived:,}"
    if outcome.repeated:
        cell += f" (+{outcome.repeated:,} twice)"
    if "flushed" in outcome.said:
        cell += f", flush: {outcome.said['flushed']}"
    if outcome.said.get("child"):
        cell += ", child hangs"
    if outcome.status is None:
        return f"{cell} | hangs"
    if outcome.status != row.status:
        cell += f", status {outcome.status}"
    return f"{cell} | {outcome.took_s:.1f} s"


def show(row: Row) -> str:
    """Run *row* on both stacks over the first of its protocols; return its line of the table."""
    protocol = row.protocols[0]
    outcomes = [cells(row, run(row, stack, protocol, patience_s=90)) for stack in STACKS]
    return f"| {row.name} ({protocol.partition('/')[0]}) | {row.made:,} | {' | '.join(outcomes)} |"


def main() -> None:
    """Print the table as its lines come."""
    text = sys.argv[1] if len(sys.argv) > 1 else ""
    print("| fault | made | tracekit: arrived | took | OpenTelemetry's own: arrived | took |")  # noqa: T201
    print("|---|---|---|---|---|---|")  # noqa: T201
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(show, [row for row in ROWS if text in row.name]):
            print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
