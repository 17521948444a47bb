"""Exporting a batch of which only some spans may be lost: the SDK's exporters know but success or failure."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast, final

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from tracekit.export.otlp import Request

_NONE: Final[Mapping[str, int]] = MappingProxyType({})


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What became of a batch; the spans that are neither here nor there were exported.

    Args:
        lost: Spans that are lost, by reason.
        unsent: What the receiver cannot take now, and may take another time.
    """

    lost: Mapping[str, int] = field(default_factory=lambda: _NONE)
    unsent: Sequence[Request] = ()


class AccountableExporter(SpanExporter):
    """An exporter that may lose some spans of a batch, and tells how many and why."""

    @abstractmethod
    def export_accountably(self, spans: Sequence[ReadableSpan]) -> Outcome:
        """Export *spans* and return what became of them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export *spans*: a failure if one was not exported."""
        outcome = self.export_accountably(spans)
        return SpanExportResult.FAILURE if outcome.lost or outcome.unsent else SpanExportResult.SUCCESS

    def hurry(self, *, within_s: float, is_last: bool) -> None:
        """
        Know that somebody waits for what has been given to `export_accountably`.

        Args:
            within_s: For how long, in seconds.
            is_last: Whether nothing comes after that time.
        """


def export(exporter: SpanExporter, spans: Sequence[ReadableSpan]) -> Outcome:
    """Have *exporter* export *spans* and return what became of them."""
    if isinstance(exporter, AccountableExporter):
        return exporter.export_accountably(spans)
    count = len(spans)  # an exporter may empty what it is given
    result = cast("object", exporter.export(spans))
    return Outcome({"export_failed": count}) if result is SpanExportResult.FAILURE or result is False else Outcome()
