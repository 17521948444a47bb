"""`traced_block`: a span around a block of code, with `with` or `async with`."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, cast, final

from opentelemetry import trace as trace_api
from opentelemetry.trace import Span, SpanKind, TracerProvider

from tracekit._context import ACTIVE_KEY, current_context
from tracekit._naming import module_service
from tracekit._operation import Kind, Operation, Options
from tracekit._span import ActiveSpan, start


@final
class traced_block:  # noqa: N801  # reads as a verb where it is used
    """
    Trace a block: `with traced_block("payments.charge", {"order.id": 7}) as span:`; `async with` works alike.

    Each use makes a new span; one object can be entered again, also from inside itself.

    Args:
        name: Used as it is if it has a dot; else the operation of the enclosing traced operation's service, or of the
            calling module's.
        attributes: Keys to values, given at the start of the span.
        service: What stands before the dot.
        kind: A `SpanKind` or its name in lower case.
        expected: Exception classes that are recorded but leave the status unset.
        record_exception: Whether an exception adds an event.
        set_status: Whether the outcome sets the status.
        root: Start a new trace, linked to the current one.
        parent: Continue the trace of this carrier or context.
        links: Carriers, contexts or spans to link to.
        sample: Ratio of the traces begun here that are kept, from 0.0 to 1.0.
        tracer_provider: Make the span with this provider, whatever `configure` has set.
        enabled: False makes no span.

    Raises:
        InstrumentationError: An option is wrong.

    Source: OpenTelemetry specification, trace/api.md#span.
    """

    __slots__ = ("_attributes", "_entered", "_name", "_operation", "_options", "_takes_service")

    def __init__(
        self,
        name: str,
        attributes: Mapping[str, Any] | None = None,
        *,
        service: str | None = None,
        kind: SpanKind | Kind = SpanKind.INTERNAL,
        expected: type[BaseException] | tuple[type[BaseException], ...] = (),
        record_exception: bool = True,
        set_status: bool = True,
        root: bool = False,
        parent: Any = None,
        links: Any = None,
        sample: float | None = None,
        tracer_provider: TracerProvider | None = None,
        enabled: bool = True,
    ) -> None:
        self._name = name
        self._attributes = attributes
        # Only a name without a dot asks where it stands.
        self._takes_service = service is None and "." not in str(name)
        self._options = (
            module_service(_calling_module()) if self._takes_service else service,
            kind,
            expected,
            record_exception,
            set_status,
            root,
            parent,
            links,
            sample,
            tracer_provider,
            enabled,
        )
        self._operation = _operation_of(name, self._options)
        # Each with the thread that has entered it.
        self._entered: dict[ActiveSpan, int] = {}

    def __enter__(self) -> Span:
        if not self._options[-1]:
            return trace_api.INVALID_SPAN
        operation = self._operation
        if self._takes_service:
            enclosing = current_context().get(ACTIVE_KEY)
            if isinstance(enclosing, ActiveSpan) and enclosing.service:
                operation = _operation_of(self._name, (enclosing.service, *self._options[1:]))
        active = (operation.begin or start)(operation, (), self._attributes)
        if active is None:
            # Below a span that is not sampled: that one.
            return trace_api.get_current_span()
        self._entered[active] = threading.get_ident()
        return active.span

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._entered:
            return
        # Entered more than once, perhaps by several threads or tasks: the one that is current here ends.
        current = current_context().get(ACTIVE_KEY)
        if isinstance(current, ActiveSpan) and self._entered.pop(current, False):
            current.finish(exc)
            return
        # Something else has made itself current meanwhile: the last one that this thread has entered.
        thread = threading.get_ident()
        entered = [active for active, ident in list(self._entered.items()) if ident == thread]
        active = entered[-1] if entered else next(reversed(list(self._entered)), None)
        if active is not None and self._entered.pop(active, False):
            active.finish(exc)

    async def __aenter__(self) -> Span:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def _calling_module() -> str:
    frame = inspect.currentframe()
    for _ in range(2):
        frame = None if frame is None else frame.f_back
    return "main" if frame is None else str(frame.f_globals.get("__name__", "main"))


def _operation_of(name: str, options: tuple[Any, ...]) -> Operation:
    # Carriers, contexts and spans are of one use only, and not to be kept alive.
    if options[_PARENT] is not None or options[_LINKS] is not None:
        return _compiled(name, *options)
    try:
        return _cached(name, *options)
    except TypeError:  # something wrong that has no hash
        return _compiled(name, *options)


def _compiled(name: str, *options: Any) -> Operation:
    return Operation(None, name, "", cast("Options", dict(zip(_OPTIONS, options, strict=True))))


_OPTIONS: Final = (
    "service",
    "kind",
    "expected",
    "record_exception",
    "set_status",
    "root",
    "parent",
    "links",
    "sample",
    "tracer_provider",
    "enabled",
)
_PARENT: Final = _OPTIONS.index("parent")
_LINKS: Final = _OPTIONS.index("links")
# Compiling an operation takes 10 µs. Bounded, as a program may make names at run time.
_cached: Final = functools.lru_cache(maxsize=1_024, typed=True)(_compiled)
