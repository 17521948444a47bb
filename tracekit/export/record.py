"""A span as readers of traces see it, wherever it comes from: this process, a file, another service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, final

from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanKind, StatusCode

from tracekit._semconv import EVENT_EXCEPTION, EXCEPTION_MESSAGE, EXCEPTION_TYPE

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link

StatusName = Literal["unset", "ok", "error"]
KindName = Literal["internal", "server", "client", "producer", "consumer"]

_MAX_TIME_NS: Final = 2**63
_STATUS: Final[dict[object, StatusName]] = {StatusCode.OK: "ok", StatusCode.ERROR: "error"}
_KIND: Final[dict[object, KindName]] = {
    SpanKind.SERVER: "server",
    SpanKind.CLIENT: "client",
    SpanKind.PRODUCER: "producer",
    SpanKind.CONSUMER: "consumer",
}


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@final
@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event of a span."""

    name: str
    time_ns: int = 0
    attributes: Mapping[str, Any] = field(default_factory=_nothing)

    @property
    def exception(self) -> str:
        """What was raised, as `Type: message` with the type's short name; empty for other events."""
        kind = self.attributes.get(EXCEPTION_TYPE) if self.name == EVENT_EXCEPTION else None
        if not isinstance(kind, str):
            return ""
        message = self.attributes.get(EXCEPTION_MESSAGE)
        short = kind.rpartition(".")[2]
        return f"{short}: {message}" if isinstance(message, str) and message else short


@final
@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A link of a span; ids are lower-case hex."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any] = field(default_factory=_nothing)


@final
@dataclass(frozen=True, slots=True)
class SpanRecord:
    """
    One span, read-only.

    Args:
        trace_id: 32 lower-case hex digits.
        span_id: 16 lower-case hex digits.
        name: The span's name.
        parent_id: 16 lower-case hex digits, or None for the root of the trace.
        parent_is_remote: Whether the parent belongs to another process.
        start_time_ns: Nanoseconds since the epoch.
        end_time_ns: Nanoseconds since the epoch, or None while the span is open.
        attributes: Its attributes.
        events: Its events, in order.
        links: Its links, in order.
        status: "unset", "ok" or "error".
        description: What the status says about an error.
        service: The `service.name` of its resource.
        kind: Whether it serves a request, makes one, or neither.
        resource: The attributes of what made it: the service, the process, the host.
        scope: The name and version of the instrumentation that made it.
    """

    trace_id: str
    span_id: str
    name: str
    parent_id: str | None = None
    parent_is_remote: bool = False
    start_time_ns: int = 0
    end_time_ns: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=_nothing)
    events: tuple[EventRecord, ...] = ()
    links: tuple[LinkRecord, ...] = ()
    status: StatusName = "unset"
    description: str = ""
    service: str = ""
    kind: KindName = "internal"
    resource: Mapping[str, Any] = field(default_factory=_nothing)
    scope: str = ""

    @property
    def duration_ns(self) -> int | None:
        """Nanoseconds from start to end, None while the span is open."""
        return None if self.end_time_ns is None else self.end_time_ns - self.start_time_ns

    @classmethod
    def of(cls, span: ReadableSpan) -> SpanRecord:
        """
        Read *span*; of an open span only what never changes is read.

        Reading the attributes of a live span takes its lock, which the interrupted caller of a signal handler may hold.
        """
        context, parent, end_time = span.context or INVALID_SPAN_CONTEXT, span.parent, span.end_time
        ended = end_time is not None
        return cls(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            name=_text(span.name),
            parent_id=None if parent is None else f"{parent.span_id:016x}",
            parent_is_remote=parent is not None and parent.is_remote,
            start_time_ns=_time_ns(span.start_time),
            end_time_ns=_time_ns(end_time) if ended else None,
            attributes=dict(span.attributes or ()) if ended else {},
            events=tuple(map(_event, span.events)) if ended else (),
            links=tuple(map(_link, span.links)) if ended else (),
            status=_STATUS.get(span.status.status_code, "unset"),
            description=_text(span.status.description or ""),
            service=_text(span.resource.attributes.get("service.name", "")),
            kind=_KIND.get(span.kind, "internal"),
            resource=span.resource.attributes,
            scope=_scope(span.instrumentation_scope),
        )


def _event(event: Event) -> EventRecord:
    return EventRecord(_text(event.name), _time_ns(event.timestamp), dict(event.attributes or ()))


def _link(link: Link) -> LinkRecord:
    return LinkRecord(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}", dict(link.attributes or ()))


def _scope(scope: InstrumentationScope | None) -> str:
    return "" if scope is None else " ".join(_text(part) for part in (scope.name, scope.version) if part)


# The SDK takes any object for a name or a time and keeps it.
def _text(value: object) -> str:
    return str.__str__(value) if isinstance(value, str) else f"<{type(value).__name__}>"


def _time_ns(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) and value == value and abs(value) < 2**63 else 0  # noqa: PLR0124  # NaN
