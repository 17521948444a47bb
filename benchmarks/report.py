"""
Writing results into documents: whatever stands between the marks of a block is replaced.

    <!-- benchmarks: summary -->      each number that is asked for, and what was found
    <!-- benchmarks: headline -->     the few numbers that say most, in a sentence
    <!-- benchmarks: machine -->      where, and with which releases
    <!-- benchmarks: calls -->        the tables of a benchmark, interpreters side by side
    <!-- end of benchmarks -->
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.callables import FUNCTION
from benchmarks.calls import TRACED, TRACED_BELOW
from benchmarks.pipeline import DELIVERED
from benchmarks.pipeline import TRACED as TRACED_PIPELINE
from benchmarks.results import newest
from benchmarks.tables import asked_of, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Results = Mapping[str, Mapping[str, Any]]

_ROOT: Final = Path(__file__).parent.parent
_DOCUMENTS: Final = (_ROOT / "docs" / "performance.md", _ROOT / "README.md")
_HEADLINE: Final = (
    ("calls", FUNCTION.title, TRACED, "a recorded call"),
    ("calls", f"{FUNCTION.title}, not recorded", TRACED_BELOW, "a call below an unsampled one"),
    ("pipeline", DELIVERED, TRACED_PIPELINE, "a span on its way to the collector"),
)
_BLOCK: Final = re.compile(
    r"(?P<begin><!-- benchmarks: (?P<name>[a-z]+) -->\n).*?(?P<end> *<!-- end of benchmarks -->)", re.DOTALL
)


def write(results: Path) -> None:
    """Write the newest results of each interpreter in the directory *results* into the documents."""
    found = newest(results)
    for path in _DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        written = filled(text, found)
        if written != text:
            path.write_text(written, encoding="utf-8")
            print(f"Wrote {path.relative_to(_ROOT)}")


def filled(document: str, results: Results) -> str:
    """Return *document* with *results*, by interpreter and benchmark, in its blocks."""
    return _BLOCK.sub(lambda block: _filled(block, results), document)


def _filled(block: re.Match[str], results: Results) -> str:
    name = block["name"]
    blocks = {"headline": _headline, "machine": _machine, "summary": _summary}
    lines = blocks[name](results) if name in blocks else _tables_of(name, results)
    space = [] if name == "headline" else [""]  # inside a paragraph
    return block["begin"] + "\n".join([*space, *lines, *space]) + "\n" + block["end"]


def _headline(results: Results) -> Iterator[str]:
    yield "  Next to the same code by hand over the SDK:"
    for name, title, case, said in _HEADLINE:
        tables = _by_title(name, results).get(title, {})
        found = {python: verdict for python, table in tables.items() for verdict in _first(table, case)}
        if found:
            ratios = ", ".join(f"{plain(verdict['found'][0])} x on {python}" for python, verdict in found.items())
            yield f"  {said} {ratios};"
    yield "  more, and how it is measured (`make bench`): [docs/performance.md](docs/performance.md)."


def _first(table: Mapping[str, Any], case: str) -> list[Any]:
    return [verdict for verdict in table["targets"] if verdict["case"] == case][:1]


def _machine(results: Results) -> Iterator[str]:
    for of_benchmarks in results.values():
        last = max(of_benchmarks.values(), key=lambda result: result["time"])
        machine = last["machine"]
        loads = [result["machine"]["load"][0] for result in of_benchmarks.values() if result["machine"]["load"]]
        load = f"; load {min(loads):.1f} to {max(loads):.1f}" if loads else ""
        packages = ", ".join(f"{name} {version}" for name, version in last["versions"].items() if _is_told(name))
        yield (
            f"- {machine['python']} ({machine['compiler']}) on {machine['processor']}, {machine['cores']} cores, "
            f"{machine['system']}{load}; {last['time'][:10]}; {packages}"
        )


def _is_told(package: str) -> bool:
    return not package.startswith("opentelemetry") or package in {"opentelemetry-sdk", "opentelemetry-instrumentation"}


def _summary(results: Results) -> Iterator[str]:
    pythons = list(results)
    yield _row(["", "asked", *[f"CPython {python}" for python in pythons], "measured by"])
    yield _row(["---", "---", *["--:" for _ in pythons], "---"])
    for name in _in_order(results):
        for title, tables in _by_title(name, results).items():
            verdicts = {python: _verdicts(table) for python, table in tables.items()}
            for key, first in next(iter(verdicts.values())).items():
                unit = next(iter(tables.values()))["unit"]
                found = [_found(verdicts[python].get(key)) if python in verdicts else "" for python in pythons]
                asked = asked_of(first, unit)
                yield _row([f"{title}: {first['case']}", asked, *found, f"`python -m benchmarks {name}`"])


def _tables_of(name: str, results: Results) -> Iterator[str]:
    yield f"`python -m benchmarks {name}`"
    for title, tables in _by_title(name, results).items():
        first = next(iter(tables.values()))
        unit, baseline = first["unit"], first["baseline"]
        yield ""
        yield f"**{title[0].upper()}{title[1:]}** ({unit}" + (f"; ratio to: {baseline})" if baseline else ")")
        yield ""
        heads = [f"{python} {unit}" if baseline is None else f"{python} {unit} | ratio" for python in tables]
        yield _row(["", *heads])
        yield _row(["---", *["--: | ---" if baseline else "--:" for _ in tables]])
        rows = {python: {row["case"]: row for row in table["rows"]} for python, table in tables.items()}
        for case in dict.fromkeys(case for of_python in rows.values() for case in of_python):
            cells = [_cells(of_python.get(case), has_ratio=baseline is not None) for of_python in rows.values()]
            yield _row([case, *cells])


def _cells(row: Mapping[str, Any] | None, *, has_ratio: bool) -> str:
    if row is None:
        return " | " if has_ratio else ""
    if not has_ratio:
        return plain(row["value"][0])
    median, low, high = map(plain, row["ratio"])
    return f"{plain(row['value'][0])} | {median} ({low} - {high})"


def _found(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return ""
    median, low, high = map(plain, verdict["found"])
    return f"{median} ({low} - {high})" + ("" if verdict["holds"] else " **missed**")


def _verdicts(table: Mapping[str, Any]) -> dict[tuple[str, str, str], Any]:
    return {(verdict["case"], verdict["to"], verdict["by"]): verdict for verdict in table["targets"]}


def _in_order(results: Results) -> list[str]:
    return list(dict.fromkeys(name for of_benchmarks in results.values() for name in _sorted(of_benchmarks)))


def _sorted(names: Mapping[str, Any]) -> list[str]:
    from benchmarks.__main__ import BENCHMARKS

    return [name for name in BENCHMARKS if name in names]


def _by_title(name: str, results: Results) -> dict[str, dict[str, Any]]:
    """Return the tables of a benchmark, by title and interpreter."""
    tables: dict[str, dict[str, Any]] = {}
    for python, of_benchmarks in results.items():
        for table in of_benchmarks.get(name, {"tables": ()})["tables"]:
            tables.setdefault(table["title"], {})[python] = table
    return tables


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
