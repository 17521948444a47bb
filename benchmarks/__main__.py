"""The command: `python -m benchmarks [NAME ...] [--quick] [--rounds N] [--only TEXT]`, or `... report`."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.harness import Effort
from benchmarks.results import RESULTS, save
from benchmarks.tables import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.tables import Table

# Each is a module with `tables(effort)`.
BENCHMARKS: Final = ("calls", "peers", "encoding", "tail", "pipeline", "fastapi", "flat", "memory", "imports")
REPORT: Final = "report"


def main() -> None:
    """Measure what the command line asks for, print it and save it; or write what was saved into the documents."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what tracing costs.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which to run: {', '.join(BENCHMARKS)} (default: all); "
        f"{REPORT}: run none, write the newest results of each interpreter into the documents",
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: a glance, not a figure to quote")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns each case gets (default: the benchmark's own)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only tables whose title contains TEXT")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where results are kept")
    options = parser.parse_args()
    if options.names == [REPORT]:
        from benchmarks.report import write

        write(options.results)
        return
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    effort = Effort(quick=options.quick, rounds=options.rounds, only=options.only)
    for name in options.names or BENCHMARKS:
        tables: Callable[[Effort], Iterator[Table]] = import_module(f"benchmarks.{name}").tables
        measured: list[Table] = []
        for table in tables(effort):
            show(table)
            measured.append(table)
        if measured:
            print(f"\nSaved as {save(name, measured, options.results, whole=effort.is_whole)}")


if __name__ == "__main__":
    main()
