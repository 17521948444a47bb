"""From `exporter=` to the processors that deliver spans."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, final

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter

from tracekit._diagnostics import logger
from tracekit._environment import Environment, wrong_variable
from tracekit.configuration.arguments import wrong_argument
from tracekit.configuration.batching import Batching
from tracekit.configuration.lending import LentExporter, LentProcessor
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from tracekit._stats import Counters
    from tracekit.export.sending import OtlpExporter
    from tracekit.export.spool import Spool

Exporter: TypeAlias = "str | SpanExporter | SpanProcessor"
Exporters: TypeAlias = "Exporter | Sequence[Exporter]"

KNOWN: Final = ("auto", "otlp", "console", "file:PATH", "memory", "none")
_FILE: Final = "file:"
_VARIABLE: Final = "OTEL_TRACES_EXPORTER"
_GROUP: Final = "opentelemetry_traces_exporter"
_ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Sink:
    """
    One place spans go to, chosen but not opened yet.

    Args:
        label: What to call it before a reader; holds no secrets.
        open: Makes the processor that delivers there.
        memory: The exporter to read spans back from, if it is one.
        metrics: Where metrics go when spans go here (None: it takes spans only).
        is_spooled: Whether spans that cannot be sent are kept on disk.
    """

    label: str
    open: Callable[[Counters], SpanProcessor]
    memory: InMemorySpanExporter | None = None
    metrics: Literal["otlp", "console", "memory"] | None = None
    is_spooled: bool = False


@final
@dataclasses.dataclass(frozen=True, slots=True)
class ExportOptions:
    """The arguments of `configure()` that say how to send; None is "not given"."""

    endpoint: str | None = None
    protocol: str | None = None
    insecure: bool | None = None
    headers: Mapping[str, str] | None = None
    compression: str | None = None
    timeout_s: float | None = None
    spool: Path | None = None
    batching: Batching = dataclasses.field(default_factory=Batching)


def sinks_of(exporter: object, options: ExportOptions, variables: Environment) -> tuple[Sink, ...]:
    """
    Return the places that *exporter*, an argument of `configure()`, asks for.

    Args:
        exporter: A name, a SpanExporter, a SpanProcessor or a list of these.
        options: How to send over OTLP.
        variables: What "auto" looks at, and what *options* leaves open.

    Raises:
        ConfigurationError: If it is none of these, or cannot be made.
    """
    if isinstance(exporter, (list, tuple)):
        several = cast("Sequence[object]", exporter)
        if not several:
            raise _unknown(several)
        return tuple(sink for one in several for sink in sinks_of(one, options, variables))
    named = variables.text(_VARIABLE)
    chosen = () if named is None else _from_environment(named, options, variables)
    if exporter == "auto" and named is not None:
        return chosen
    if exporter == "auto":
        exporter = (
            "otlp" if options.endpoint is not None or any(map(variables.text, _ENDPOINT_VARIABLES)) else "console"
        )
    return () if exporter == "none" else (_sink_of(exporter, options, variables),)


def check_use(exporter: object, options: ExportOptions, sinks: Sequence[Sink], *, metrics: bool) -> None:
    """
    Check the arguments in *options* where no one of *sinks* would.

    Args:
        exporter: The argument of `configure()`.
        options: How to send over OTLP.
        sinks: What *exporter* came to.
        metrics: Whether there are metrics too, which may go over OTLP where spans do not.

    Raises:
        ConfigurationError: One can never be right, or has nothing to act on.
    """
    if any(sink.metrics == "otlp" for sink in sinks):
        return
    sending = {name: getattr(options, name) for name in ("protocol", "insecure", "headers", "compression")}
    unused = [name for name, value in sending.items() if value is not None]
    if unused or options.endpoint is not None or options.timeout_s is not None:
        from tracekit.export.connection import check_arguments

        check_arguments(endpoint=options.endpoint, timeout_s=options.timeout_s, **sending)
    if metrics or options.endpoint is not None:
        # Another exporter stands in for a receiver that is named, as in tests.
        unused = []
    if options.spool is not None:
        unused = ["spool", *unused]
    if unused and exporter == "auto":
        # The same program with a receiver in its environment sends; on somebody's desk there is none.
        logger.info("tracekit: %s= has nothing to act on: no endpoint is given, nothing is sent", unused[0])
    elif unused:
        name = unused[0]
        value = str(options.spool) if name == "spool" else getattr(options, name)
        # Headers may be secret.
        shown = "..." if name == "headers" else f"{value!r:.100}"
        msg = (
            f"{name}={shown}: expected an exporter over OTLP, which it is for. "
            'Write endpoint="http://localhost:4318" or exporter="otlp" too, or leave it out.'
        )
        raise ConfigurationError(msg)


def _from_environment(named: str, options: ExportOptions, variables: Environment) -> tuple[Sink, ...]:
    """Read `OTEL_TRACES_EXPORTER`: names of ours, or of installed exporters."""
    sinks: list[Sink] = []
    for name in filter(None, (part.strip() for part in named.split(","))):
        if name in ("otlp", "console", "memory") or name.startswith(_FILE):
            sinks.append(_sink_of(name, options, variables))
        elif name != "none":
            sinks.append(_exporter_sink(_installed(name, named), options.batching))
    return tuple(sinks)


def _installed(name: str, named: str) -> SpanExporter:
    found = next(iter(entry_points(group=_GROUP, name=name)), None)
    if found is None:
        raise wrong_variable(
            _VARIABLE, named, "a comma-separated list of otlp, console, file:PATH, none or an installed exporter"
        )
    try:
        exporter: object = found.load()()
    except Exception as error:
        msg = f"{_VARIABLE}: the exporter {name!r} ({found.value}) could not be made ({type(error).__name__})."
        raise ConfigurationError(msg) from error
    if not isinstance(exporter, SpanExporter):
        msg = f"{_VARIABLE}: {name!r} ({found.value}) made a {type(exporter).__name__}, expected a SpanExporter."
        raise ConfigurationError(msg)
    return exporter


def _sink_of(exporter: object, options: ExportOptions, variables: Environment) -> Sink:
    if exporter == "otlp":
        return _otlp_sink(options, variables)
    if exporter == "console":
        return Sink("console", _tree, metrics="console")
    if exporter == "memory":
        return _memory_sink()
    if isinstance(exporter, str) and exporter.startswith(_FILE) and exporter != _FILE:
        return _file_sink(exporter.removeprefix(_FILE), options.batching)
    if isinstance(exporter, SpanProcessor):
        return Sink(type(exporter).__name__, partial(_as_given, exporter))
    if isinstance(exporter, SpanExporter):
        return _exporter_sink(exporter, options.batching)
    raise _unknown(exporter)


def _unknown(exporter: object) -> ConfigurationError:
    hint = ". An instance is expected, not its class" if isinstance(exporter, type) else ""
    return wrong_argument(
        exporter,
        name="exporter",
        expected=f"one of {', '.join(KNOWN)}, a SpanExporter, a SpanProcessor or a list of these{hint}",
        write='exporter="console" to see spans on stderr',
    )


def _otlp_sink(options: ExportOptions, variables: Environment) -> Sink:
    from tracekit.export.sending import otlp_exporter

    exporter = otlp_exporter(
        endpoint=options.endpoint,
        protocol=options.protocol,
        insecure=options.insecure,
        headers=options.headers,
        compression=options.compression,
        timeout_s=options.timeout_s,
        variables=variables,
        make_spool=None if options.spool is None else _spool_in(options.spool),
    )
    return Sink(
        repr(exporter),
        partial(_over_otlp, exporter, options.batching),
        metrics="otlp",
        is_spooled=exporter.spool is not None,
    )


def _spool_in(directory: Path) -> Callable[[str], Spool]:
    try:
        from tracekit.export.spool import Spool
    except ImportError as error:  # a Python that was built without it
        msg = "spool= needs Python's sqlite3, which this Python does not have. Leave spool out."
        raise ConfigurationError(msg) from error
    return partial(Spool, directory)


def _as_given(processor: SpanProcessor, _counters: Counters) -> SpanProcessor:
    return LentProcessor(processor)


def _tree(counters: Counters) -> SpanProcessor:
    from tracekit.export.console import TreeProcessor

    return TreeProcessor(counters=counters)


def _memory_sink() -> Sink:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    return dataclasses.replace(_exporter_sink(InMemorySpanExporter(), Batching()), label="memory")


def _file_sink(path: str, batching: Batching) -> Sink:
    from tracekit.export.file import FileExporter

    return dataclasses.replace(_exporter_sink(FileExporter(path), batching), label=f"file:{path}")


def _exporter_sink(exporter: SpanExporter, batching: Batching) -> Sink:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    label = type(exporter).__name__
    if isinstance(exporter, InMemorySpanExporter):
        # Tests read it back on the next line.
        return Sink(label, partial(_immediately, exporter), exporter, metrics="memory")
    return Sink(label, partial(_in_batches, exporter, batching))


def _immediately(exporter: SpanExporter, counters: Counters) -> SpanProcessor:
    from tracekit.export.immediate import ImmediateProcessor

    return ImmediateProcessor(LentExporter(exporter), counters)


def _in_batches(exporter: SpanExporter, batching: Batching, counters: Counters) -> SpanProcessor:
    from tracekit.export.batch import BatchProcessor

    return BatchProcessor(LentExporter(exporter), counters, **batching.given())


def _over_otlp(exporter: OtlpExporter, batching: Batching, counters: Counters) -> SpanProcessor:
    from tracekit.export.batch import BatchProcessor

    processor = BatchProcessor(LentExporter(exporter), counters, spool=exporter.spool, **batching.given())
    exporter.start()
    return processor
