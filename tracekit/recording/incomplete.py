"""Spans still open when tracing ends: nothing is kept of open spans, so that they are looked for then and only then."""

from __future__ import annotations

import gc
import os
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.sdk.trace import Span as SdkSpan

from tracekit._diagnostics import report_failure
from tracekit._semconv import TRACEKIT_INCOMPLETE
from tracekit.recording.provider import processors_before
from tracekit.recording.span import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracekit.recording.pipeline import Pipeline

# What somebody may still do to a span that was ended for him, without a warning.
_LATE_CALLS: Final = (
    "set_attribute",
    "set_attributes",
    "set_legal_attributes",
    "add_event",
    "add_link",
    "update_name",
    "set_status",
    "record_exception",
    "end",
)
_MOST_LOOKS: Final = 3
# When this process was forked: spans of the SDK's that are older are its parent's.
_forked_ns = 0


def end_open_spans(pipeline: Pipeline) -> bool:
    """
    End the spans of *pipeline* that are open, the latest first, with the attribute `tracekit.incomplete`.

    Those that are gone without having been ended count as dropped, for the reason `never_ended`.

    Returns:
        Whether there were none of those.
    """
    for _ in range(_MOST_LOOKS):
        before = pipeline.counters.snapshot()
        if not before.unended and not pipeline.may_hold_others:
            return True
        for span in sorted(_found(pipeline), key=_start_time, reverse=True):
            _end(span)
        after = pipeline.counters.snapshot()
        if after.sampled == before.sampled:
            # Nobody has started a span meanwhile, which would be open and not lost.
            lost = max(0, after.unended)
            if lost:
                pipeline.counters.drop("never_ended", lost)
            return not lost
    return True


# A metaclass may override attributes.
_mro: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__


def _found(pipeline: Pipeline) -> Iterator[SdkSpan]:
    users = processors_before(pipeline)
    for thing in gc.get_objects():
        kind: type[Any] = type(thing)  # pyright: ignore[reportUnknownVariableType]
        try:
            if Span in (bases := _mro(kind)):
                if thing.is_own_and_open and pipeline.serves(thing._span_processor):  # noqa: SLF001
                    yield thing
            elif users and SdkSpan in bases and _is_open_below(thing, users):
                yield thing
        except AttributeError:  # another thread is making it
            continue


def _is_open_below(span: SdkSpan, processors: tuple[object, ...]) -> bool:
    processor: object = span._span_processor  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    if not any(processor is one for one in processors) or span.end_time is not None:
        return False
    return (span.start_time or 0) >= _forked_ns


def _start_time(span: SdkSpan) -> int:
    return span.start_time or 0


def _end(span: SdkSpan) -> None:
    try:
        span.set_attribute(TRACEKIT_INCOMPLETE, True)  # noqa: FBT003  # the value, not an option
        span.end()
        # Its own end may come yet: a thread goes on, a generator is collected.
        cast("Any", span).__class__ = _deaf(type(span))
    except Exception as error:  # noqa: BLE001  # a processor of the user's; the other spans are to be ended too
        report_failure("tracekit", "ending an open span", error)


@cache
def _deaf(kind: type[SdkSpan]) -> type[SdkSpan]:
    return type(kind.__name__, (kind,), {"__slots__": (), **dict.fromkeys(_LATE_CALLS, _ignore)})


def _ignore(*_args: object, **_options: object) -> None:
    """Do nothing: the span has been ended."""


def _begin_in_child() -> None:
    global _forked_ns  # noqa: PLW0603  # there is one process
    _forked_ns = time.time_ns()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
