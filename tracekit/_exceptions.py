"""What an exception says on a span: its kind, its message, its stack trace; each exception is recorded once a trace."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, cast

from opentelemetry.trace import Span

from tracekit._attributes import AttributeValue, text
from tracekit._semconv import EVENT_EXCEPTION, EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE, EXCEPTION_TYPE

STACK_LIMIT: Final = 64 * 1024
_MAX_FRAMES: Final = 200
_MAX_CHAIN: Final = 16
# Kept in the exception's own __dict__, as a pair of ints: it follows the exception through threads, tasks and pickles.
_RECORDED_IN: Final = "__tracekit_recorded_in__"
_OWN_ROOM: Final = os.path.dirname(__file__)  # noqa: PTH120  # compared with code objects' file names, which are strings

CAUSED: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
DURING: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


def exception_type(exc: BaseException) -> str:
    """Return the fully qualified name of *exc*'s class; built-in ones have no module in front."""
    kind = type(exc)
    module = str(kind.__module__)
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def exception_message(exc: BaseException, limit: int) -> str:
    """Return `str(exc)`, cut to *limit* characters; a failing `__str__` gives a remark in its place."""
    try:
        return text(str.__str__(str(exc)), limit)
    except BaseException as error:  # noqa: BLE001  # the user's own exception must win, whatever its __str__ does
        return f"<{type(exc).__name__}.__str__ raised {type(error).__name__}>"


def record(span: Span, exc: BaseException, message: str, attributes: dict[str, AttributeValue] | None = None) -> None:
    """
    Add the `exception` event for *exc* to *span*, unless this trace has it already.

    Source: semantic conventions, exceptions/exceptions-spans.md.
    """
    trace_id = span.get_span_context().trace_id
    if recorded_in(exc)[0] == trace_id:
        return
    span.add_event(
        EVENT_EXCEPTION,
        {
            EXCEPTION_TYPE: exception_type(exc),
            EXCEPTION_MESSAGE: message,
            EXCEPTION_STACKTRACE: stack_trace(exc, message),
            **(attributes or {}),
        },
    )
    # object.__setattr__: a frozen dataclass may be an exception too.
    object.__setattr__(exc, _RECORDED_IN, (trace_id, span.get_span_context().span_id))


def recorded_in(exc: BaseException) -> tuple[int, int]:
    """Return the trace id and span id where *exc* was recorded, zeros if it was not."""
    found: object = cast("dict[str, object]", BaseException.__getattribute__(exc, "__dict__")).get(_RECORDED_IN)
    return cast("tuple[int, int]", found) if isinstance(found, tuple) else (0, 0)


def stack_trace(exc: BaseException, message: str) -> str:
    """
    Return the stack trace of *exc* as Python prints it, without tracekit's own frames.

    At most 64 kB, 200 frames an exception and 16 chained exceptions; the innermost part is kept.

    Args:
        exc: The exception.
        message: Its message, so that a slow `__str__` runs once.
    """
    try:
        whole = "".join(_formatted(exc, message))
    except Exception as error:  # noqa: BLE001  # source files, frames and chained exceptions are the user's
        whole = f"<no stack trace: {type(error).__name__}>\n{type(exc).__name__}: {message}\n"
    if len(whole) > STACK_LIMIT:
        whole = "…" + whole[1 - STACK_LIMIT :]
    return text(whole, STACK_LIMIT)


def _formatted(exc: BaseException, message: str) -> Iterator[str]:
    for link, connector in reversed(list(_chain(exc))):
        own_message = message if link is exc else exception_message(link, STACK_LIMIT)
        if link.__traceback__ is not None:
            yield "Traceback (most recent call last):\n"
            yield from traceback.StackSummary.extract(_frames(link.__traceback__), limit=-_MAX_FRAMES).format()
        yield f"{exception_type(link)}: {own_message}\n" if own_message else f"{exception_type(link)}\n"
        for note in _list(getattr(link, "__notes__", ()))[:_MAX_CHAIN]:
            yield f"{text(note, STACK_LIMIT)}\n" if isinstance(note, str) else ""
        for number, inner in enumerate(members(link)[:_MAX_CHAIN], start=1):
            yield f"  +---------------- {number} ----------------\n"
            yield f"    {exception_type(inner)}: {exception_message(inner, STACK_LIMIT)}\n"
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
        if not (file.startswith(_OWN_ROOM) and os.path.basename(file).startswith("_")):  # noqa: PTH119  # as above
            yield frame, line


def _list(value: object) -> list[Any]:
    return list(cast("list[Any]", value)) if isinstance(value, (list, tuple)) else []


def members(exc: BaseException) -> list[BaseException]:
    """Return the exceptions in *exc* if it is an exception group (or its backport), else none."""
    if not any(base.__name__ == "BaseExceptionGroup" for base in type(exc).__mro__):
        return []
    return [inner for inner in _list(getattr(exc, "exceptions", ())) if isinstance(inner, BaseException)]


def is_cancellation(exc: BaseException) -> bool:
    """Tell whether *exc* is how asyncio, anyio or trio stop a task, or a group of nothing else."""
    if isinstance(exc, _cancellations()):
        return True
    inner = members(exc)
    return bool(inner) and all(is_cancellation(one) for one in inner)


def _cancellations() -> tuple[type[BaseException], ...]:
    # Not imported here: who has neither loop has no cancelled tasks.
    places = (("asyncio.exceptions", "CancelledError"), ("trio", "Cancelled"))
    loaded = ((sys.modules.get(module), name) for module, name in places)
    return tuple(getattr(module, name) for module, name in loaded if hasattr(module, name))
