"""Spans to a file, one OTLP/JSON object a line, which collectors and `tracekit view` read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tracekit._diagnostics import report_failure
from tracekit.errors import ConfigurationError
from tracekit.export.otlp_json import spans_to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

# Traces may hold personal data: what this makes, its owner alone may read.
_MODE: Final = 0o600
# Opening a named pipe that nobody reads would block for ever.
_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@final
class FileExporter(SpanExporter):
    """
    Appends each batch of spans to a file as one line of OTLP/JSON.

    Any number of processes may write to one file: a line is one `write` in append mode. The file is opened for each
    batch, so that it may be moved away, and a program that closes all its descriptors writes nowhere else.

    Args:
        path: The file; made (mode 0600) if missing, in a directory that exists. `~` is the home directory.

    Raises:
        ConfigurationError: The file cannot be written.

    Source: https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = _checked(path)
        self._is_shut_down = False
        self._is_torn = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append *spans* as one line; never raises."""
        if self._is_shut_down:
            return SpanExportResult.FAILURE
        try:
            line = json.dumps(spans_to_json(spans), separators=(",", ":"), allow_nan=False)
            # ASCII: no other line separator can break the line, no control character drive a terminal that shows it.
            self._append(line.encode("ascii") + b"\n")
        except Exception as error:  # noqa: BLE001  # a full or broken disk, out of memory
            report_failure("file exporter", "writing spans", error)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002  # the interface
        """Do nothing: what is exported is written."""
        return True

    def shutdown(self) -> None:
        """Take no more spans."""
        self._is_shut_down = True

    def _append(self, line: bytes) -> None:
        # A line that failed halfway must not spoil this one.
        data = b"\n" + line if self._is_torn else line
        descriptor = _open(self._path)
        try:
            written = os.write(descriptor, data)
            while written < len(data):
                self._is_torn = True
                written += os.write(descriptor, data[written:])
            self._is_torn = False
        finally:
            os.close(descriptor)


def _open(path: Path) -> int:
    descriptor = os.open(path, _FLAGS | _NO_WAIT, _MODE)
    if _NO_WAIT:
        os.set_blocking(descriptor, True)
    return descriptor


def _checked(path: str | os.PathLike[str]) -> Path:
    """Return *path* once it has been opened for writing."""
    try:
        # Absolute: the program may change its directory.
        checked = Path(path).expanduser().absolute()
        os.close(_open(checked))
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        msg = (
            f"cannot write spans to {path!r} ({reason}); expected the path of a file in a directory that exists. "
            f'Write exporter="file:traces.jsonl", or make the directory first.'
        )
        raise ConfigurationError(msg) from error
    return checked
