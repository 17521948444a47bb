"""Exporting each span as it ends, on the thread that ends it: for exporters that only remember or print."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SpanExportResult

from tracekit._diagnostics import report_failure
from tracekit._fork import in_forked_child
from tracekit._stats import Stats
from tracekit.export.quiet import is_quiet, quiet

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from tracekit._stats import Counters

# Spans that end where the stack has no room for their export, which has it again soon.
_MAX_LATER: Final = 1_000


@final
class ImmediateProcessor(SpanProcessor):
    """
    Exports every sampled span at once; no failure of the exporter reaches the caller.

    A span that ends at the recursion limit is exported with the next one, or at the next flush.

    Args:
        exporter: Gets one span at a time.
        counters: Where spans are counted.
    """

    # A RecursionError from `on_end` means that the span was not taken.
    is_whole_or_not_at_all: Final = True

    def __init__(self, exporter: SpanExporter, counters: Counters) -> None:
        self._exporter: Final = exporter
        self._counters: Final = counters
        self._is_closed = False
        self._start_empty()
        counters.include(lambda: Stats(queued=len(self._later)))
        in_forked_child(self._start_empty)

    def _start_empty(self) -> None:
        self._has_lost = False
        self._later: deque[ReadableSpan] = deque()

    def on_end(self, span: ReadableSpan) -> None:
        """Export *span* if it is sampled."""
        try:
            if self._later:
                self._export_later(is_last_chance=len(self._later) >= _MAX_LATER)
            self._take(span)
        except RecursionError:
            self._later.append(span)

    def _take(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self._is_closed:
            self._drop("after_shutdown")
        elif is_quiet():
            # A span of the exporter's own: exporting it would make the next one.
            self._drop("while_exporting")
        else:
            self._export(span)

    def _export(self, span: ReadableSpan) -> None:
        is_exported = False
        try:
            with quiet():
                is_exported = self._exporter.export((span,)) is not SpanExportResult.FAILURE
        except RecursionError:
            raise  # to where the span is kept for later
        # Not BaseException: on this thread it may be Ctrl-C, or the exit of the program's own signal handler.
        except Exception as error:  # noqa: BLE001  # the user's exporter
            report_failure(type(self._exporter).__name__, "export", error)
        except BaseException:
            self._drop("export_failed")
            raise
        if is_exported:
            self._counters.add("exported")
        else:
            self._drop("export_failed")

    def _export_later(self, *, is_last_chance: bool) -> None:
        """Export what there was no room for; raises RecursionError where there is none now."""
        # Not again what comes back meanwhile.
        for _ in range(len(self._later)):
            try:
                span = self._later.popleft()
            except IndexError:
                return
            try:
                self._take(span)
            except RecursionError:
                if not is_last_chance:
                    self._later.appendleft(span)
                    raise
                self._drop("export_failed")

    def _drop(self, reason: str) -> None:
        self._has_lost = True
        self._counters.drop(reason)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter; returns whether it did, and no span was lost since the last flush."""
        self._export_later(is_last_chance=True)
        has_lost, self._has_lost = self._has_lost, False
        try:
            return self._exporter.force_flush(timeout_millis) is not False and not has_lost
        except Exception as error:  # noqa: BLE001  # the user's exporter
            report_failure(type(self._exporter).__name__, "force_flush", error)
            return False

    def shutdown(self) -> None:
        """Shut the exporter down; spans that end later are dropped and counted."""
        if self._is_closed:
            return
        self._export_later(is_last_chance=True)
        self._is_closed = True
        try:
            self._exporter.shutdown()
        except Exception as error:  # noqa: BLE001  # the user's exporter
            report_failure(type(self._exporter).__name__, "shutdown", error)
