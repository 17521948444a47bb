"""
Trace files, read back: OTLP/JSON as `exporter="file:PATH"`, OpenTelemetry collectors and backends write it.

Source: https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, final

from tracekit.export.record import SpanRecord
from tracekit.view.dialects import requests_in
from tracekit.view.documents import DocumentReader
from tracekit.view.lines import lines_of
from tracekit.view.requests import MALFORMED, receive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@final
@dataclass(frozen=True, slots=True)
class TraceFile:
    """
    What a file says.

    Args:
        spans: All spans, in the order of the file.
        malformed_lines: How many lines could not be read, or not whole: cut short by a full disk, or something else.
    """

    spans: tuple[SpanRecord, ...]
    malformed_lines: int

    def traces(self) -> list[list[SpanRecord]]:
        """Return the spans of each trace, the trace that began first first."""
        return by_trace(self.spans)


def by_trace(spans: Iterable[SpanRecord]) -> list[list[SpanRecord]]:
    """Return the *spans* of each trace, the trace that began first first."""
    traces: dict[str, list[SpanRecord]] = {}
    for span in sorted(spans, key=lambda span: span.start_time_ns):
        traces.setdefault(span.trace_id, []).append(span)
    return list(traces.values())


def read_trace_file(path: Path) -> TraceFile:
    """
    Read the file at *path* into memory; lines that hold no spans are counted and left out.

    Raises:
        OSError: The file cannot be read.
    """
    reader = SpanReader()
    with path.open("rb") as file:
        spans = [span for batch in reader.read(file) for span in batch]
    return TraceFile(tuple(spans), reader.malformed_lines)


@final
class SpanReader:
    """Lines in, spans out, a document at a time; what cannot be read is counted and costs nothing else."""

    __slots__ = ("_documents", "_malformed_documents")

    def __init__(self) -> None:
        self._documents = DocumentReader()
        self._malformed_documents = 0

    @property
    def malformed_lines(self) -> int:
        """How many lines held no spans, or some that could not be read."""
        return self._documents.damaged_lines + self._malformed_documents

    def read(self, file: BinaryIO, on_read: Callable[[int], None] | None = None) -> Iterator[list[SpanRecord]]:
        """
        Yield the spans of *file*, those of a document together; the arguments are those of `lines_of`.

        Raises:
            OSError: The file cannot be read.
        """
        for line in lines_of(file, on_read):
            yield from self.feed(line)
        self.end()

    def feed(self, line: bytes) -> Iterator[list[SpanRecord]]:
        """Yield the spans of the documents that *line* completes."""
        for document in self._documents.feed(line):
            spans: list[SpanRecord] = []
            try:
                for request in requests_in(document):
                    received = receive(request)
                    spans += received.spans
                    self._malformed_documents += bool(received.rejections)
            except MALFORMED:
                self._malformed_documents += 1
            yield spans

    def end(self) -> None:
        """Count what no line has completed."""
        self._documents.end()
