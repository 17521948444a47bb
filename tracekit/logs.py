"""Logs and traces: the ids of the current span on log records, and log records as events of the current span."""

from __future__ import annotations

import copy
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from typing_extensions import override

from tracekit import _exceptions
from tracekit._config import runtime
from tracekit._current import add_event
from tracekit._diagnostics import report_failure
from tracekit._semconv import EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE, EXCEPTION_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from opentelemetry.trace import Span

__all__ = ["EventHandler", "add_trace_context", "install", "loguru_patcher"]

# What a format string shows for a record made outside any span.
MISSING: Final = "-"
_FIELDS: Final[tuple[str, ...]] = ("trace_id", "span_id", "trace_sampled", "service")

_LOG_EVENT: Final = "log"
_LOG_LEVEL: Final = "log.level"
_LOG_LOGGER: Final = "log.logger"
_LOG_MESSAGE: Final = "log.message"

# What these log may come from adding the very event.
_OWN_LOGGERS: Final = ("tracekit", "opentelemetry")

# A span's lock is held for microseconds; longer means that this thread holds it itself, further up.
_LOCK_TIMEOUT_S: Final = 0.1


def add_trace_context(
    logger: object,  # noqa: ARG001  # structlog's signature
    method_name: str,  # noqa: ARG001  # structlog's signature
    event_dict: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """
    Add `trace_id`, `span_id`, `trace_sampled` and `service` to a structlog event; nothing where there is no span.

    Put it before the processor that formats exceptions. In a `ProcessorFormatter` it takes the ids that the standard
    library's record has got from `install()`, since that may run on another thread.
    """
    record = event_dict.get("_record")
    if isinstance(record, logging.LogRecord) and "trace_id" in record.__dict__:
        fields = {name: record.__dict__[name] for name in _FIELDS if name in record.__dict__}
    else:
        fields = _fields(event_dict.get("exc_info"))
    _add(event_dict, fields)
    return event_dict


def loguru_patcher(record: MutableMapping[str, Any]) -> None:
    """
    Add `trace_id`, `span_id`, `trace_sampled` and `service` to a loguru record's `extra`; nothing without a span.

    For `logger.configure(patcher=loguru_patcher)`. Where a format names a field, give it a default there:
    `extra={"trace_id": "-"}`.
    """
    exception = record.get("exception")
    _add(record["extra"], _fields(getattr(exception, "value", None)))


def _add(target: MutableMapping[str, Any], fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name == "service":
            # A common name: whoever has bound it means his own.
            target.setdefault(name, value)
        else:
            target[name] = value


def install() -> Callable[[], None]:
    """
    Give each record of the standard library's `logging` the ids of the span it was made in.

    The fields are `trace_id`, `span_id`, `trace_sampled` (a bool) and `service`, taken when the record is made, so that
    they are right behind queues and on other threads. Without a span a record gets none of them, and format strings
    that name them show `-`. Fields given in `extra=` win. Works before and after `dictConfig`; a record factory that is
    there already goes on working; calling it again changes nothing.

    Returns:
        An undo.
    """
    global _undo  # noqa: PLW0603
    if _undo is None:
        _undo = _install()
    return _undo


_undo: Callable[[], None] | None = None


def _install() -> Callable[[], None]:
    make_before = logging.getLogRecordFactory()
    is_installed = True

    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_before(*args, **kwargs)
        if is_installed:
            record.__dict__.update(_fields(record.exc_info))
        return record

    logging.setLogRecordFactory(make_record)
    undo_extra = _replace(logging.Logger, "makeRecord", _allowing_our_fields_in_extra)
    undo_format = _replace(logging.Formatter, "formatMessage", _showing_missing_fields)

    def undo() -> None:
        nonlocal is_installed
        global _undo  # noqa: PLW0603
        if not is_installed:
            return
        is_installed = False
        _undo = None
        # Another factory may have been chained to this one since: then it stays, and only passes on.
        if logging.getLogRecordFactory() is make_record:
            logging.setLogRecordFactory(make_before)
        undo_extra()
        undo_format()

    return undo


def _allowing_our_fields_in_extra(original: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    """Without this, `extra={"service": ...}` would raise: a field that a record already has is refused there."""

    def makeRecord(  # noqa: N802  # the name in tracebacks
        self: logging.Logger,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Mapping[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        given: dict[str, object] = {}
        if extra:
            given = {field: extra[field] for field in _FIELDS if field in extra}
            if given:
                extra = {key: value for key, value in extra.items() if key not in given}
        record = original(self, name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)
        record.__dict__.update(given)
        return record

    return makeRecord


def _showing_missing_fields(original: Callable[..., str]) -> Callable[..., str]:
    """Without this, a format string with `%(trace_id)s` would lose each line that is logged outside a span."""

    def formatMessage(self: logging.Formatter, record: logging.LogRecord) -> str:  # noqa: N802  # as above
        try:
            return original(self, record)
        except ValueError:
            if all(field in record.__dict__ for field in _FIELDS):
                raise
        filled = copy.copy(record)
        filled.__dict__.update({**dict.fromkeys(_FIELDS, MISSING), **record.__dict__})
        return original(self, filled)

    return formatMessage


def _replace(owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[], None]:
    original = getattr(owner, name)
    replacement = make(original)
    setattr(owner, name, replacement)

    def undo() -> None:
        # Someone may have wrapped ours since: theirs must go on working.
        if getattr(owner, name) is replacement:
            setattr(owner, name, original)

    return undo


def _fields(exc_info: object) -> dict[str, Any]:
    """
    Return the fields for a log record that is made now; none where there is no span.

    A record about an exception (*exc_info*) that is made when the span has ended, as by a framework's error handler,
    belongs to the span that recorded the exception.
    """
    try:
        context = get_current_span().get_span_context()
        if context.is_valid:
            trace_id, span_id, is_sampled = context.trace_id, context.span_id, context.trace_flags.sampled
        else:
            exc = _exception_of(exc_info)
            trace_id, span_id = (0, 0) if exc is None else _exceptions.recorded_in(exc)
            is_sampled = True
        if not trace_id:
            return {}
        return {
            "trace_id": format_trace_id(trace_id),
            "span_id": format_span_id(span_id),
            "trace_sampled": is_sampled,
            "service": _service_name(),
        }
    except Exception as error:  # noqa: BLE001  # a span of another SDK, the recursion limit
        report_failure("tracekit.logs", "adding trace ids to a log record", error)
        return {}


def _exception_of(exc_info: object) -> BaseException | None:
    """Return the exception that a log call's `exc_info` means: itself, `sys.exc_info()`'s tuple, or True."""
    exc = exc_info
    if isinstance(exc_info, tuple):
        exc = cast("tuple[object, ...]", exc_info)[1]
    elif exc_info and not isinstance(exc_info, BaseException):
        exc = sys.exc_info()[1]
    return exc if isinstance(exc, BaseException) else None


def _service_name() -> str:
    resource = getattr(runtime.provider, "resource", None)
    return str(getattr(resource, "attributes", {}).get("service.name", "unknown_service"))


@final
class EventHandler(logging.Handler):
    """
    Makes each log record an event of the span that is current: `log`, with `log.level`, `log.logger`, `log.message`.

    An exception that is logged adds `exception.type` and `exception.message`, and its stack trace where the trace does
    not have it. Records of tracekit and OpenTelemetry, and records made while an event is added, are left out.

    Args:
        level: Least level of a record.
    """

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._thread = threading.local()

    @override
    def createLock(self) -> None:
        # Nothing to protect here, and a message's `__str__` may wait for a lock whose holder is logging.
        self.lock = None

    @override
    def handle(self, record: logging.LogRecord) -> bool:
        # From Python 3.12 on a filter may answer with another record.
        passed = cast("object", self.filter(record))
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] in _OWN_LOGGERS or getattr(self._thread, "is_busy", False):
            return
        self._thread.is_busy = True
        try:
            span = get_current_span()
            if span.is_recording() and not _is_locked(span):
                add_event(_LOG_EVENT, _event_attributes(record, span), timestamp_ns=int(record.created * 1e9))
        except Exception as error:  # noqa: BLE001  # what is logged is the user's: its `__str__`, its arguments
            report_failure("tracekit.logs", "making a log record an event", error)
        finally:
            self._thread.is_busy = False


def _event_attributes(record: logging.LogRecord, span: Span) -> dict[str, Any]:
    attributes = {_LOG_LEVEL: record.levelname, _LOG_LOGGER: record.name, _LOG_MESSAGE: record.getMessage()}
    exc = _exception_of(record.exc_info)
    if exc is not None:
        message = _exceptions.exception_message(exc, runtime.settings.string_limit)
        attributes[EXCEPTION_TYPE] = _exceptions.exception_type(exc)
        attributes[EXCEPTION_MESSAGE] = message
        if _exceptions.recorded_in(exc)[0] != span.get_span_context().trace_id:
            attributes[EXCEPTION_STACKTRACE] = _exceptions.stack_trace(exc, message)
    return attributes


def _is_locked(span: Span) -> bool:
    """Tell whether *span* is being changed: a `__str__` the SDK calls with the span's lock held may be what logs."""
    lock = getattr(span, "_lock", None)
    if lock is None:
        return False
    if not lock.acquire(timeout=_LOCK_TIMEOUT_S):
        return True
    lock.release()
    return False
