"""Results on disk: one file of JSON a benchmark and run, with the machine and the releases they were measured on."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.machine import machine, versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.tables import Table

RESULTS: Final = Path(__file__).parent / "results"


def save(name: str, tables: Sequence[Table], into: Path, *, whole: bool) -> Path:
    """Write what was measured, where and with what; return the file."""
    into.mkdir(exist_ok=True)
    now = datetime.now(timezone.utc)
    path = into / f"{name}-{now:%Y%m%dT%H%M%SZ}.json"
    result = {
        "benchmark": name,
        "time": now.isoformat(timespec="seconds"),
        "whole": whole,
        "machine": machine(),
        "versions": versions(),
        "tables": [table.as_json() for table in tables],
    }
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def newest(results: Path) -> dict[str, dict[str, Any]]:
    """Return the newest whole result of each benchmark, by interpreter ("3.11") and benchmark."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(results.glob("*.json"), key=lambda path: path.stem.rpartition("-")[2]):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result.get("whole"):
            python = ".".join(result["machine"]["python"].split()[-1].split(".")[:2])
            found.setdefault(python, {})[result["benchmark"]] = result
    return dict(sorted(found.items()))
