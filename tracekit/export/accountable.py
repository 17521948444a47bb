"""Exporting a batch of which only some spans may be lost: the SDK's exporters know but success or failure."""

from __future__ import annotations

from abc import abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

_NONE: Final[Mapping[str, int]] = MappingProxyType({})


class AccountableExporter(SpanExporter):
    """An exporter that may lose some spans of a batch, and tells how many and why."""

    @abstractmethod
    def export_accountably(self, spans: Sequence[ReadableSpan]) -> Mapping[str, int]:
        """Export *spans* and return how many of them are lost, by reason."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export *spans*: a failure if one is lost."""
        return SpanExportResult.FAILURE if self.export_accountably(spans) else SpanExportResult.SUCCESS


def export(exporter: SpanExporter, spans: Sequence[ReadableSpan]) -> Mapping[str, int]:
    """Have *exporter* export *spans* and return how many of them are lost, by reason."""
    if isinstance(exporter, AccountableExporter):
        return exporter.export_accountably(spans)
    count = len(spans)  # an exporter may empty what it is given
    result = cast("object", exporter.export(spans))
    return {"export_failed": count} if result is SpanExportResult.FAILURE or result is False else _NONE
