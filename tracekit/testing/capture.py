"""Capturing: a provider of its own that makes every span while a test runs. Only this module sets it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from tracekit._config import runtime
from tracekit.recording import EntropyIdGenerator
from tracekit.testing.spans import CapturedSpans

if TYPE_CHECKING:
    from collections.abc import Generator

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span


@contextmanager
def capture_spans() -> Generator[CapturedSpans, None, None]:
    """
    Capture every span that tracekit and what it instruments make in this process, on any thread, sampled or not.

    Independent of OpenTelemetry's global provider, of `OTEL_SDK_DISABLED` and of `configure`, also where that is called
    meanwhile.
    """
    spans = CapturedSpans()
    # The SDK's own ids come from the random numbers a test may have seeded.
    provider = TracerProvider(sampler=ALWAYS_ON, id_generator=EntropyIdGenerator(), shutdown_on_exit=False)
    # Test runs switch the SDK off by OTEL_SDK_DISABLED, and mean its exporters.
    provider._disabled = False  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # it has no argument for it
    provider.add_span_processor(_Capture(spans))
    undo = runtime.capture(provider)
    try:
        yield spans
    finally:
        undo()


@final
class _Capture(SpanProcessor):
    def __init__(self, spans: CapturedSpans) -> None:
        self._spans: Final = spans

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002  # the SDK's signature
        """Remember that *span* is open."""
        self._spans._start(span)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # of the same room

    def on_end(self, span: ReadableSpan) -> None:
        """Keep *span*."""
        self._spans._end(span)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # of the same room
