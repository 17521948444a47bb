"""What outlives a pipeline: one instance given to `configure()` again must not be shut down in between."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.trace import SpanProcessor

from tracekit.export.accountable import AccountableExporter, export

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.export import SpanExporter

    from tracekit.export.accountable import Outcome

_lock: Final = threading.RLock()
_loans_of: Final[dict[int, int]] = {}


@final
class _Loan:
    """One pipeline's use of *lent*."""

    def __init__(self, lent: SpanExporter | SpanProcessor) -> None:
        self._lent: Final = lent
        self._is_over = False
        with _lock:
            _loans_of[id(lent)] = _loans_of.get(id(lent), 0) + 1

    @property
    def is_the_last(self) -> bool:
        """Whether nobody else uses it."""
        return _loans_of.get(id(self._lent)) == 1

    def end(self) -> None:
        """Give it back; shut down what nobody else uses."""
        with _lock:
            if self._is_over:
                return
            self._is_over = True
            left = _loans_of.pop(id(self._lent)) - 1
            if left:
                _loans_of[id(self._lent)] = left
        if not left:
            self._lent.shutdown()


@final
class LentExporter(AccountableExporter):
    """
    Lends *exporter* to a pipeline; the last of its pipelines to be shut down shuts it down.

    Args:
        exporter: The user's, who may use it again.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter: Final = exporter
        self._loan: Final = _Loan(exporter)

    def export_accountably(self, spans: Sequence[ReadableSpan]) -> Outcome:
        """Export *spans* and return what became of them."""
        return export(self._exporter, spans)

    def hurry(self, *, within_s: float, is_last: bool) -> None:
        """Tell the exporter that somebody waits; it is not the last thing for one that is used elsewhere too."""
        if isinstance(self._exporter, AccountableExporter):
            self._exporter.hurry(within_s=within_s, is_last=is_last and self._loan.is_the_last)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """End the loan."""
        self._loan.end()


@final
class LentProcessor(SpanProcessor):
    """
    Lends *processor* to a pipeline; the last of its pipelines to be shut down shuts it down.

    Args:
        processor: The user's, who may use it again.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        self._processor: Final = processor
        self._loan: Final = _Loan(processor)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Pass a span that has started on."""
        self._processor.on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        self._processor._on_ending(span)  # noqa: SLF001  # the SDK's hook

    def on_end(self, span: ReadableSpan) -> None:
        """Pass a span that has ended on."""
        self._processor.on_end(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the processor."""
        return self._processor.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """End the loan."""
        self._loan.end()
