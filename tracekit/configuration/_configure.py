"""`configure()` itself: checks all arguments, then changes everything at once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from opentelemetry import trace as trace_api

from tracekit._config import Settings, runtime
from tracekit._diagnostics import logger
from tracekit._stats import Counters
from tracekit.configuration.environment import Environment
from tracekit.configuration.exporters import Exporters, Sink, sinks_of
from tracekit.configuration.resource import resource_maker
from tracekit.configuration.tracing import Tracing
from tracekit.errors import ConfigurationError
from tracekit.recording import Pipeline, TracerProvider

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_lock: Final = threading.RLock()
_provider: TracerProvider | None = None


def configure(
    *,
    service: str | None = None,
    version: str | None = None,
    environment: str | None = None,
    resource: Mapping[str, object] | Resource | None = None,
    exporter: Exporters = "auto",
    capture_arguments: bool = True,
    code_location: bool = False,
    expected: Sequence[type[BaseException]] = (),
) -> Tracing:
    """Set tracing up, or set it up anew."""
    variables = Environment()
    settings = Settings(
        capture_arguments=capture_arguments, code_location=code_location, expected=tuple(expected)
    )
    counters = Counters()
    sinks = sinks_of(exporter, _otlp, has_endpoint=False)
    pipeline = Pipeline(
        [sink.open(counters) for sink in sinks],
        counters,
        make_resource=resource_maker(
            service=service,
            version=version,
            environment=environment,
            more=resource,
            variables=variables,
            settings=settings,
        ),
    )
    memory = next((sink.memory for sink in sinks if sink.memory is not None), None)
    with _lock:
        provider, old = _publish(pipeline)
        runtime.use(settings=settings, provider=provider)
    if old is not None:
        old.shutdown()
    return Tracing(pipeline, provider, memory, {"exporter": [sink.label for sink in sinks]})


def _otlp() -> Sink:
    msg = "OTLP export is not here yet"
    raise ConfigurationError(msg)


def _publish(pipeline: Pipeline) -> tuple[TracerProvider, Pipeline | None]:
    global _provider  # noqa: PLW0603
    if _provider is None:
        _provider = TracerProvider(pipeline)
        old = None
    else:
        old = _provider.pipeline
        old.give_way_to(pipeline)
        _provider.use(pipeline)
    current = trace_api.get_tracer_provider()
    if isinstance(current, trace_api.ProxyTracerProvider):
        trace_api.set_tracer_provider(_provider)
    elif current is not _provider:
        logger.info("OpenTelemetry's global provider stays %s", type(current).__name__)
    return _provider, old
