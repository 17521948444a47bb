"""Making and delivering spans: the process's provider, and the pipeline its spans go through."""

from __future__ import annotations

from tracekit.recording.baggage import BaggageAttributes
from tracekit.recording.guards import CountedSampler, EntropyIdGenerator, GuardedIdGenerator
from tracekit.recording.incomplete import end_open_spans
from tracekit.recording.pipeline import Pipeline
from tracekit.recording.provider import PipelineSlot, TracerProvider, mirror_of, slot_of

__all__ = [
    "BaggageAttributes",
    "CountedSampler",
    "EntropyIdGenerator",
    "GuardedIdGenerator",
    "Pipeline",
    "PipelineSlot",
    "TracerProvider",
    "end_open_spans",
    "mirror_of",
    "slot_of",
]
