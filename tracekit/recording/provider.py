"""
The provider of this process. Only this module touches what OpenTelemetry's SDK keeps inside its provider.

It stays for the life of the process; what changes with each `configure()` is its pipeline, so that tracers
handed out long ago follow.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.sdk.version import __version__ as SDK_VERSION  # noqa: N812

from tracekit._diagnostics import logger
from tracekit._fork import in_forked_child
from tracekit._stats import Counters
from tracekit.recording.guards import EntropyIdGenerator
from tracekit.recording.pipeline import Pipeline
from tracekit.recording.tracer import Tracer

if TYPE_CHECKING:
    from opentelemetry import trace as trace_api
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span, SynchronousMultiSpanProcessor
    from opentelemetry.sdk.trace.id_generator import IdGenerator


# The releases of the SDK that its own tests were run with against the engine.
_KNOWN_RELEASES: Final = ((1, 41), (1, 45))


def _engine_fits() -> bool:
    if os.environ.get("TRACEKIT_ENGINE") == "sdk":
        return False
    release = tuple(int(part) for part in re.findall(r"\d+", SDK_VERSION)[:2])
    if _KNOWN_RELEASES[0] <= release <= _KNOWN_RELEASES[1]:
        return True
    logger.warning(
        "opentelemetry-sdk %s is not a release tracekit's span engine was tested with (%s): the SDK's own, slower "
        "spans are used",
        SDK_VERSION,
        " to ".join(".".join(map(str, known)) for known in _KNOWN_RELEASES),
    )
    return False


ENGINE_FITS: Final = _engine_fits()


@final
class TracerProvider(SdkTracerProvider):
    """An SDK provider whose pipeline can be swapped while its tracers are in use."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(
            sampler=DEFAULT_ON,
            resource=Resource.get_empty(),
            shutdown_on_exit=False,
            # Asks for its own two classes; uses what every processor has, and add_span_processor, overridden below.
            active_span_processor=cast("SynchronousMultiSpanProcessor", pipeline),
            span_limits=SpanLimits(),
        )
        self.use(pipeline)
        in_forked_child(self._handle_fork)

    def use(self, pipeline: Pipeline) -> None:
        """Let all tracers, also those handed out before, make their next span for *pipeline*."""
        with self._tracers_lock:
            self.pipeline = pipeline
            self._active_span_processor = cast("SynchronousMultiSpanProcessor", pipeline)
            self.sampler = pipeline.sampler or DEFAULT_ON
            self.id_generator: IdGenerator = pipeline.id_generator or EntropyIdGenerator()  # type: ignore[assignment]  # the SDK takes any, and declares its default
            self._span_limits = pipeline.limits or SpanLimits()
            self._resource = pipeline.make_resource()
            for tracer in self._tracers.values():
                tracer.span_processor = self._active_span_processor
                tracer.sampler = self.sampler
                tracer.id_generator = self.id_generator
                tracer.resource = self._resource
                tracer._span_limits = self._span_limits  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace_api.Tracer:
        """Return a tracer of the engine's, or the SDK's where this version of it is not known to fit."""
        tracer = super().get_tracer(*args, **kwargs)
        if ENGINE_FITS and type(tracer) is SdkTracer:
            # The SDK has made it, registered it and looked after its configuration: the engine only starts spans.
            tracer.__class__ = Tracer
        return tracer

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Serve *span_processor* too, also after the next `configure()`: it is not ours to shut down there."""
        self.pipeline.add(span_processor)

    def shutdown(self) -> None:
        """Shut the pipeline down; `configure()` opens another."""
        self.pipeline.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the pipeline."""
        return self.pipeline.force_flush(timeout_millis)

    def _handle_fork(self) -> None:
        """Give the child an identity of its own (some releases of the SDK call this too)."""
        self._tracers_lock = threading.Lock()
        self._resource = self.pipeline.make_resource()
        for tracer in self._tracers.values():
            tracer.resource = self._resource


def mirror_of(provider: SdkTracerProvider) -> Pipeline:
    """Return a pipeline that makes spans as *provider*, which is the user's, does; for holders of our tracers."""
    return Pipeline(
        (provider._active_span_processor,),  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        Counters(),
        sampler=provider.sampler,
        make_resource=lambda: provider.resource,
        limits=provider._span_limits,  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        id_generator=provider.id_generator,
    )


@final
class PipelineSlot(SpanProcessor):
    """The one processor that a provider of the user's gets; what is in it changes with each `configure()`."""

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Pass a span that has started on."""
        if self.pipeline is not None:
            self.pipeline.on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        if self.pipeline is not None:
            self.pipeline._on_ending(span)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def on_end(self, span: ReadableSpan) -> None:
        """Pass a span that has ended on."""
        if self.pipeline is not None:
            self.pipeline.on_end(span)

    def shutdown(self) -> None:
        """Shut down what is in it."""
        if self.pipeline is not None:
            self.pipeline.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush what is in it."""
        return self.pipeline is None or self.pipeline.force_flush(timeout_millis)


_slots: Final[weakref.WeakKeyDictionary[SdkTracerProvider, PipelineSlot]] = weakref.WeakKeyDictionary()


def slot_of(provider: SdkTracerProvider) -> PipelineSlot:
    """Return our place among the processors of *provider*, which is the user's; taken on the first call."""
    slot = _slots.get(provider)
    if slot is None:
        slot = _slots[provider] = PipelineSlot()
        provider.add_span_processor(slot)
    return slot


def processors_before(pipeline: Pipeline) -> tuple[object, ...]:
    """Return what the spans of users' providers are given to that lead to *pipeline*."""
    return tuple(
        provider._active_span_processor  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        for provider, slot in list(_slots.items())
        if slot.pipeline is pipeline
    )
