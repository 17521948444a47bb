"""
Span records as the page reads them: rows of compact JSON.

All of it is somebody else's text, of any length and with any character; what comes out is bounded ASCII, and safe
inside a `<script>` element.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, final

from tracekit.export.text import CUT, value_text

if TYPE_CHECKING:
    from tracekit.export.record import EventRecord, LinkRecord, SpanRecord, StatusName

_NS_PER_MS: Final = 1_000_000
_MAX_TIME_NS: Final = 2**63
# JavaScript's numbers hold no larger integer.
_MAX_SAFE: Final = 2**53 - 1
_STATUS: Final[Mapping[StatusName, int]] = {"unset": 0, "ok": 1, "error": 2}

# A page holds tens of thousands of spans: one must not take the place of all others.
_MAX_TEXT: Final = 65_536
_MAX_NESTED: Final = 4_096
_MAX_SPAN: Final = 262_144
_MAX_ITEMS: Final = 256

# `</script>`, `<!--` and `]]>` cannot be written without these; in JSON they stand in strings only.
_ESCAPES: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def to_json(value: Any) -> str:
    """Return *value* as JSON that may stand in HTML: ASCII, on one line, without `<`, `>` and `&`."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def span_row(span: SpanRecord, resource: int) -> list[Any]:
    """
    Return *span* as a row; the order of its cells is that of `readRow` in assets/spans.js.

    Args:
        span: The span.
        resource: The number of its resource.
    """
    text = _Text()
    return [
        text.cut(span.trace_id),
        text.cut(span.span_id),
        text.cut(span.parent_id or ""),
        text.cut(span.name),
        span.kind,
        *_time(span.start_time_ns),
        None if span.end_time_ns is None else _bounded(span.end_time_ns - span.start_time_ns),
        _STATUS[span.status],
        text.cut(span.description),
        resource,
        text.cut(span.scope),
        int(span.parent_is_remote),
        text.attributes(span.attributes),
        [_event(event, text) for event in span.events[:_MAX_ITEMS]],
        [_link(link, text) for link in span.links[:_MAX_ITEMS]],
        len(span.events),
        len(span.links),
    ]


def resource_row(span: SpanRecord) -> list[Any]:
    """Return what made *span*: the name of its service, and its resource's attributes."""
    text = _Text()
    return [text.cut(span.service), text.attributes(span.resource)]


def _event(event: EventRecord, text: _Text) -> list[Any]:
    return [*_time(event.time_ns), text.cut(event.name), text.attributes(event.attributes)]


def _link(link: LinkRecord, text: _Text) -> list[Any]:
    return [text.cut(link.trace_id), text.cut(link.span_id), text.attributes(link.attributes)]


def _time(time_ns: int) -> list[int]:
    """Return milliseconds since the epoch and the nanoseconds beyond: JavaScript cannot hold the sum."""
    return list(divmod(_bounded(time_ns), _NS_PER_MS))


def _bounded(time_ns: int) -> int:
    return max(-_MAX_TIME_NS, min(time_ns, _MAX_TIME_NS))


@final
class _Text:
    """What is left of the text that one span may bring."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _MAX_SPAN

    def cut(self, text: str, limit: int = _MAX_TEXT) -> str:
        limit = min(limit, self._left)
        if len(text) > limit:
            text = f"{text[:limit]}{CUT} ({len(text):,} characters)"
        self._left -= min(len(text), limit)
        return text

    def attributes(self, attributes: Mapping[str, Any]) -> list[Any]:
        """Return keys and values in turn, which keeps keys such as `__proto__` plain text."""
        row: list[Any] = []
        for number, (key, value) in enumerate(attributes.items()):
            if number == _MAX_ITEMS:
                row += [CUT, ["note", f"{len(attributes) - _MAX_ITEMS:,} more"]]
                break
            row += [self.cut(key), self._value(value)]
        return row

    def _value(self, value: object) -> Any:
        """Return *value* as it is if JSON and JavaScript have it too, else as its type and its text."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.cut(value)
        if isinstance(value, int):
            return value if abs(value) <= _MAX_SAFE else ["int", self.cut(value_text(value))]
        if isinstance(value, float):
            return value if math.isfinite(value) and not value.is_integer() else ["float", repr(value)]
        text = self.cut(value_text(value, min(_MAX_NESTED, self._left)), _MAX_NESTED * 2)
        return ["bytes" if isinstance(value, bytes) else "map" if isinstance(value, Mapping) else "list", text]


@final
class Resources:
    """The resources of a page, each with its number; most spans share a few."""

    __slots__ = ("_numbers", "_seen")

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        # By identity, as spans of one request share the object; held here, or another might take its place.
        self._seen: dict[int, tuple[object, int]] = {}

    def number_of(self, span: SpanRecord) -> int:
        """Return the number of the resource of *span*."""
        seen = self._seen.get(id(span.resource))
        # A span made by hand names its service only.
        if seen is not None and span.resource:
            return seen[1]
        number = self._numbers.setdefault(to_json(resource_row(span)), len(self._numbers))
        if len(self._seen) < _MAX_SPAN:
            self._seen[id(span.resource)] = (span.resource, number)
        return number

    def rows(self) -> Iterable[str]:
        """Return all resources as JSON, in the order of their numbers."""
        return self._numbers
