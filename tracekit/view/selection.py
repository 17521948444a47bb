"""Which traces somebody wants to see: by id, name, failure, duration and time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracekit.export.record import SpanRecord

_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_DURATION: Final = re.compile(rf"(\d+(?:\.\d*)?|\.\d+) ?({'|'.join(_NS)})?", re.ASCII)


@final
@dataclass(frozen=True, slots=True)
class Selection:
    """
    What a trace must be; all of it must hold.

    Args:
        trace: How its id begins, in lower case.
        name: What a span of it is called, as a pattern (`orders.*`); the errors and the duration asked for are those of
            such a span.
        errors: Whether a span must have failed.
        slow_ns: How long it must take.
        since_ns: When it must not have ended yet, in nanoseconds since the epoch.
    """

    trace: str = ""
    name: str = ""
    errors: bool = False
    slow_ns: int = 0
    since_ns: int = 0

    def is_named(self, span: SpanRecord) -> bool:
        """Tell whether *span* is called as asked for."""
        return not self.name or fnmatchcase(span.name, self.name)

    def wants(self, spans: Sequence[SpanRecord]) -> bool:
        """Tell whether the trace of *spans* is asked for."""
        named = [span for span in spans if self.is_named(span)]
        if not named or not named[0].trace_id.startswith(self.trace):
            return False
        if self.errors and all(span.status != "error" for span in named):
            return False
        ends = [last_ns(span) for span in spans]
        if max(ends) < self.since_ns:
            return False
        took_ns = max(last_ns(span) - span.start_time_ns for span in named)
        if not self.name:
            took_ns = max(ends) - min(span.start_time_ns for span in spans)
        return took_ns >= self.slow_ns


def last_ns(span: SpanRecord) -> int:
    """Return the last that is known of *span*: its end, or its start while it is open."""
    return span.start_time_ns if span.end_time_ns is None else span.end_time_ns


def duration_ns(text: str) -> int:
    """
    Return the duration that *text* says, in nanoseconds: `250ms`, `1.5s`, `2h`; seconds where it has no unit.

    Raises:
        ValueError: It says none.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        msg = f"{text!r} is no duration; write 250ms, 1.5s, 10m, 2h or 1d"
        raise ValueError(msg)
    number, unit = found.groups()
    return round(float(number) * _NS[unit or "s"])


def time_ns(text: str, now_ns: int) -> int:
    """
    Return the time that *text* says, in nanoseconds since the epoch: `10m` before *now_ns*, or an ISO time.

    A time without a zone is local.

    Raises:
        ValueError: It says none.
    """
    if _DURATION.fullmatch(text.strip()):
        return max(0, now_ns - duration_ns(text))
    try:
        # Python 3.10 does not know `Z`.
        time = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip()))
        return max(0, int(time.timestamp() * 1_000_000) * 1_000)
    except (ValueError, OverflowError, OSError) as error:  # the year 1 has no time stamp everywhere
        msg = f"{text!r} is no time; write 10m, 2h, 2026-03-01 or 2026-03-01T14:30:00Z"
        raise ValueError(msg) from error
