"""
SQLAlchemy: one client span for each statement sent to a database, on any engine, sync or async, whenever it was made.

Listeners of our own, because the official instrumentation refuses SQLAlchemy 2.1 (it supports < 2.1.0). Forced upon
2.1.9 it traces no engine made by a `create_engine` that was imported before, makes one span a row of a bulk insert
and one for each connection taken from the pool, and takes engines only once.
"""

from __future__ import annotations

import re
from functools import lru_cache
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from weakref import WeakKeyDictionary, WeakSet

import sqlalchemy
from opentelemetry import context as context_api
from opentelemetry.trace import SpanKind, Status, StatusCode
from sqlalchemy import event
from sqlalchemy.engine import Engine
from typing_extensions import override

from tracekit._attributes import text
from tracekit._config import runtime
from tracekit._diagnostics import report_failure
from tracekit._exceptions import exception_message, exception_type, is_cancellation
from tracekit._semconv import ERROR_TYPE, EVENT_CANCELLED
from tracekit._version import __version__
from tracekit.errors import InstrumentationError
from tracekit.instrumentation.provider import following_provider
from tracekit.instrumentation.wiring import Instrumented, Wiring, check_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.metadata import EntryPoint

    from sqlalchemy.engine import Connection, ExceptionContext

# Source: semantic conventions, database/database-spans.md.
DB_SYSTEM_NAME: Final = "db.system.name"
DB_NAMESPACE: Final = "db.namespace"
DB_COLLECTION_NAME: Final = "db.collection.name"
DB_OPERATION_NAME: Final = "db.operation.name"
DB_OPERATION_BATCH_SIZE: Final = "db.operation.batch.size"
DB_QUERY_TEXT: Final = "db.query.text"
DB_RESPONSE_STATUS_CODE: Final = "db.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

_SYSTEMS: Final = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
_BACKSLASH_SYSTEMS: Final = frozenset({"mysql", "mariadb"})

# In the ExecutionContext's __dict__: when the statement was sent.
_STARTED: Final = "_tracekit_started"
_LONGEST_PARSED: Final = 4_096

_COMMENTS: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_OPERATION: Final = re.compile(r"[\s(]*(\w+)")
_NAME: Final = r'(?:"[^"]+"|`[^`]+`|\[[^\]]+\]|[\w$]+)'
_TARGET: Final = re.compile(
    rf"\b(?:FROM|INTO|UPDATE|JOIN|(?:TABLE|VIEW)(?:\s+IF(?:\s+NOT)?\s+EXISTS)?)\s+(?!SELECT\b)({_NAME}(?:\.{_NAME})*)",
    re.IGNORECASE,
)
_NUMBER: Final = r"(?<![\w$:.\"`])[+-]?(?:0x[0-9a-f]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?)\b"
_LITERAL: Final = re.compile(rf"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|{_NUMBER}", re.IGNORECASE | re.DOTALL)
_BACKSLASH_LITERAL: Final = re.compile(
    rf"'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\"|{_NUMBER}", re.IGNORECASE | re.DOTALL
)

_tracer: Final = following_provider.get_tracer("tracekit.instrumentation.sqlalchemy", __version__)
_engine_attributes: Final[WeakKeyDictionary[Engine, dict[str, Any]]] = WeakKeyDictionary()


class _Statement(NamedTuple):
    """What was sent: *has_parameters* if values were sent apart, *batch* is for how many sets of them."""

    text: str
    has_parameters: bool
    batch: int = 1


@final
class SQLAlchemyWiring(Wiring):
    """Our listeners, on the `Engine` class or on single engines."""

    __slots__ = ("_all", "_engines", "_version")

    def __init__(self) -> None:
        self._all = False
        self._engines: WeakSet[Engine] = WeakSet()
        self._version = f"tracekit {__version__} on sqlalchemy {sqlalchemy.__version__}"

    @property
    @override
    def state(self) -> Instrumented:
        return Instrumented("sqlalchemy", self._all or bool(self._engines), self._version)

    @override
    def wire(self, options: dict[str, Any]) -> Instrumented:
        check_call("sqlalchemy", _given, **options)
        engines = _given(**options)
        if engines is None:
            if not self._all:
                _listen(Engine, event.listen)
                self._all = True
        else:
            for engine in engines:
                if engine not in self._engines:
                    _listen(engine, event.listen)
                    self._engines.add(engine)
        return self.state

    @override
    def unwire(self, options: dict[str, Any]) -> None:
        check_call("sqlalchemy", _given, **options)
        engines = _given(**options)
        for engine in list(self._engines) if engines is None else engines:
            if engine in self._engines:
                self._engines.discard(engine)
                _listen(engine, event.remove)
        if engines is None and self._all:
            self._all = False
            _listen(Engine, event.remove)


def make_wiring(_entry_point: EntryPoint | None) -> SQLAlchemyWiring:
    """Return the wiring of SQLAlchemy."""
    return SQLAlchemyWiring()


def _given(*, engine: Any = None, engines: Iterable[Any] | None = None) -> list[Engine] | None:
    """Return the sync engines behind *engine* and *engines*, or None for all engines."""
    given = [*([] if engine is None else [engine]), *(engines or [])]
    if engine is None and engines is None:
        return None
    found = [getattr(each, "sync_engine", each) for each in given]
    for each in found:
        if not isinstance(each, Engine):
            msg = (
                f"instrument('sqlalchemy') was given a {type(each).__name__}; expected an Engine or AsyncEngine. "
                "Write instrument('sqlalchemy', engine=engine)."
            )
            raise InstrumentationError(msg)
    return found


def _listen(target: Any, do: Callable[[Any, str, Any], None]) -> None:
    """Add or remove the listeners of *target*."""
    do(target, "before_cursor_execute", _before_cursor_execute)
    do(target, "after_cursor_execute", _after_cursor_execute)
    do(target, "after_execute", _after_execute)
    do(target, "handle_error", _handle_error)


# A listener that raises fails the statement, so each keeps its failures to itself.


def _before_cursor_execute(*arguments: Any) -> None:
    context = arguments[4]
    # A bulk insert sends several statements; it began with the first.
    if context is not None and _STARTED not in _state(context):
        _state(context)[_STARTED] = (time_ns(), perf_counter_ns())


def _after_cursor_execute(
    conn: Connection, _cursor: Any, statement: str, parameters: Any, context: Any, executemany: Any
) -> None:
    if context is not None and not _is_bulk_insert(context):
        _end(conn, context, _Statement(statement, bool(parameters), len(parameters) if executemany else 1))


def _after_execute(conn: Connection, *arguments: Any) -> None:
    context: Any = getattr(arguments[-1], "context", None)
    if context is not None and _STARTED in _state(context):
        _end(conn, context, _bulk_insert(context))


def _handle_error(failure: ExceptionContext) -> None:
    context: Any = failure.execution_context
    if context is not None and failure.connection is not None:
        if _is_bulk_insert(context):
            sent = _bulk_insert(context)
        else:
            sent = _Statement(failure.statement or "", bool(failure.parameters))
        _end(failure.connection, context, sent, failure.original_exception)


def _state(context: object) -> dict[str, Any]:
    return context.__dict__


def _is_bulk_insert(context: Any) -> bool:
    style = getattr(context, "execute_style", None)
    return style is not None and style.name == "INSERTMANYVALUES"


def _bulk_insert(context: Any) -> _Statement:
    return _Statement(context.statement, has_parameters=True, batch=len(context.compiled_parameters))


def _end(conn: Connection, context: Any, sent: _Statement, error: BaseException | None = None) -> None:
    """
    Make the span of a statement that has come back.

    Only now, with the start it had: nothing runs inside it, and by now it is known whether the official
    instrumentation traced the same statement.
    """
    try:
        started: tuple[int, int] | None = _state(context).pop(_STARTED, None)
        tracer = _tracer.current
        if started is None or tracer is None or "_otel_span" in _state(context) or _is_suppressed():
            return
        start_time_ns, start_ns = started
        name, attributes = _description(conn.engine, sent)
        span = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, start_time=start_time_ns)
        if error is not None and span.is_recording():
            _set_error(span, error)
        span.end(start_time_ns + perf_counter_ns() - start_ns)
    except Exception as failure:  # noqa: BLE001  # the statement's outcome is the user's
        report_failure("tracekit.instrumentation", "sqlalchemy", failure)


def _is_suppressed() -> bool:
    return bool(
        context_api.get_value("suppress_instrumentation")
        or context_api.get_value(context_api._SUPPRESS_INSTRUMENTATION_KEY)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # what all instrumentations read
    )


def _set_error(span: Any, error: BaseException) -> None:
    if is_cancellation(error):
        span.add_event(EVENT_CANCELLED)
        return
    # The driver's exception: SQLAlchemy's own message has the parameters in it.
    message = exception_message(error, runtime.settings.string_limit)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {message}"))
    span.set_attribute(ERROR_TYPE, exception_type(error))
    for name in ("sqlstate", "pgcode", "sqlite_errorname", "errno"):
        code = getattr(error, name, None)
        if isinstance(code, (str, int)):
            span.set_attribute(DB_RESPONSE_STATUS_CODE, str(code))
            return


def _description(engine: Engine, sent: _Statement) -> tuple[str, dict[str, Any]]:
    """Return the span's name and attributes."""
    fixed = _engine_attributes.get(engine)
    if fixed is None:
        fixed = _engine_attributes[engine] = _attributes_of(engine)
    system = fixed[DB_SYSTEM_NAME]
    operation, target, shown = _parsed(sent.text[:_LONGEST_PARSED], sent.has_parameters, system in _BACKSLASH_SYSTEMS)
    attributes = {**fixed, DB_QUERY_TEXT: text(shown, runtime.settings.string_limit)}
    if target:
        attributes[DB_COLLECTION_NAME] = target
    if sent.batch > 1:
        attributes[DB_OPERATION_BATCH_SIZE] = sent.batch
        operation = f"BATCH {operation}"
    attributes[DB_OPERATION_NAME] = operation
    return (f"{operation} {target}" if target else operation or system), attributes


def _attributes_of(engine: Engine) -> dict[str, Any]:
    url, system = engine.url, engine.dialect.name
    known = {
        DB_SYSTEM_NAME: _SYSTEMS.get(system, system),
        DB_NAMESPACE: url.database,
        SERVER_ADDRESS: url.host,
        SERVER_PORT: url.port,
    }
    return {key: value for key, value in known.items() if value}


@lru_cache(maxsize=512)
def _parsed(statement: str, has_parameters: bool, has_backslashes: bool) -> tuple[str, str, str]:  # noqa: FBT001  # a key
    """
    Return the operation, its first table, and the text to show: without literals where the values may be in the text.

    Args:
        statement: SQL, at most 4,096 characters.
        has_parameters: Its values are sent apart.
        has_backslashes: Its dialect escapes with backslashes, and has strings in double quotes.
    """
    bare = (_BACKSLASH_LITERAL if has_backslashes else _LITERAL).sub("?", _COMMENTS.sub(" ", statement))
    operation, target = _OPERATION.match(bare), _TARGET.search(bare)
    return (
        operation[1].upper() if operation else "",
        target[1].translate(_UNQUOTED) if target else "",
        statement if has_parameters else bare.strip(),
    )


_UNQUOTED: Final = str.maketrans("", "", '"`[]')
