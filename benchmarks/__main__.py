"""The command: `python -m benchmarks [NAME ...] [--quick] [--rounds N] [--only TEXT]`."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, Final

from benchmarks.harness import Table, measure, save, show

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Each is a module with `tables() -> Sequence[Table]`.
BENCHMARKS: Final = ("calls", "encoding", "tail")


def main() -> None:
    """Measure what the command line asks for, print it and save it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what tracing costs.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(BENCHMARKS)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: a glance, not a figure to quote")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns each case gets (default: 200; 15 with --quick)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only tables whose title contains TEXT")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    rounds = options.rounds or (15 if options.quick else 200)
    for name in options.names or BENCHMARKS:
        tables: Callable[[], Sequence[Table]] = import_module(f"benchmarks.{name}").tables
        measured = []
        for table in tables():
            if options.only in table.title:
                rows = measure(table, rounds=rounds)
                show(table, rows)
                measured.append((table, rows))
        if measured:
            print(f"\nSaved as {save(name, measured, rounds=rounds)}")


if __name__ == "__main__":
    main()
