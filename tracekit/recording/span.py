"""
The span of tracekit's engine: an SDK span to everybody else, with only the work done that its use asks for.

What it leaves out of the SDK's: a lock and a bounded mapping a span, bounded lists before there is an event or a link,
a copy of itself at its end. What it adds: durations by the monotonic clock, and no exception from a value it is given.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from time import monotonic_ns
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import Link, SpanContext, Status, StatusCode
from typing_extensions import override

from tracekit._diagnostics import report_failure
from tracekit._semconv import EVENT_EXCEPTION, EXCEPTION_TYPE
from tracekit.recording.bounded import SHARED, BoundedItems

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, SpanProcessor
    from opentelemetry.trace import SpanKind
    from opentelemetry.util.types import Attributes

    from tracekit.recording.tracer import Tracer

logger: Final = logging.getLogger("opentelemetry.sdk.trace")

UNSET: Final = Status(StatusCode.UNSET)
OK: Final = Status(StatusCode.OK)
# Values that are legal as they are, whatever the limits (strings have one).
_NUMBERS: Final = frozenset({int, bool, float})
_PLAIN: Final = frozenset({dict, MappingProxyType})
# What links are kept in before one is added.
_UNBOUNDED: Final = frozenset({tuple, list})
_warning: Final = threading.local()

# Another object in each forked child.
_this_process = object()


def _begin_in_child() -> None:
    global _this_process  # noqa: PLW0603  # there is one process
    _this_process = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


@final
class Span(SdkSpan):
    """
    A span that records.

    Args:
        name: The span's name.
        context: Its own context.
        parent: The context of its parent, None at the root of a trace.
        kind: Its kind.
        attributes: A dict of legal attributes, now the span's own.
        links: Links, legal and bounded.
        tracer: What made it; knows its scope, its limits, its resource and what processes it.
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
        "_context",
        "_dropped_attributes",
        "_end_time",
        "_events",
        "_is_open",
        "_kind",
        "_limits",
        "_links",
        "_name",
        "_parent",
        "_process",
        "_record_end_metrics",
        "_record_exception",
        "_resource",
        "_set_status_on_exception",
        "_span_processor",
        "_start_time",
        "_status",
        "_tracer",
    )

    def __init__(  # its base's is not called: that work is what this class saves
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, Any],
        links: Sequence[Link],
        tracer: Tracer,
        clock_ns: int,
        start_time: int,
        record_exception: bool,  # noqa: FBT001  # all by position: 0.2 µs less
        set_status_on_exception: bool,  # noqa: FBT001  # as above
        record_end_metrics: Callable[[], None] | None,
        dropped_attributes: int,
    ) -> None:
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes: dict[str, Any] = attributes
        self._dropped_attributes = dropped_attributes
        self._events: Any = ()
        self._links: Any = links
        self._status = UNSET
        self._tracer = tracer
        # Its own: the tracer's change when tracing is configured again.
        self._resource: Resource = tracer.resource
        self._span_processor: SpanProcessor = tracer.span_processor
        self._limits: SpanLimits = tracer.limits
        self._clock_ns = clock_ns
        self._start_time: int = start_time
        self._end_time: int | None = None
        self._record_exception = record_exception
        self._set_status_on_exception = set_status_on_exception
        self._record_end_metrics = record_end_metrics
        self._process = _this_process
        self._is_open = True

    # --- attributes -------------------------------------------------------------------------------------------------

    @override
    def set_attribute(self, key: str, value: Any) -> None:
        if self._end_time is not None:
            _warn("Setting attribute on ended span.")
            return
        attributes, limits = self._attributes, self._limits
        kind = cast("Any", type(value))
        most = limits.max_span_attributes
        if (
            (kind in _NUMBERS or (kind is str and limits.max_span_attribute_length is None))
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
        most, own = self._limits.max_span_attributes, self._attributes
        if self._end_time is None and (most is None or len(own) + len(attributes) <= most):
            own.update(attributes)
        else:
            self.set_attributes(attributes)

    def _set_checked(self, attributes: Mapping[str, Any]) -> None:
        clean = cleaned(attributes, None, self._limits.max_span_attribute_length)
        if clean is None:
            return
        self._dropped_attributes += clean.dropped
        most, own = self._limits.max_span_attributes, self._attributes
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
        limits = self._limits
        legal: Any = cleaned(attributes or {}, limits.max_event_attributes, limits.max_attribute_length)
        self._add_event(Event(name, legal, self._now_ns() if timestamp is None else timestamp))

    @override
    def _add_event(self, event: Any) -> None:
        if self._events == ():
            # Atomic: threads, and a signal handler that comes in between, all find the one list that was first.
            own = vars(self)
            self._events = own.setdefault("events", BoundedItems(self._limits.max_events))
        self._events.append(event)

    @override
    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        if self._end_time is not None:
            _warn("Tried calling %s on an ended span.", "add_link")
            return
        link = legal_link(Link(context, attributes), self._limits)
        if link is not None:
            self._add_link(link)

    @override
    def _add_link(self, link: Link) -> None:
        if type(self._links) in _UNBOUNDED:
            # As with events.
            own = vars(self)
            self._links = own.setdefault("links", _bounded(self._limits.max_links, self._links))
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
        try:
            # Atomic, without a lock: of two threads that end a span one finds nothing to delete.
            del self._is_open
        except AttributeError:
            _warn("Calling end() on an ended span.")
            return
        self._end_time = self._now_ns() if end_time is None else end_time
        if self._process is not _this_process:
            # A forked child has a copy of the spans that were open: their end is their process's to tell.
            return
        if self._record_end_metrics is not None:
            self._record_end_metrics()
        processor = self._span_processor
        processor._on_ending(self)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # a hook without public name
        processor.on_end(self)

    @property
    def is_own_and_open(self) -> bool:
        """Whether it has not ended, and this process, not the one that it was forked from, is to end it."""
        return hasattr(self, "_is_open") and self._process is _this_process

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
    def _instrumentation_scope(self) -> Any:  # type: ignore[override]  # a field there, never written again
        return self._tracer.scope

    @property
    def _instrumentation_info(self) -> Any:  # type: ignore[override]  # as above
        return self._tracer.instrumentation_info

    @property
    def _sampler(self) -> Any:  # type: ignore[override]  # as above
        return self._tracer.sampler


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


def cleaned(attributes: Mapping[str, Any], most: int | None, longest: int | None) -> BoundedAttributes | None:
    """Return *attributes* as the SDK would have them; None, and a count, where they raise."""
    try:
        return BoundedAttributes(most, attributes, immutable=True, max_value_len=longest)
    except Exception as error:  # noqa: BLE001  # user values: a `__str__` or an iterator that raises
        if len(attributes) == 1:
            report_failure("span", "an attribute", error)
            return None
    # One of several: the others need not suffer.
    kept = BoundedAttributes(most, immutable=False, max_value_len=longest)
    for key, value in dict(attributes).items():
        one = cleaned({key: value}, most, longest)
        if one:
            kept.update(one)
    return kept


def legal_attributes(attributes: Mapping[str, Any] | None, limits: SpanLimits) -> tuple[dict[str, Any], int]:
    """Return *attributes* as a dict of a span's own, within its *limits*, and how many were dropped."""
    if not attributes:
        return {}, 0
    longest, most = limits.max_span_attribute_length, limits.max_span_attributes
    # Another mapping of the user's might raise when it is read.
    is_plain = cast("Any", type(attributes)) in _PLAIN
    if is_plain and (most is None or len(attributes) <= most):
        for key, value in attributes.items():
            kind = cast("Any", type(value))
            if type(key) is not str or key == "" or not (kind in _NUMBERS or (kind is str and longest is None)):
                break
        else:
            return dict(attributes), 0
    clean = cleaned(attributes, most, longest)
    return ({}, 0) if clean is None else (dict(clean), clean.dropped)


def legal_links(links: Sequence[Link], limits: SpanLimits) -> Sequence[Link]:
    """Return those of *links* that lead somewhere or say something, within *limits*."""
    found = [legal for link in links if (legal := legal_link(link, limits)) is not None]
    return found if limits.max_links is None or len(found) <= limits.max_links else _bounded(limits.max_links, found)


def legal_link(link: object, limits: SpanLimits) -> Link | None:
    """Return *link* with legal attributes; None if it neither leads anywhere nor says anything."""
    # Users hand over anything.
    context, attributes = getattr(link, "context", None), getattr(link, "attributes", None)
    if not isinstance(context, SpanContext) or not (context.is_valid or attributes or context.trace_state):
        return None
    legal: Any = cleaned(attributes or {}, limits.max_link_attributes, limits.max_attribute_length)
    return Link(context, legal)


def _bounded(most: int | None, links: Sequence[Link]) -> Sequence[Link]:
    from_seq = cast("Callable[[int | None, Sequence[Link]], Sequence[Link]]", BoundedItems.from_seq)
    return from_seq(most, links)


def _description(exc: BaseException) -> str:
    try:
        return f"{type(exc).__name__}: {exc}"
    except Exception:  # noqa: BLE001  # a `__str__` that raises must not replace the exception
        return type(exc).__name__
