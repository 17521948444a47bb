"""What the spans of one tracer have in common, settled when the first of them starts."""

from __future__ import annotations

import os
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final, cast, final

from tracekit._stats import Counters
from tracekit.recording.guards import CountedSampler, EntropyIdGenerator
from tracekit.recording.pipeline import Pipeline

if TYPE_CHECKING:
    from collections import deque

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, SpanProcessor

    from tracekit.recording.tracer import Tracer


@final
class Course:
    """
    How the spans of *tracer* are made and where they go. A tracer whose set-up changes has another from then on.

    Args:
        tracer: An engine's tracer.
    """

    __slots__ = (
        "__weakref__",
        "counters",
        "follows_parent",
        "ids",
        "is_of_parent_process",
        "is_plain",
        "late",
        "limits",
        "most_attributes",
        "pipeline",
        "processor",
        "resource",
        "root_bound",
        "tracer",
    )

    def __init__(self, tracer: Tracer) -> None:
        self.tracer: Final = tracer
        self.resource: Resource = tracer.resource
        self.limits: SpanLimits = tracer.limits
        self.processor: SpanProcessor = cast("SpanProcessor", tracer.span_processor)
        self.is_of_parent_process = False
        _courses.add(self)

        # What follows is for `Tracer.begin_operation`.
        sampler: object = tracer.sampler
        counted = sampler if isinstance(sampler, CountedSampler) else None
        self.pipeline: Final = cast("Pipeline", self.processor)
        # Where spans wait that the stack had no room to end.
        self.late: Final[deque[Any] | None] = getattr(self.processor, "late", None)
        self.counters: Final = getattr(self.processor, "counters", None) or Counters()
        # A span with a local parent is sampled if that is; one without, if the low half of its trace id is below this.
        self.follows_parent: Final = counted is not None and counted.follows_local_parent
        self.root_bound: Final = None if counted is None else counted.root_bound
        generator: object = tracer.id_generator
        self.ids: Final = cast("EntropyIdGenerator", generator)
        most = self.limits.max_span_attributes
        self.most_attributes: Final = sys.maxsize if most is None else most
        self.is_plain: Final = (
            isinstance(self.processor, Pipeline)
            and self.follows_parent
            and type(generator) is EntropyIdGenerator
            and self.limits.max_span_attribute_length is None
            and tracer.is_enabled
            and not tracer.has_metrics
        )

    def end(self, span: Any) -> None:
        """Give *span*, which has ended, to what processes it."""
        self.processor._on_ending(span)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # a hook without public name
        self.processor.on_end(span)


_courses: Final[weakref.WeakSet[Course]] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for course in _courses:
        course.is_of_parent_process = True
        course.tracer.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
