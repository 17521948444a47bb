"""Why a trace has failed: the spans where errors began, what was raised there, and by which line of whose code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from tracekit._semconv import ERROR_TYPE, EVENT_EXCEPTION, EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE, EXCEPTION_TYPE
from tracekit.export.forest import Forest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracekit.export.record import EventRecord, SpanRecord

# `File "shop/orders.py", line 7, in create`, and the line of code below it; exception groups put `|` before each line.
_PYTHON_FRAME: Final = re.compile(
    r'^[ |+]*File "(?P<file>[^"\n]+)", line (?P<line>\d+)(?:, in (?P<function>[^\n]+))?\n'
    r"(?:(?![ |+]*File )[ |+]*(?P<code>[^\n]*))?",
    re.MULTILINE,
)
# `at shop.Orders.create(Orders.java:7)`, `at create (/app/orders.js:7:3)`: the innermost frame comes first.
_OTHER_FRAME: Final = re.compile(r"^\s*at (?P<text>[^\n]+)$", re.MULTILINE)
# What separates the stack traces of exceptions that led to each other; the last one is that of what was raised.
_NEXT_TRACE: Final = re.compile(r"^[ |+]*(?:Exception Group )?Traceback \(most recent call last\):$", re.MULTILINE)
# Code that a developer did not write: installed packages, the standard library, the interpreter itself.
_NOT_OWN: Final = re.compile(
    r"^<|[/\\](?:site|dist)-packages[/\\]|[/\\]lib(?:64)?[/\\]python3[^/\\]*[/\\]|[/\\]Python3\d+[/\\][Ll]ib[/\\]"
)
_HTTP_STATUSES: Final = ("http.response.status_code", "http.status_code")
_URLS: Final = ("url.full", "http.url")
_MAX_STACKTRACE: Final = 200_000


class Frame(NamedTuple):
    """
    Where something was raised.

    Args:
        place: File and line, or all that is known.
        function: The function, if known.
        code: The line of code, if known.
    """

    place: str
    function: str = ""
    code: str = ""


class Cause(NamedTuple):
    """
    An error where it began.

    Args:
        span: The failed span, none of whose children has failed.
        path: The spans from the root of the trace to it.
        what: What was raised, as `full.Type: message`, or what is known instead.
        frame: The last frame of one's own code, else the last one, if a stack trace was recorded.
    """

    span: SpanRecord
    path: list[SpanRecord]
    what: str
    frame: Frame | None


class Causes(NamedTuple):
    """The *first* causes of a failure, and *how many* there are."""

    first: list[Cause]
    how_many: int


def causes_of(spans: Sequence[SpanRecord], limit: int = 3) -> Causes:
    """Return the causes of the failures in the trace of *spans*: those with a stack trace first, then by time."""
    forest = Forest(spans)
    parents: dict[int, int] = {}
    reached: list[int] = list(forest.roots)
    # It grows while it is read: parents before children, each span once.
    for index in reached:
        for child in forest.children_of([index]):
            parents[child] = index
            reached.append(child)
    failed = {index for index, span in enumerate(forest.spans) if span.status == "error"}
    innermost = sorted(failed - {parents[index] for index in failed if index in parents})
    innermost.sort(key=lambda index: not _stacktrace(_raised(forest.spans[index])))
    # Thousands of failures below thousands of spans: only the ways that are asked for are walked.
    return Causes([_cause(forest, index, parents) for index in innermost[:limit]], len(innermost))


def last_own_frame(stacktrace: str) -> Frame | None:
    """Return the last frame of *stacktrace* in code of one's own, else the last one."""
    stacktrace = stacktrace[-_MAX_STACKTRACE:]
    raised = _NEXT_TRACE.split(stacktrace)[-1]
    frames = list(_PYTHON_FRAME.finditer(raised))
    if not frames:
        other = _OTHER_FRAME.search(stacktrace)
        return None if other is None else Frame(other["text"].strip())
    found = next((frame for frame in reversed(frames) if _is_own(frame["file"])), frames[-1])
    code = (found["code"] or "").strip(" |+")
    return Frame(f"{found['file']}:{found['line']}", found["function"] or "", "" if _is_marks(code) else code)


def _is_own(file: str) -> bool:
    return not _NOT_OWN.search(file)


def _is_marks(code: str) -> bool:
    """Tell whether *code* is what Python underlines code with."""
    return not code.strip("^~ ")


def _cause(forest: Forest, index: int, parents: dict[int, int]) -> Cause:
    span = forest.spans[index]
    path = [span]
    while index in parents:
        index = parents[index]
        path.append(forest.spans[index])
    event = _raised(span)
    stacktrace = _stacktrace(event)
    return Cause(span, path[::-1], _what(span, event), last_own_frame(stacktrace) if stacktrace else None)


def _raised(span: SpanRecord) -> EventRecord | None:
    """Return the event of the exception that left *span*: the last one that was recorded there."""
    return next((event for event in reversed(span.events) if event.name == EVENT_EXCEPTION), None)


def _stacktrace(event: EventRecord | None) -> str:
    stacktrace = None if event is None else event.attributes.get(EXCEPTION_STACKTRACE)
    return stacktrace if isinstance(stacktrace, str) else ""


def _what(span: SpanRecord, event: EventRecord | None) -> str:
    if event is not None:
        kind, message = (event.attributes.get(key) for key in (EXCEPTION_TYPE, EXCEPTION_MESSAGE))
        if isinstance(kind, str) and kind:
            return f"{kind}: {message}" if isinstance(message, str) and message else kind
        if isinstance(message, str) and message:
            return message
    for key in _HTTP_STATUSES:
        if isinstance(status := span.attributes.get(key), int) and not span.description:
            url = next((url for key in _URLS if isinstance(url := span.attributes.get(key), str)), "")
            return f"HTTP {status}" + (f" from {url}" if url else "")
    error_type = span.attributes.get(ERROR_TYPE)
    return span.description or (error_type if isinstance(error_type, str) else "")
