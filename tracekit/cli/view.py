"""`tracekit view`: the traces of files, as trees."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracekit.errors import TracekitError
from tracekit.export.text import for_encoding, wants_color
from tracekit.export.tree import TreeOptions, render_tree
from tracekit.view.reading import by_trace, read_trace_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracekit.export.record import SpanRecord

_NS_PER_S: Final = 1e9
_EPILOG: Final = """\
examples:
  tracekit view traces.jsonl                 every trace, the oldest first
  tracekit view orders.jsonl payments.jsonl  spans of several services, joined
  tracekit view --errors traces.jsonl        only traces with a failed span
  tracekit view --slow 0.5 traces.jsonl      only traces of half a second and more
  tracekit view --trace 4bf92f35 traces.jsonl

files are written by configure(exporter="file:traces.jsonl") and by the file exporter of the OpenTelemetry Collector
"""


class ViewError(TracekitError):
    """A file cannot be read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does and takes."""
    parser.description = "Show the traces of OTLP/JSON files as trees."
    parser.epilog = _EPILOG
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path, help="a file of OTLP/JSON lines")
    parser.add_argument("--trace", metavar="ID", default="", help="only the trace whose id begins with ID")
    parser.add_argument("--errors", action="store_true", help="only traces with a failed span")
    parser.add_argument("--slow", metavar="SECONDS", type=float, default=0.0, help="only traces that took so long")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """
    Print the traces and return the exit status: 0, also where nothing matches.

    Raises:
        ViewError: A file cannot be read.
    """
    spans: list[SpanRecord] = []
    malformed_lines = 0
    for path in arguments.files:
        try:
            file = read_trace_file(path)
        except OSError as error:
            msg = f"{path}: {error.strerror}"
            raise ViewError(msg) from error
        spans += file.spans
        malformed_lines += file.malformed_lines
    options = TreeOptions(color=wants_color(sys.stdout))
    shown = 0
    for trace in by_trace(spans):
        if trace[0].trace_id.startswith(arguments.trace.lower()) and _matches(trace, arguments):
            sys.stdout.write(for_encoding(render_tree(trace, options), sys.stdout.encoding))
            shown += 1
    if malformed_lines:
        print(f"{malformed_lines} lines hold no spans and were left out", file=sys.stderr)
    if not shown:
        print("no trace to show" if spans else "no spans in these files", file=sys.stderr)
    return 0


def _matches(trace: Sequence[SpanRecord], arguments: argparse.Namespace) -> bool:
    if arguments.errors and all(span.status != "error" for span in trace):
        return False
    took_ns = max(span.end_time_ns or 0 for span in trace) - trace[0].start_time_ns
    slow_s: float = arguments.slow
    return took_ns >= slow_s * _NS_PER_S
