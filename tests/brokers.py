"""What the tests over real brokers share: a consumer in a process of its own, and the spans that both sides export."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import uuid
from typing import TYPE_CHECKING, Final, final

import pytest

import tracekit
from tracekit.view.reading import read_trace_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracekit.export.record import SpanRecord

# Longest wait for a broker or a process, in seconds.
DEADLINE_S: Final = 20

CONSUMER: Final = """
import sys

import tracekit
from tracekit.messaging import consuming, consuming_batch

tracekit.configure(service="worker", exporter="file:traces.jsonl")

seen = []

def ready():
    print("ready", flush=True)

@tracekit.traced("orders.handle")
def handle(body):
    seen.append(body)
    print("handles", body.decode(), flush=True)
    if body == b"poison" or (body == b"flaky" and seen.count(body) == 1):
        raise ValueError("cannot read it")
"""


@final
class Exchange:
    """
    One test's producer (this process) and consumer (another one), exporting to one file.

    Args:
        directory: Where both work.
    """

    def __init__(self, directory: Path) -> None:
        self.name = f"tracekit-{uuid.uuid4().hex}"
        self._directory = directory
        self._tracing = tracekit.configure(service="shop", exporter=f"file:{directory / 'traces.jsonl'}")
        self._consumer: subprocess.Popen[str] | None = None

    def start_consumer(self, program: str, *arguments: object, waits: bool = False) -> None:
        """Start *program*, which has `consuming` and `handle`; with *waits*, return once it says it is ready."""
        (self._directory / "consumer.py").write_text(CONSUMER + textwrap.dedent(program))
        self.start([sys.executable, "-W", "error", "consumer.py", self.name, *map(str, arguments)])
        if waits:
            assert self.line() == "ready", self.finish()

    def start(self, command: list[str]) -> None:
        """Start *command*, which is the consumer."""
        self._consumer = subprocess.Popen(
            command, cwd=self._directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        """Wait for the next line that the consumer prints; empty if it has ended."""
        assert self._consumer is not None
        assert self._consumer.stdout is not None
        return self._consumer.stdout.readline().rstrip()

    def finish(self) -> list[str]:
        """Wait for the consumer to end well; return what it has printed."""
        assert self._consumer is not None
        output, errors = self._consumer.communicate(timeout=DEADLINE_S)
        assert self._consumer.returncode == 0, errors
        return output.splitlines()

    def spans(self, name: str | None = None) -> list[SpanRecord]:
        """Return what both have exported, those called *name*, in the order in which they started."""
        self._tracing.shutdown()
        spans = sorted(read_trace_file(self._directory / "traces.jsonl").spans, key=lambda span: span.start_time_ns)
        return [span for span in spans if name in (None, span.name)]

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.kill()
            self._consumer.communicate()


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    exchange = Exchange(tmp_path)
    yield exchange
    exchange.close()


def assert_joined(producer: SpanRecord, consumer: SpanRecord) -> None:
    """Assert that *consumer*, in another process, is a child of *producer*."""
    assert (producer.service, consumer.service) == ("shop", "worker")
    assert (consumer.trace_id, consumer.parent_id) == (producer.trace_id, producer.span_id)
    assert consumer.parent_is_remote


def assert_failed_once(consumer: SpanRecord, handler: SpanRecord) -> None:
    """Assert that the failure of *handler*, inside *consumer*, is the status of both and recorded by one."""
    assert handler.parent_id == consumer.span_id
    for span in (consumer, handler):
        assert (span.status, span.description) == ("error", "ValueError: cannot read it")
    events = (*consumer.events, *handler.events)
    assert sum("exception.stacktrace" in event.attributes for event in events) == 1


def assert_linked(batch: SpanRecord, producers: list[SpanRecord]) -> None:
    """Assert that *batch*, in a trace of its own, has a link to each of *producers*."""
    assert batch.parent_id is None
    assert [(link.trace_id, link.span_id) for link in batch.links] == [(p.trace_id, p.span_id) for p in producers]
    assert len({batch.trace_id, *(producer.trace_id for producer in producers)}) == 1 + len(producers)
    assert batch.attributes["messaging.batch.message_count"] == len(producers)
