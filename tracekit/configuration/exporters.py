"""From `exporter=` to the processors that deliver spans."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, final

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter

from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from tracekit._stats import Counters

Exporter: TypeAlias = "str | SpanExporter | SpanProcessor"
Exporters: TypeAlias = "Exporter | Sequence[Exporter]"

KNOWN: Final = ("auto", "otlp", "console", "file:PATH", "memory", "none")
_FILE: Final = "file:"


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Sink:
    """
    One place spans go to, chosen but not opened yet.

    Args:
        label: What to call it before a reader; holds no secrets.
        open: Makes the processor that delivers there.
        memory: The exporter to read spans back from, if it is one.
    """

    label: str
    open: Callable[[Counters], SpanProcessor]
    memory: InMemorySpanExporter | None = None


def sinks_of(exporter: object, otlp: Callable[[], Sink], *, has_endpoint: bool) -> tuple[Sink, ...]:
    """
    Return the places that *exporter*, an argument of `configure()`, asks for.

    Args:
        exporter: A name, a SpanExporter, a SpanProcessor or a list of these.
        otlp: Makes the sink that sends over OTLP.
        has_endpoint: Whether an endpoint has been given: then "auto" is "otlp".

    Raises:
        ConfigurationError: If it is none of these.
    """
    if isinstance(exporter, (list, tuple)):
        return tuple(sink for one in exporter for sink in sinks_of(one, otlp, has_endpoint=has_endpoint))
    if exporter == "auto":
        exporter = "otlp" if has_endpoint else "console"
    if exporter == "none":
        return ()
    return (_sink_of(exporter, otlp),)


def _sink_of(exporter: object, otlp: Callable[[], Sink]) -> Sink:
    if exporter == "otlp":
        return otlp()
    if exporter == "console":
        return Sink("console", _tree)
    if exporter == "memory":
        return _memory_sink()
    if isinstance(exporter, str) and exporter.startswith(_FILE) and exporter != _FILE:
        return _file_sink(Path(exporter.removeprefix(_FILE)).expanduser())
    if isinstance(exporter, SpanProcessor):
        processor = exporter
        return Sink(type(processor).__name__, lambda _: processor)
    if isinstance(exporter, SpanExporter):
        return _exporter_sink(exporter)
    hint = " An instance is expected, not the class: write the parentheses." if isinstance(exporter, type) else ""
    msg = (
        f"exporter={exporter!r:.200}: expected one of {', '.join(KNOWN)}, a SpanExporter, a SpanProcessor "
        f'or a list of these.{hint} Write exporter="console" to see spans on stderr.'
    )
    raise ConfigurationError(msg)


def _tree(counters: Counters) -> SpanProcessor:
    from tracekit.export.console import TreeProcessor

    return TreeProcessor(counters=counters)


def _memory_sink() -> Sink:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    return dataclasses.replace(_exporter_sink(InMemorySpanExporter()), label="memory")


def _file_sink(path: Path) -> Sink:
    if path.is_dir() or not path.parent.is_dir():
        msg = f'exporter="file:{path}": expected a file in a directory that exists. Write exporter="file:traces.jsonl".'
        raise ConfigurationError(msg)

    def open_file(counters: Counters) -> SpanProcessor:
        from tracekit.export.batch import BatchProcessor
        from tracekit.export.file import FileExporter

        return BatchProcessor(FileExporter(path), counters)

    return Sink(f"file:{path}", open_file)


def _exporter_sink(exporter: SpanExporter) -> Sink:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    if isinstance(exporter, InMemorySpanExporter):
        memory = exporter

        def immediately(counters: Counters) -> SpanProcessor:
            from tracekit.export.immediate import ImmediateProcessor

            return ImmediateProcessor(memory, counters)

        return Sink(type(exporter).__name__, immediately, memory)

    def in_batches(counters: Counters) -> SpanProcessor:
        from tracekit.export.batch import BatchProcessor

        return BatchProcessor(exporter, counters)

    return Sink(type(exporter).__name__, in_batches)
