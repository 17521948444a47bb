"""What an exception says on a span: its kind, its message, its stack trace; recorded once on its way out."""

from __future__ import annotations

import os
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, NamedTuple, SupportsIndex, TypeAlias, cast, final

from opentelemetry.trace import Span
from typing_extensions import override

from tracekit._attributes import AttributeValue, message_text, text
from tracekit._config import runtime
from tracekit._context import current_context, enclosing
from tracekit._diagnostics import FORGIVEN, forgive
from tracekit._scalars import CUT, type_name
from tracekit._semconv import EVENT_EXCEPTION, EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE, EXCEPTION_TYPE
from tracekit._signature import WRAPPER_FILE

STACK_LIMIT: Final = 64 * 1024
_MAX_FRAMES: Final = 200
_MAX_CHAIN: Final = 16
_MAX_MEMBERS: Final = 1_000
_MAX_NAME: Final = 256
_MESSAGE_LIMIT: Final = 8 * 1024
STATUS_DESCRIPTION: Final = "otel.status_description"
_OWN_ROOM: Final = os.path.dirname(__file__)  # noqa: PTH120  # compared with code objects' file names, which are strings

CAUSED: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
DURING: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


def exception_type(exc: BaseException) -> str:
    """Return the fully qualified name of *exc*'s class; built-in ones have no module in front."""
    kind = type(exc)
    module, name = _module_of(kind), _qualname_of(kind)
    return text(name if module == "builtins" or type(module) is not str else f"{module}.{name}", _MAX_NAME)


# The class of a class may have attributes of its own.
_module_of: Final[Callable[[type], object]] = type.__dict__["__module__"].__get__
_qualname_of: Final[Callable[[type], str]] = type.__dict__["__qualname__"].__get__


def exception_message(exc: BaseException, limit: int) -> str:
    """Return `str(exc)` without secrets, cut to *limit* characters; a failing `__str__` gives a remark in its place."""
    try:
        message = str.__str__(str(exc))
    except BaseException as error:  # noqa: BLE001  # the user's own exception must win, whatever its __str__ does
        return f"<{type_name(type(exc))}.__str__ raised {type_name(type(error))}>"
    return message_text(EXCEPTION_MESSAGE, message, limit, runtime.settings.redactor)


def status_description(exc: BaseException, message: str, limit: int) -> str:
    """Return what the status of a span says that *exc* has left."""
    name = type_name(type(exc))
    return message_text(STATUS_DESCRIPTION, f"{name}: {message}" if message else name, limit, runtime.settings.redactor)


def record(span: Span, exc: BaseException, limit: int, attributes: dict[str, AttributeValue] | None = None) -> str:
    """
    Add the `exception` event for *exc* to *span*, unless a span that it has passed on its way here has it already.

    Returns:
        The message of *exc*, cut to *limit* characters; its `__str__` runs once for all spans it passes.

    Source: semantic conventions, exceptions/exceptions-spans.md.
    """
    context = span.get_span_context()
    mark = _mark_of(exc)
    if mark is not None and mark.trace_id == context.trace_id and context.span_id in mark.passes:
        return mark.message
    message = exception_message(exc, limit)
    span.add_event(
        EVENT_EXCEPTION,
        {
            EXCEPTION_TYPE: exception_type(exc),
            EXCEPTION_MESSAGE: message,
            EXCEPTION_STACKTRACE: stack_trace(exc, message),
            **(attributes or {}),
        },
    )
    try:
        _put_mark(exc, _Mark(context.trace_id, context.span_id, message, _passes(context.span_id)))
    except FORGIVEN as error:  # a span of another SDK
        forgive("exceptions", "marking one as recorded", error)
    return message


def recorded_in(exc: BaseException) -> tuple[int, int]:
    """Return the trace id and span id where *exc* was recorded last, zeros if it was not."""
    mark = _mark_of(exc)
    return (0, 0) if mark is None else (mark.trace_id, mark.span_id)


class _Mark(NamedTuple):
    """
    Where an exception was recorded.

    Args:
        trace_id: In which trace.
        span_id: In which span.
        message: The exception's message.
        passes: The ids of the spans it passes on its way out: that one and those around it. Raised anywhere else, it
            is on another way.
    """

    trace_id: int
    span_id: int
    message: str
    passes: frozenset[int]


def _passes(span_id: int) -> frozenset[int]:
    around = (active.span.get_span_context().span_id for active, _ in enclosing(current_context()))
    return frozenset((span_id, *around))


@final
class _Reference(weakref.ref[BaseException]):
    """Holds the mark of an exception as long as that lives."""

    __slots__ = ("key", "mark")

    key: int
    mark: _Mark


@final
class _MarkedDict(dict[str, Any]):
    """The `__dict__` of an exception that knows no weak references, and its mark; equal, printed and pickled as one."""

    __slots__ = ("mark",)

    mark: _Mark

    @override
    def __reduce_ex__(self, protocol: SupportsIndex, /) -> tuple[Any, ...]:
        return dict, (dict(self),)


# By id. Not in the exception's own `__dict__`, which programs compare, print, pickle and share.
_references: Final[dict[int, _Reference]] = {}
_Dict: TypeAlias = "dict[str, Any]"
_dict_of: Final[Callable[[BaseException], _Dict]] = BaseException.__dict__["__dict__"].__get__
_set_dict: Final[Callable[[BaseException, _Dict], None]] = BaseException.__dict__["__dict__"].__set__


def _mark_of(exc: BaseException) -> _Mark | None:
    reference = _references.get(id(exc))
    if reference is not None and reference() is exc:
        return reference.mark
    own = _dict_of(exc)
    return own.mark if type(own) is _MarkedDict else None


def _put_mark(exc: BaseException, mark: _Mark) -> None:
    try:
        reference = _Reference(exc, _forget)
    except TypeError:  # those of Python itself
        if _holders_of_dict(exc) == _NO_OTHER_HOLDERS:
            marked = _MarkedDict(_dict_of(exc))
            marked.mark = mark
            _set_dict(exc, marked)
        return
    reference.key, reference.mark = id(exc), mark
    _references[reference.key] = reference


def _forget(reference: weakref.ref[BaseException]) -> None:
    key = cast("_Reference", reference).key
    if _references.get(key) is reference:
        del _references[key]


def _holders_of_dict(exc: BaseException) -> int:
    return sys.getrefcount(_dict_of(exc))


# Whoever else holds the dict of an exception would see that no longer.
_NO_OTHER_HOLDERS: Final = _holders_of_dict(ValueError())


def stack_trace(exc: BaseException, message: str) -> str:
    """
    Return the stack trace of *exc* as Python prints it, without tracekit's own frames and without secrets.

    At most 64 kB, 200 frames an exception and 16 chained exceptions; the innermost part is kept.

    Args:
        exc: The exception.
        message: Its message, so that a slow `__str__` runs once.
    """
    try:
        whole = "".join(_formatted(exc, message))
    except FORGIVEN as error:  # source files, frames and chained exceptions are the user's
        name = type_name(type(exc))
        whole = f"<no stack trace: {type_name(type(error))}>\n{name}: {message}\n"
    redactor = runtime.settings.redactor
    if redactor.reads_values:
        # Before it is cut: what stands at the edge may be the second half of a secret.
        whole = message_text(EXCEPTION_STACKTRACE, whole, len(whole), redactor)
    if len(whole) > STACK_LIMIT:
        whole = CUT + whole[1 - STACK_LIMIT :]
    return text(whole, STACK_LIMIT)


def _formatted(exc: BaseException, message: str) -> Iterator[str]:
    for link, connector in reversed(list(_chain(exc))):
        own_message = message if link is exc else exception_message(link, _MESSAGE_LIMIT)
        if link.__traceback__ is not None:
            yield "Traceback (most recent call last):\n"
            yield from traceback.StackSummary.extract(_frames(link.__traceback__), limit=-_MAX_FRAMES).format()
        yield f"{exception_type(link)}: {own_message}\n" if own_message else f"{exception_type(link)}\n"
        for note in _list(getattr(link, "__notes__", ()))[:_MAX_CHAIN]:
            yield f"{text(note, _MESSAGE_LIMIT)}\n" if isinstance(note, str) else ""
        for number, inner in enumerate(members(link)[:_MAX_CHAIN], start=1):
            yield f"  +---------------- {number} ----------------\n"
            yield f"    {exception_type(inner)}: {exception_message(inner, _MESSAGE_LIMIT)}\n"
            if inner.__traceback__ is not None:
                for line in traceback.StackSummary.extract(_frames(inner.__traceback__), limit=-_MAX_FRAMES).format():
                    yield f"    {line}"
        yield connector


def _chain(exc: BaseException) -> Iterator[tuple[BaseException, str]]:
    """Yield *exc* and what it came from, each with the sentence that leads to the next newer one."""
    seen: set[int] = set()
    link: BaseException | None = exc
    connector = ""
    while link is not None and id(link) not in seen and len(seen) < _MAX_CHAIN:
        seen.add(id(link))
        yield link, connector
        if link.__cause__ is not None:
            link, connector = link.__cause__, CAUSED
        else:
            link, connector = (None if link.__suppress_context__ else link.__context__), DURING


def _frames(start: TracebackType) -> Iterator[tuple[Any, int]]:
    for frame, line in traceback.walk_tb(start):
        file = frame.f_code.co_filename
        is_ours = file.startswith(_OWN_ROOM) and os.path.basename(file).startswith("_")  # noqa: PTH119  # as above
        if not is_ours and file != WRAPPER_FILE:
            yield frame, line


def _list(value: object) -> list[Any]:
    return list(cast("list[Any]", value)) if isinstance(value, (list, tuple)) else []


def members(exc: BaseException) -> list[BaseException]:
    """Return the exceptions in *exc* if it is an exception group (or its backport), else none."""
    if not any(type_name(base) == "BaseExceptionGroup" for base in type.__dict__["__mro__"].__get__(type(exc))):
        return []
    return [inner for inner in _list(getattr(exc, "exceptions", ())) if issubclass(type(inner), BaseException)]


def is_cancellation(exc: BaseException) -> bool:
    """Tell whether *exc* is how asyncio, anyio or trio stop a task, or a group of nothing else."""
    cancellations = _cancellations()
    left, seen = [exc], 0
    while left and seen < _MAX_MEMBERS:
        one = left.pop()
        seen += 1
        # By type: an exception's `__class__` may be a property.
        if not issubclass(type(one), cancellations):
            inside = members(one)
            if not inside:
                return False
            left += inside
    return not left


def _cancellations() -> tuple[type[BaseException], ...]:
    # Not imported here: who has neither loop has no cancelled tasks.
    places = (("asyncio.exceptions", "CancelledError"), ("trio", "Cancelled"))
    loaded = ((sys.modules.get(module), name) for module, name in places)
    return tuple(getattr(module, name) for module, name in loaded if hasattr(module, name))
