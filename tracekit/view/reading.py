"""
Trace files, read back: OTLP/JSON, one request a line, as `exporter="file:PATH"` and OpenTelemetry collectors write it.

Source: https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from tracekit.export.record import SpanRecord
from tracekit.view.requests import MALFORMED, spans_of

if TYPE_CHECKING:
    from pathlib import Path


@final
@dataclass(frozen=True, slots=True)
class TraceFile:
    """
    What a file says.

    Args:
        spans: All spans, in the order of the file.
        malformed_lines: How many lines could not be read: cut short by a full disk, or something else.
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
    Read the file at *path*; lines that hold no spans are counted and left out.

    Raises:
        OSError: The file cannot be read.
    """
    spans: list[SpanRecord] = []
    malformed_lines = 0
    with path.open("rb") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                # All of a line or nothing.
                spans += tuple(spans_of(json.loads(line)))
            except MALFORMED:
                malformed_lines += 1
    return TraceFile(tuple(spans), malformed_lines)
