"""`tracekit view` on files that memory does not hold."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of its own, and wait4"),
]

SPANS: Final = 500_000
BATCH: Final = 500
# A span takes 2 KB in memory: all of them a gigabyte.
MEMORY_MB: Final = 220
PER_TRACE: Final = 10


def span_text(trace: int, number: int) -> str:
    start = 1_700_000_000_000_000_000 + trace * 1_000_000 + number * 10_000
    parent = f',"parentSpanId":"{trace * 16 + number:016x}"' if number else ""
    return (
        f'{{"traceId":"{trace + 1:032x}","spanId":"{trace * 16 + number + 1:016x}"{parent},"name":"operation.{number}",'
        f'"startTimeUnixNano":"{start}","endTimeUnixNano":"{start + 1_000_000}","status":{{"code":1}},"attributes":'
        f'[{{"key":"order.id","value":{{"intValue":"{trace}"}}}},{{"key":"db.query.text","value":{{"stringValue":'
        f'"SELECT * FROM products WHERE sku IN (?, ?, ?) AND stock > 0 ORDER BY id -- {"x" * 200}"}}}}]}}'
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traces whose spans stand a whole file apart: first the first span of each, then the second of each."""
    path = tmp_path_factory.mktemp("size") / "traces.jsonl"
    traces = SPANS // PER_TRACE
    with path.open("w", encoding="utf-8") as lines:
        for number in range(PER_TRACE):
            for first in range(0, traces, BATCH):
                spans = ",".join(span_text(trace, number) for trace in range(first, first + BATCH))
                lines.write(f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}\n')
    return path


# A process of its own in between: what is told of a child includes what its parent took when it was forked.
_ASIDE: Final = """
import resource, subprocess, sys
ran = subprocess.run([sys.executable, "-m", "tracekit", "view", "--summary", sys.argv[1]])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, flush=True)
sys.exit(ran.returncode)
"""


def test_half_a_million_spans_take_bounded_memory_and_show_how_far_it_is(file: Path, tmp_path: Path) -> None:
    import pty

    terminal, ours = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", _ASIDE, str(file)], stdout=out, stderr=ours)
    os.close(ours)
    said = b""
    try:
        while chunk := os.read(terminal, 65_536):
            said += chunk
    except OSError:
        pass  # Linux says so where the other side has been closed
    os.close(terminal)
    process.wait()
    *lines, most = (tmp_path / "out").read_text(encoding="utf-8").splitlines()
    assert (process.returncode, lines[0]) == (0, "50,000 traces, 500,000 spans, 10 operations")
    assert {line.split()[1] for line in lines[2:]} == {"50,000"}
    assert b"reading [#" in said
    assert b"% of 500,000 spans" in said
    assert int(most) / (1_000_000 if sys.platform == "darwin" else 1_000) < MEMORY_MB


def test_a_trace_that_is_spread_over_the_file_is_whole(file: Path) -> None:
    command = [sys.executable, "-m", "tracekit", "view", "--trace", f"{12_345:032x}", str(file)]
    ran = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert ran.stderr == ""
    assert ran.stdout.count("operation.") == PER_TRACE
    assert "not in this tree" not in ran.stdout
