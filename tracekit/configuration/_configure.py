"""`configure()` itself: checks everything, opens the new pipeline, then puts it in the old one's place."""

from __future__ import annotations

import dataclasses
import threading
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

from opentelemetry import trace as trace_api
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from tracekit._config import Settings, runtime
from tracekit._diagnostics import logger
from tracekit._environment import Environment
from tracekit._stats import Counters
from tracekit.configuration import arguments
from tracekit.configuration.batching import Batching
from tracekit.configuration.ending import EXIT_TIMEOUT_S, ending
from tracekit.configuration.exporters import Exporters, ExportOptions, Sink, check_use, sinks_of
from tracekit.configuration.limits import span_limits, string_limit
from tracekit.configuration.propagators import propagator_of
from tracekit.configuration.resource import resource_maker
from tracekit.configuration.status import directory_to_tell_in, tell_of
from tracekit.configuration.tracing import Tracing
from tracekit.errors import ConfigurationError, InstrumentationError
from tracekit.recording import (
    BaggageAttributes,
    CountedSampler,
    GuardedIdGenerator,
    Pipeline,
    TracerProvider,
    mirror_of,
    slot_of,
)
from tracekit.sampling import TailBuffer, TailPolicy, sampler_from

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.sampling import Sampler

    from tracekit.sampling import Rule

    Sample: TypeAlias = "float | Sampler | Mapping[str, float | Sampler] | Sequence[Rule]"


def configure(
    *,
    service: str | None = None,
    version: str | None = None,
    environment: str | None = None,
    resource: Mapping[str, object] | Resource | None = None,
    exporter: Exporters = "auto",
    endpoint: str | None = None,
    protocol: Literal["grpc", "http/protobuf"] | None = None,
    insecure: bool | None = None,
    headers: Mapping[str, str] | None = None,
    compression: Literal["gzip", "none"] | None = None,
    timeout_s: float | None = None,
    sample: Sample | None = None,
    keep_errors: bool = False,
    keep_slower_than_s: float | None = None,
    capture_arguments: bool = True,
    redact: arguments.Redact | None = None,
    code_location: bool = False,
    expected: Sequence[type[BaseException]] = (),
    propagators: Sequence[str | TextMapPropagator] | TextMapPropagator | None = None,
    baggage_attributes: Sequence[str] | None = None,
    spool: str | os.PathLike[str] | bool | None = None,
    metrics: bool = False,
    instrument: Sequence[str] = (),
    provider: SdkTracerProvider | None = None,
    id_generator: IdGenerator | None = None,
) -> Tracing:
    """
    Set tracing up, or anew: the pipeline there was is flushed and shut down, decorated functions follow.

    An argument beats its `OTEL_*` variable, which beats the default. Everything is checked before anything changes.

    Args:
        service: `service.name` (None: `OTEL_SERVICE_NAME`, else the script's name).
        version: `service.version`.
        environment: `deployment.environment.name`: "production".
        resource: More attributes of the resource.
        exporter: "auto" (`OTEL_TRACES_EXPORTER`; else OTLP where an endpoint is given, else the trace tree on stderr),
            "otlp", "console", "file:PATH", "memory", "none", a SpanExporter, a SpanProcessor, or a list of these.
        endpoint: Where the OTLP receiver listens: "http://jaeger:4317".
        protocol: "grpc" or "http/protobuf".
        insecure: Whether gRPC goes without TLS.
        headers: Sent with each OTLP request.
        compression: "gzip" or "none".
        timeout_s: Longest OTLP request, and longest wait for the export when the process ends, in seconds (None: 10
            and 5).
        sample: Ratio of new traces from 0 to 1, a sampler, or ratios by span name: {"health.*": 0, "*": 0.1}.
        keep_errors: Keep traces that sampling would drop once a span of theirs fails.
        keep_slower_than_s: Keep traces that sampling would drop once they take that many seconds.
        capture_arguments: Record scalar arguments of operations that say nothing about attributes.
        redact: What else is secret: names, compiled patterns of names, looks (`tracekit.redaction.SECRET_VALUES`), and
            callables that are given a key and its value, and return whether to hide it or what to record instead.
        code_location: Record `code.file.path` and `code.line.number` too.
        expected: Exception types that are never counted as errors.
        propagators: Names or propagators that carry context: ["tracecontext", "baggage", "b3"].
        baggage_attributes: Baggage entries that every span gets as attributes: ["tenant.id"].
        spool: Where what cannot be sent over OTLP now is kept on disk: the path of a directory, or True for one of the
            user's own.
        metrics: Measure how long operations take and how often they fail, sampled or not.
        instrument: Libraries to trace: ["fastapi", "sqlalchemy", "httpx"].
        provider: An SDK provider of your own; its sampler, resource and ids stay.
        id_generator: Makes trace and span ids (None: from the operating system's entropy).

    Raises:
        ConfigurationError: If an argument or a variable cannot work, or an extra is missing; then nothing has changed.

    Source: OpenTelemetry specification, configuration/sdk-environment-variables.
    """
    given = dict(locals())
    own_provider = _own_provider(
        provider,
        service=service,
        version=version,
        environment=environment,
        resource=resource,
        sample=sample,
        keep_errors=keep_errors or None,
        keep_slower_than_s=keep_slower_than_s,
        id_generator=id_generator,
    )
    variables = Environment()
    limits = span_limits(variables)
    settings = Settings(
        capture_arguments=arguments.boolean("capture_arguments", capture_arguments),
        code_location=arguments.boolean("code_location", code_location),
        expected=arguments.exception_types("expected", expected),
        redactor=arguments.redactor(redact),
        string_limit=string_limit(limits),
    )
    make_resource = resource_maker(
        service=arguments.text("service", service, 'service="orders"'),
        version=arguments.text("version", version, 'version="1.0.0"'),
        environment=arguments.text("environment", environment, 'environment="production"'),
        more=resource,
        variables=variables,
        settings=settings,
    )
    tail = TailPolicy(keep_errors=keep_errors, keep_slower_than_s=keep_slower_than_s)
    sampler = sampler_from(sample, record_dropped=bool(tail), variables=variables)
    ids = _guarded_ids(id_generator)
    propagator = propagator_of(propagators, variables)
    copied = arguments.strings("baggage_attributes", baggage_attributes, 'baggage_attributes=["tenant.id"]')
    libraries = arguments.strings("instrument", instrument, 'instrument=["fastapi", "httpx"]')
    options = ExportOptions(
        endpoint=endpoint,
        protocol=protocol,
        insecure=insecure,
        headers=headers,
        compression=compression,
        timeout_s=timeout_s,
        spool=arguments.spool_directory(spool),
        batching=Batching.of(variables),
    )
    sinks = sinks_of(exporter, options, variables)
    check_use(exporter, options, sinks, metrics=metrics)
    status_directory = directory_to_tell_in(variables)
    is_disabled = variables.boolean("OTEL_SDK_DISABLED") is True
    if not is_disabled:
        _instrument(libraries)
    metering = None
    if arguments.boolean("metrics", metrics) and not is_disabled:
        # Loads the SDK's metrics.
        from tracekit.configuration.metering import metering_of

        measured = make_resource if own_provider is None else lambda: own_provider.resource
        metering = metering_of(sinks, options, variables, measured)
    counters = Counters()
    processors = () if is_disabled else _open(sinks, counters)
    if tail and processors:
        processors = (TailBuffer(tail, processors, counters),)
    if copied and not is_disabled:
        # First: the others may read the attributes at the start.
        processors = (BaggageAttributes(copied, settings.redactor, settings.string_limit), *processors)
    if metering is not None:
        settings = dataclasses.replace(settings, metrics=metering.metrics)
        processors += (metering,)
    pipeline = Pipeline(
        processors,
        counters,
        sampler=CountedSampler(ALWAYS_OFF if is_disabled else sampler, counters),
        make_resource=make_resource,
        limits=limits,
        id_generator=ids,
    )
    if own_provider is None:
        # Found out once: a worker process would name itself after its own script.
        given["service"] = make_resource().attributes.get("service.name")
    setup = partial(configure, **given)
    in_use = deployment.replace(
        pipeline,
        own_provider,
        settings,
        propagator,
        setup,
        exit_timeout_s=EXIT_TIMEOUT_S if timeout_s is None else timeout_s,
        is_disabled=is_disabled,
    )
    effective = {
        "service": given["service"],
        "exporter": "disabled" if is_disabled else [sink.label for sink in sinks],
        "sample": sampler.get_description() if sample is None else sample,
        "tail": tail or None,
        "spool": options.spool and str(options.spool),
        "instrument": libraries,
        "provider": own_provider and type(own_provider).__name__,
    }
    memory = next((sink.memory for sink in sinks if sink.memory is not None), None)
    shown = {name: value for name, value in effective.items() if value}
    tracing = Tracing(pipeline, in_use, memory, metering, shown, on_shutdown=lambda: ending.forget(pipeline))
    if status_directory is not None:
        tell_of(tracing, status_directory)
    return tracing


def _own_provider(provider: object, **belonging_to_it: object) -> SdkTracerProvider | None:
    """Check `provider=`, and that nothing is asked for that only its maker can set."""
    if provider is None or isinstance(provider, TracerProvider):  # ours, handed back
        return None
    if not isinstance(provider, SdkTracerProvider):
        expected = "an opentelemetry.sdk.trace.TracerProvider"
        raise arguments.wrong_argument(provider, name="provider", expected=expected, write="provider=TracerProvider()")
    for name, value in belonging_to_it.items():
        if value is not None:
            msg = f"{name}={value!r:.100} cannot be changed on a provider that exists. Give it to TracerProvider(...)."
            raise ConfigurationError(msg)
    return provider


def _guarded_ids(given: object) -> IdGenerator | None:
    if given is None:
        return None
    if isinstance(given, IdGenerator):
        return GuardedIdGenerator(given)
    write = "id_generator=MyIdGenerator()"
    raise arguments.wrong_argument(given, name="id_generator", expected="an IdGenerator", write=write)


def _instrument(libraries: tuple[str, ...]) -> None:
    if not libraries:
        return
    from tracekit.instrumentation import instrument

    try:
        instrument(*libraries)
    except InstrumentationError as error:
        msg = f"instrument: {error}"
        raise ConfigurationError(msg) from error


def _open(sinks: Sequence[Sink], counters: Counters) -> tuple[SpanProcessor, ...]:
    opened: list[SpanProcessor] = []
    try:
        for sink in sinks:
            opened.append(sink.open(counters))  # noqa: PERF401  # those already open are closed below
    except BaseException:
        Pipeline(opened, counters).close(0)
        raise
    return tuple(opened)


@final
class _Deployment:
    """The pipeline in use, and the provider that feeds it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pipeline: Pipeline | None = None
        self._provider: TracerProvider | None = None
        self._users_provider: SdkTracerProvider | None = None
        self._propagator_before: TextMapPropagator | None = None
        self._undo: Callable[[], None] | None = None

    def replace(
        self,
        pipeline: Pipeline,
        users_provider: SdkTracerProvider | None,
        settings: Settings,
        propagator: TextMapPropagator | None,
        setup: partial[Tracing],
        *,
        exit_timeout_s: float,
        is_disabled: bool,
    ) -> trace_api.TracerProvider | None:
        """Put *pipeline* in the place of the one there was, which is flushed and shut down."""
        with self._lock:
            old, self._pipeline = self._pipeline, pipeline
            if old is not None:
                old.give_way_to(pipeline)
            provider = self._feed(pipeline, users_provider, is_disabled=is_disabled)
            self._carry_with(propagator)
            undo = runtime.use(settings=settings, provider=provider, setup=setup)
            self._undo = self._undo or undo
            ending.watch(pipeline, exit_timeout_s)
        if old is not None:
            # Outside the lock: it may take its time.
            old.close(int(EXIT_TIMEOUT_S * 1000))
            ending.forget(old)
        return provider

    def reset(self) -> None:
        """Take everything back but the provider in OpenTelemetry's hands, which cannot be (tests)."""
        with self._lock:
            if self._pipeline is not None:
                self._pipeline.close(0)
                ending.forget(self._pipeline)
            self._carry_with(None)
            if self._undo is not None:
                self._undo()
            self.__init__()  # a new one in the old one's place

    def _feed(
        self, pipeline: Pipeline, users_provider: SdkTracerProvider | None, *, is_disabled: bool
    ) -> trace_api.TracerProvider | None:
        if self._users_provider is not None and self._users_provider is not users_provider:
            slot_of(self._users_provider).pipeline = None
        self._users_provider = users_provider
        if users_provider is not None:
            slot_of(users_provider).pipeline = pipeline
            if self._provider is not None:
                self._provider.use(mirror_of(users_provider))
            self._make_global(users_provider)
            return users_provider
        if self._provider is not None:
            self._provider.use(pipeline)
        elif is_disabled:
            return None
        else:
            self._provider = TracerProvider(pipeline)
        self._make_global(self._provider)
        return self._provider

    def _make_global(self, provider: trace_api.TracerProvider) -> None:
        current = trace_api.get_tracer_provider()
        if isinstance(current, trace_api.ProxyTracerProvider):
            trace_api.set_tracer_provider(provider)
        elif current not in (provider, self._provider):
            logger.warning(
                "OpenTelemetry's global provider was set before and stays (%s). tracekit's spans go to the pipeline of "
                "configure(), those of others go there; configure(provider=...) joins the two",
                type(current).__name__,
            )

    def _carry_with(self, propagator: TextMapPropagator | None) -> None:
        from opentelemetry import propagate

        if propagator is not None:
            if self._propagator_before is None:
                self._propagator_before = propagate.get_global_textmap()
            propagate.set_global_textmap(propagator)
        elif self._propagator_before is not None:
            propagate.set_global_textmap(self._propagator_before)
            self._propagator_before = None


deployment: Final = _Deployment()
