"""Every Python example of the documentation runs, each document on its own, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
DOCUMENTS: Final = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
MODULES_WITH_EXAMPLES: Final = [
    path
    for path in sorted((ROOT / "tracekit").rglob("*.py"))
    if re.search(r"^ *(>>> |```python)", path.read_text(encoding="utf-8"), re.MULTILINE)
]

# A block marked `output` is what the document's examples print (either stream), but for what differs from run to run.
OUTPUT_BLOCK: Final = re.compile(r"^```output\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARYING: Final = (
    (re.compile(r"\b[0-9a-f]{32}\b"), "TRACE_ID"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "SPAN_ID"),
    (re.compile(r"\b\d+(\.\d+)?(ns|µs|ms|s)\b"), "DURATION"),
    (re.compile(r"(duration_ms=)[\d.]+"), r"\1DURATION"),
)


@pytest.mark.parametrize("path", DOCUMENTS + MODULES_WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_run_and_print_what_they_say(path: Path, tmp_path: Path) -> None:
    # The newest Starlette, with the httpx that is instrumented here.
    warnings = ["-W", "error", "-W", "ignore:Using `httpx` with `starlette.testclient`"]
    command = [sys.executable, *warnings, Path(__file__).with_name("run_document.py"), path]
    ran = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=False
    )
    assert ran.returncode == 0, ran.stdout
    for promised in OUTPUT_BLOCK.findall(path.read_text(encoding="utf-8")):
        assert _stable(promised) in _stable(ran.stdout)


def _stable(text: str) -> str:
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.splitlines())
