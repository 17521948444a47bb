"""The examples of distributed work, as a reader runs them: every span arrives, in one trace, from several processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tracekit.view.reading import read_trace_file

if TYPE_CHECKING:
    from tracekit.export.record import SpanRecord

EXAMPLES: Final = Path(__file__).parent.parent / "examples"
TRACES: Final = "traces.jsonl"

# They start servers and workers, on a machine that may be busy.
pytestmark = [pytest.mark.timeout(180), pytest.mark.skipif(sys.platform == "win32", reason="forks")]


def run(example: str, directory: Path, **environment: str) -> tuple[str, list[SpanRecord]]:
    """Run *example* to its end; return what it prints and the spans it leaves."""
    traces = directory / TRACES
    # No batch goes out by itself: what arrives was flushed when a process ended.
    environment = {**os.environ, "OTEL_BSP_SCHEDULE_DELAY": "600000", **environment}
    command = [sys.executable, EXAMPLES / example, traces]
    ran = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=150
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout, list(read_trace_file(traces).spans)


def edges(spans: list[SpanRecord]) -> Counter[tuple[str | None, str]]:
    """Return how often a span of one name has a parent of another."""
    names = {span.span_id: span.name for span in spans}
    return Counter((names[span.parent_id] if span.parent_id else None, span.name) for span in spans)


def processes(directory: Path) -> set[str]:
    """Return the ids of the processes that have exported."""
    return set(re.findall(r'"process\.pid", *"value": *\{"intValue": *"(\d+)"', (directory / TRACES).read_text()))


def test_dask_workers_continue_the_trace_and_export(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    output, spans = run("dask/quotes.py", tmp_path)
    assert output.startswith("6 orders cost 150.0")
    assert len({span.trace_id for span in spans}) == 1
    assert edges(spans) == {
        (None, "quotes.batch"): 1,
        ("quotes.batch", "quotes.price"): 6,
        ("quotes.price", "quotes.fetch_rate"): 6,
        ("quotes.batch", "quotes.total"): 1,
    }
    assert {span.service for span in spans} == {"quotes"}
    assert len(processes(tmp_path)) >= 2


@pytest.mark.slow
@pytest.mark.services("redis")
def test_celery_workers_continue_the_trace_and_export(tmp_path: Path) -> None:
    pytest.importorskip("celery")
    redis = pytest.importorskip("redis")
    queue = f"packing-{uuid.uuid4()}"
    try:
        output, spans = run("celery/packing.py", tmp_path, PACKING_QUEUE=queue)
    finally:
        with redis.Redis() as client:
            client.delete(queue, f"_kombu.binding.{queue}", f"_kombu.binding_permanent.{queue}")
    assert [line for line in output.splitlines() if line.startswith("order")] == [
        f"order {order_id} is ready" for order_id in (1, 2, 3, 4)
    ]
    assert len({span.trace_id for span in spans}) == 1
    assert edges(spans) == {
        (None, "orders.ship"): 1,
        ("orders.ship", "packing.pack"): 4,
        ("packing.pack", "packing.label"): 4,
    }
    assert {(span.name, span.service) for span in spans} == {
        ("orders.ship", "orders"),
        ("packing.pack", "packing"),
        ("packing.label", "packing"),
    }
    # Eight tasks, two a process.
    assert len(processes(tmp_path)) >= 5
