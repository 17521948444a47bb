"""
The span of tracekit's engine: an SDK span to everybody else, with only the work done that its use asks for.

What it leaves out of the SDK's: a lock and a bounded mapping a span, bounded lists before there is an event or a link,
a copy of itself at its end. What it adds: durations by the monotonic clock, and no exception from a value it is given.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from typing_extensions import override

from tracekit._diagnostics import report_failure
from tracekit._semconv import EVENT_EXCEPTION, EXCEPTION_TYPE
from tracekit.recording.bounded import SHARED, BoundedItems
from tracekit.recording.legal import NUMBERS, bounded_links, cleaned, legal_link

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits
    from opentelemetry.trace import SpanKind, TraceState
    from opentelemetry.util.types import Attributes

    from tracekit.recording.course import Course

logger: Final = logging.getLogger("opentelemetry.sdk.trace")

TRACE_IDS: Final = 1 << 128
SPAN_IDS: Final = 1 << 64
# What SpanContext() does after its checks, at half of its 0.5 µs.
new_context: Final = cast("Callable[[type[SpanContext], tuple[object, ...]], SpanContext]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]

SAMPLED: Final = TraceFlags.SAMPLED
RANDOM: Final = TraceFlags.RANDOM_TRACE_ID
# One object for each value: making one takes 0.1 µs.
FLAGS: Final = tuple(TraceFlags(value) for value in range(4))

UNSET: Final = Status(StatusCode.UNSET)
OK: Final = Status(StatusCode.OK)
# What links are kept in before one is added.
_UNBOUNDED: Final = frozenset({tuple, list})
_warning: Final = threading.local()


class Span(SdkSpan):
    """
    A span that records.

    Args:
        name: The span's name.
        trace_id: Its trace.
        span_id: Its own id.
        trace_flags: Its flags.
        trace_state: Its trace state.
        parent: The context of its parent, None at the root of a trace.
        kind: Its kind.
        attributes: A dict of legal attributes, now the span's own.
        links: Links, legal and bounded.
        course: What it has in common with the spans of its tracer: limits, resource, what processes it.
        clock_ns: What to add to the monotonic clock for the time of day.
        start_time: Nanoseconds since the epoch.
        record_exception: Whether an exception that leaves a `with` block is recorded.
        set_status_on_exception: Whether it sets the status.
        record_end_metrics: Called at the end.

    Source: OpenTelemetry specification, trace/sdk.md#span.
    """

    __slots__ = (
        "_attributes",
        "_clock_ns",
        "_course",
        "_dropped_attributes",
        "_end_time",
        "_events",
        "_is_open",
        "_kind",
        "_links",
        "_made_context",
        "_name",
        "_parent",
        "_record_end_metrics",
        "_record_exception",
        "_set_status_on_exception",
        "_span_id",
        "_start_time",
        "_status",
        "_trace_flags",
        "_trace_id",
        "_trace_state",
    )

    def __init__(  # its base's is not called: that work is what this class saves
        self,
        name: str,
        trace_id: int,
        span_id: int,
        trace_flags: TraceFlags,
        trace_state: TraceState,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, Any],
        links: Sequence[Link],
        course: Course,
        clock_ns: int,
        start_time: int,
        record_exception: bool,  # noqa: FBT001  # all by position: 0.2 µs less
        set_status_on_exception: bool,  # noqa: FBT001  # as above
        record_end_metrics: Callable[[], None] | None,
        dropped_attributes: int,
    ) -> None:
        self._name = name
        self._trace_id = trace_id
        self._span_id = span_id
        self._trace_flags = trace_flags
        self._trace_state = trace_state
        self._made_context: SpanContext | None = None
        self._parent = parent
        self._kind = kind
        self._attributes: dict[str, Any] = attributes
        self._dropped_attributes = dropped_attributes
        self._events: Any = ()
        self._links: Any = links
        self._status = UNSET
        # Its own: the tracer's is another when tracing is configured again.
        self._course = course
        self._clock_ns = clock_ns
        self._start_time: int = start_time
        self._end_time: int | None = None
        self._record_exception = record_exception
        self._set_status_on_exception = set_status_on_exception
        self._record_end_metrics = record_end_metrics
        self._is_open = True

    # --- its context ------------------------------------------------------------------------------------------------

    @property
    def _context(self) -> SpanContext:
        # Made when somebody asks: most spans are leaves, whose ids only the exporter reads. 0.15 µs less for those.
        made = self._made_context
        if made is None:
            trace_id, span_id = self._trace_id, self._span_id
            is_valid = 0 < trace_id < TRACE_IDS and 0 < span_id < SPAN_IDS
            made = new_context(SpanContext, (trace_id, span_id, False, self._trace_flags, self._trace_state, is_valid))
            self._made_context = made
        return made

    @_context.setter
    def _context(self, context: SpanContext) -> None:
        self._made_context = context
        self._trace_id, self._span_id = context.trace_id, context.span_id
        self._trace_flags, self._trace_state = context.trace_flags, context.trace_state

    @override
    def get_span_context(self) -> SpanContext:
        return self._context

    # --- attributes -------------------------------------------------------------------------------------------------

    @override
    def set_attribute(self, key: str, value: Any) -> None:
        if self._end_time is not None:
            _warn("Setting attribute on ended span.")
            return
        attributes, limits = self._attributes, self._course.limits
        kind = cast("Any", type(value))
        most = limits.max_span_attributes
        if (
            (kind in NUMBERS or (kind is str and limits.max_span_attribute_length is None))
            and type(key) is str
            and key
            and (most is None or len(attributes) < most)
        ):
            # Out and in again: the order is that of the last write, as the SDK has it.
            attributes.pop(key, None)
            attributes[key] = value
        else:
            self._set_checked({key: value})

    @override
    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        if self._end_time is not None:
            _warn("Setting attribute on ended span.")
            return
        self._set_checked(attributes)

    def set_legal_attributes(self, attributes: dict[str, Any]) -> None:
        """Set *attributes*, whose keys and values are known to be legal; not for spans of few attributes by limit."""
        most, own = self._course.limits.max_span_attributes, self._attributes
        if self._end_time is None and (most is None or len(own) + len(attributes) <= most):
            own.update(attributes)
        else:
            self.set_attributes(attributes)

    def _set_checked(self, attributes: Mapping[str, Any]) -> None:
        clean = cleaned(attributes, None, self._course.limits.max_span_attribute_length)
        if clean is None:
            return
        self._dropped_attributes += clean.dropped
        most, own = self._course.limits.max_span_attributes, self._attributes
        if most == 0:
            self._dropped_attributes += len(clean)
            return
        for key, value in clean.items():
            own.pop(key, None)
            if most is not None and len(own) >= most:
                if not self._dropped_attributes:
                    _warn("A span has %d attributes, as many as it may; its oldest ones are dropped.", most)
                self._drop_oldest()
            own[key] = value

    def _drop_oldest(self) -> None:
        self._dropped_attributes += 1
        with suppress(RuntimeError, StopIteration):  # another thread, or a signal handler, has just dropped it
            self._attributes.pop(next(iter(self._attributes)), None)

    @property
    @override
    def dropped_attributes(self) -> int:
        return self._dropped_attributes

    # --- events and links -------------------------------------------------------------------------------------------

    @override
    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        if self._end_time is not None:
            _warn("Tried calling %s on an ended span.", "add_event")
            return
        limits = self._course.limits
        legal: Any = cleaned(attributes or {}, limits.max_event_attributes, limits.max_attribute_length)
        self._add_event(Event(name, legal, self._now_ns() if timestamp is None else timestamp))

    @override
    def _add_event(self, event: Any) -> None:
        if self._events == ():
            # Atomic: threads, and a signal handler that comes in between, all find the one list that was first.
            own = vars(self)
            self._events = own.setdefault("events", BoundedItems(self._course.limits.max_events))
        self._events.append(event)

    @override
    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        if self._end_time is not None:
            _warn("Tried calling %s on an ended span.", "add_link")
            return
        link = legal_link(Link(context, attributes), self._course.limits)
        if link is not None:
            self._add_link(link)

    @override
    def _add_link(self, link: Link) -> None:
        if type(self._links) in _UNBOUNDED:
            # As with events.
            own = vars(self)
            self._links = own.setdefault("links", bounded_links(self._course.limits.max_links, self._links))
        self._links.append(link)

    # --- name, status, exceptions -----------------------------------------------------------------------------------

    @override
    def update_name(self, name: str) -> None:
        if self._end_time is not None:
            _warn("Tried calling %s on an ended span.", "update_name")
            return
        self._name = name

    @override
    def is_recording(self) -> bool:
        return self._end_time is None

    @override
    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if self._end_time is not None:
            _warn("Tried calling %s on an ended span.", "set_status")
            return
        code = status.status_code if isinstance(status, Status) else status
        # OK is final, and UNSET is nobody's wish.
        if self._status.status_code is StatusCode.OK or code is StatusCode.UNSET:
            return
        if isinstance(status, Status):
            if description is not None:
                _warn("A description beside a Status is ignored: give a StatusCode and the description")
            self._status = status
        elif code is StatusCode.OK and description is None:
            self._status = OK
        elif code in StatusCode:
            self._status = Status(code, description)

    @override
    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        try:
            super().record_exception(exception, attributes, timestamp, escaped)
        except Exception as error:  # noqa: BLE001  # a `__str__` that raises
            report_failure("span", "record_exception", error)
            self.add_event(EVENT_EXCEPTION, {EXCEPTION_TYPE: type(exception).__qualname__}, timestamp)

    @override
    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        if exc_val is not None and self.is_recording():
            if self._record_exception:
                self.record_exception(exc_val, escaped=True)
            if self._set_status_on_exception:
                self.set_status(StatusCode.ERROR, _description(exc_val))
        self.end()

    # --- start and end ----------------------------------------------------------------------------------------------

    @override
    def start(self, start_time: int | None = None, parent_context: Any = None) -> None:
        _warn("Calling start() on a started span.")

    @override
    def end(self, end_time: int | None = None) -> None:
        # First: the stack may have no room for it, and then nothing has happened.
        now_ns = self._now_ns() if end_time is None else end_time
        try:
            # Atomic, without a lock: of two threads that end a span one finds nothing to delete.
            del self._is_open
        except AttributeError:
            _warn("Calling end() on an ended span.")
            return
        self._end_time = now_ns
        course = self._course
        if course.is_of_parent_process:
            # A forked child has a copy of the spans that were open: their end is their process's to tell.
            return
        try:
            if self._record_end_metrics is not None:
                self._record_end_metrics()
            course.end(self)
        except RecursionError:
            if course.late is None:
                raise
            course.late.append(self)
            course.pipeline.end = course.pipeline.end_late

    @property
    def is_own_and_open(self) -> bool:
        """Whether it has not ended, and this process, not the one that it was forked from, is to end it."""
        return hasattr(self, "_is_open") and not self._course.is_of_parent_process

    def _now_ns(self) -> int:
        return self._clock_ns + monotonic_ns()

    # --- what the SDK keeps in fields -------------------------------------------------------------------------------

    @property
    def clock_ns(self) -> int:
        """What to add to the monotonic clock for the time of day: the same in all spans below this one."""
        return self._clock_ns

    @property
    def _lock(self) -> threading.RLock:  # type: ignore[override]  # one lock for all
        return SHARED.lock

    @property
    def _limits(self) -> SpanLimits:  # as above, never written again
        return self._course.limits

    @property
    def _resource(self) -> Resource:  # type: ignore[override]  # as above
        return self._course.resource

    @property
    def _span_processor(self) -> Any:  # type: ignore[override]  # as above
        return self._course.processor

    @property
    def _instrumentation_scope(self) -> Any:  # type: ignore[override]  # as above
        return self._course.tracer.scope

    @property
    def _instrumentation_info(self) -> Any:  # type: ignore[override]  # as above
        return self._course.tracer.instrumentation_info

    @property
    def _sampler(self) -> Any:  # type: ignore[override]  # as above
        return self._course.tracer.sampler


def _warn(message: str, *args: object) -> None:
    # A log handler may be about to do again what it is warned of.
    if getattr(_warning, "now", False):
        return
    _warning.now = True
    try:
        logger.warning(message, *args, stacklevel=3)
    except Exception as error:  # noqa: BLE001  # a log handler of the user's
        report_failure("span", "a warning", error)
    finally:
        _warning.now = False


def _description(exc: BaseException) -> str:
    try:
        return f"{type(exc).__name__}: {exc}"
    except Exception:  # noqa: BLE001  # a `__str__` that raises must not replace the exception
        return type(exc).__name__
