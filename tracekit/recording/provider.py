"""
The provider of this process. Only this module touches what OpenTelemetry's SDK keeps inside its provider.

It stays for the life of the process; what changes with each `configure()` is its pipeline, so that tracers
handed out long ago follow.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.sampling import DEFAULT_ON

from tracekit.recording.guards import EntropyIdGenerator

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import Sampler

    from tracekit.recording.pipeline import Pipeline


@final
class TracerProvider(SdkTracerProvider):
    """An SDK provider whose pipeline can be swapped while its tracers are in use."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(
            sampler=DEFAULT_ON,
            resource=Resource.get_empty(),
            shutdown_on_exit=False,
            active_span_processor=pipeline,  # type: ignore[arg-type]  # used like the two classes it asks for
            span_limits=SpanLimits(),
        )
        self.use(pipeline)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._handle_fork)

    def use(self, pipeline: Pipeline) -> None:
        """Let all tracers, also those handed out before, make their next span for *pipeline*."""
        with self._tracers_lock:
            self.pipeline = pipeline
            self._active_span_processor = pipeline  # type: ignore[assignment]  # see __init__
            self.sampler: Sampler = pipeline.sampler or DEFAULT_ON
            self.id_generator: IdGenerator = pipeline.id_generator or EntropyIdGenerator()
            self._span_limits = pipeline.limits or SpanLimits()
            self._resource = pipeline.make_resource()
            for tracer in self._tracers.values():
                tracer.span_processor = pipeline  # type: ignore[assignment]  # see __init__
                tracer.sampler = self.sampler
                tracer.id_generator = self.id_generator
                tracer.resource = self._resource
                tracer._span_limits = self._span_limits  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

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
        """Give the child an identity of its own (called by the SDK too; the second call changes nothing)."""
        self._tracers_lock = threading.Lock()
        self.pipeline.reset_after_fork()
        self._resource = self.pipeline.make_resource()
        for tracer in self._tracers.values():
            tracer.resource = self._resource


@final
class PipelineSlot(SpanProcessor):
    """The one processor that a provider of the user's gets; what is in it changes with each `configure()`."""

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if self.pipeline is not None:
            self.pipeline.on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        if self.pipeline is not None:
            self.pipeline._on_ending(span)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def on_end(self, span: ReadableSpan) -> None:
        if self.pipeline is not None:
            self.pipeline.on_end(span)

    def shutdown(self) -> None:
        if self.pipeline is not None:
            self.pipeline.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.pipeline is None or self.pipeline.force_flush(timeout_millis)


_slots: Final[weakref.WeakKeyDictionary[SdkTracerProvider, PipelineSlot]] = weakref.WeakKeyDictionary()


def slot_of(provider: SdkTracerProvider) -> PipelineSlot:
    """Return our place among the processors of *provider*, which is the user's; taken on the first call."""
    slot = _slots.get(provider)
    if slot is None:
        slot = _slots[provider] = PipelineSlot()
        provider.add_span_processor(slot)
    return slot
