r"""
A tree as a test expects it, and where what was captured first differs.

    orders.create  order.id=7 customer=*
      orders.validate
      ...
      payments.charge  ERROR CardDeclined: *
        • payment_started  order_id~^\d+$
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from tracekit.export.text import value_text
from tracekit.testing.pattern import is_found_in, is_like, reads_like
from tracekit.testing.span import CapturedSpan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import Event

    from tracekit.testing.picture import Node

_GUIDES: Final = "│├└─ "
_ANY_SPANS: Final = "..."
_EVENT, _LINK = "•", "→"
_FACT: Final = re.compile(
    r"""(?P<key>[^\s=~"'←…]+)(?P<means>[=~])(?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|\[[^\]]*\]|\{[^}]*\}|\S*)"""
)
_FIRST_FACT: Final = re.compile(r"\s+(?=(?:ERROR|OK|UNSET)(?:\s|$)|[^\s=~]+[=~]\S)")
_STATUS: Final = re.compile(r"(ERROR|OK|UNSET)(?:$|\s)")
_MISSING: Final = object()


class Difference(NamedTuple):
    """
    Where a tree first differs.

    Args:
        line: The number of the expected line; of the line before which nothing more was expected, if *is_extra*.
        reason: What differs, as a sentence.
        span: The captured span that differs, or below which one is missing.
        is_extra: Whether the span was not expected at all.
    """

    line: int
    reason: str
    span: CapturedSpan | None = None
    is_extra: bool = False


@final
@dataclass(slots=True)
class _Line:
    """
    One expected line, with the lines below it.

    Args:
        number: Its number.
        text: What it says.
        details: The lines of events and links below it, and their numbers.
        children: The lines of spans below it.
    """

    number: int
    text: str
    details: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    children: list[_Line] = field(default_factory=list["_Line"])

    @property
    def is_any(self) -> bool:
        return self.text == _ANY_SPANS


@final
class ExpectedTree:
    """
    The tree that *text* asks for.

    Args:
        text: One span a line, children below their parent and deeper, by guides or spaces.
        in_any_order: Whether siblings may stand in another order than here.
    """

    def __init__(self, text: str, *, in_any_order: bool) -> None:
        self.lines: Final = [line.rstrip() for line in dedent(text).splitlines() if line.strip()]
        self._roots: Final = _read(self.lines)
        self._in_any_order: Final = in_any_order

    def difference(self, roots: Sequence[Node]) -> Difference | None:
        """Return where *roots* first differ, None if they do not."""
        return self._of_siblings(self._roots, roots, None, len(self.lines))

    def _of_siblings(
        self, expected: Sequence[_Line], found: Sequence[Node], parent: Node | None, end: int
    ) -> Difference | None:
        if self._in_any_order:
            return self._of_a_set(expected, found, parent, end)
        return self._of_a_sequence(expected, found, parent, end)

    def _of_a_sequence(
        self, expected: Sequence[_Line], found: Sequence[Node], parent: Node | None, end: int
    ) -> Difference | None:
        for position, line in enumerate(expected):
            if line.is_any:
                return self._after_any(expected[position + 1 :], found[position:], parent, end)
            if position == len(found):
                return _missing(line, parent)
            difference = self._of_node(line, found[position])
            if difference is not None:
                return difference
        if len(found) > len(expected):
            return _unexpected(found[len(expected)], parent, end)
        return None

    def _after_any(
        self, expected: Sequence[_Line], found: Sequence[Node], parent: Node | None, end: int
    ) -> Difference | None:
        """Return where *expected* differs from the end of *found*, wherever that begins."""
        differences: list[Difference] = []
        for skipped in range(len(found) + 1):
            difference = self._of_a_sequence(expected, found[skipped:], parent, end)
            if difference is None:
                return None
            differences.append(difference)
        # The one that comes closest: which gets furthest, else which is about a span of that name.
        furthest = max(differences, key=lambda difference: difference.line)
        if furthest.line > expected[0].number:
            return furthest
        named = (found[index] for index in range(len(found)) if is_like(found[index].span.name, _name(expected[0])))
        nearly = next(named, None)
        return _missing(expected[0], parent) if nearly is None else self._of_node(expected[0], nearly)

    def _of_a_set(
        self, expected: Sequence[_Line], found: Sequence[Node], parent: Node | None, end: int
    ) -> Difference | None:
        wanted = [line for line in expected if not line.is_any]
        taken: dict[int, int] = {}  # by the index of what was found, the index of the line that it is for
        differences = [[self._of_node(line, node) for node in found] for line in wanted]

        def place(line: int, tried: set[int]) -> bool:
            """Find a span for *line*, moving lines placed before to others that fit them too."""
            for index, difference in enumerate(differences[line]):
                if difference is None and index not in tried:
                    tried.add(index)
                    if index not in taken or place(taken[index], tried):
                        taken[index] = line
                        return True
            return False

        for index, line in enumerate(wanted):
            if not place(index, set()):
                nearly = [
                    difference
                    for other, difference in enumerate(differences[index])
                    if difference is not None and other not in taken and is_like(found[other].span.name, _name(line))
                ]
                return nearly[0] if nearly else _missing(line, parent)
        extra = [node for index, node in enumerate(found) if index not in taken]
        if extra and len(wanted) == len(expected):
            return _unexpected(extra[0], parent, end)
        return None

    def _of_node(self, line: _Line, node: Node) -> Difference | None:
        if not is_like(node.text, line.text):
            reason = _unlike(line.text, node.span)
            if reason:
                return Difference(line.number, reason, node.span)
        return _of_details(line, node) or self._of_siblings(line.children, node.children, node, _last_number(line) + 1)


def _read(lines: Sequence[str]) -> list[_Line]:
    """Return the trees that *lines* describe."""
    roots: list[_Line] = []
    open_lines: list[tuple[int, _Line]] = []
    for number, written in enumerate(lines):
        text = written.lstrip(_GUIDES)
        indent = len(written) - len(text)
        # They follow their span, however far in they are written; what hangs on a branch of its own is a span.
        if text[:1] in (_EVENT, _LINK) and open_lines and not written[:indent].endswith("─ "):
            open_lines[-1][1].details.append((number, text))
            continue
        line = _Line(number, text)
        while open_lines and open_lines[-1][0] >= indent:
            open_lines.pop()
        (open_lines[-1][1].children if open_lines else roots).append(line)
        open_lines.append((indent, line))
    return roots


def _of_details(line: _Line, node: Node) -> Difference | None:
    """Return which of the events and links below *line* the span does not have, in their order; it may have more."""
    events = list(node.span.events)
    links = [detail for detail in node.details if detail.startswith(_LINK)]
    for number, detail in line.details:
        wanted = detail[1:].strip()
        if detail.startswith(_LINK):
            if not any(is_like(link, detail) or link.startswith(f"{detail}  ") for link in links):
                reason = f"{node.span.name} has no {wanted!r}; its links: {', '.join(links) or 'none'}"
                return Difference(number, reason, node.span)
            continue
        found = next((index for index, event in enumerate(events) if _is_event(wanted, event)), None)
        if found is not None:
            events = events[found + 1 :]
        # The tree writes an exception in its own way.
        elif not any(is_like(shown, detail) for shown in node.details):
            names = ", ".join(event.name for event in node.span.events) or "none"
            reason = f"{node.span.name} has no event {wanted!r} in this place; its events: {names}"
            return Difference(number, reason, node.span)
    return None


def _last_number(line: _Line) -> int:
    while line.children:
        line = line.children[-1]
    return line.details[-1][0] if line.details else line.number


def _missing(line: _Line, parent: Node | None) -> Difference:
    where = f"below {parent.span.name}" if parent is not None else "here"
    return Difference(line.number, f"there is no {line.text!r} {where}", None if parent is None else parent.span)


def _unexpected(node: Node, parent: Node | None, end: int) -> Difference:
    where = f" below {parent.span.name}" if parent is not None else ""
    return Difference(end, f"{node.span.name}{where} was not expected", node.span, is_extra=True)


def _parts(text: str) -> list[tuple[str, str]]:
    """Return the ways to read *text* as a name and what is said of it: names may hold spaces, and `=`."""
    name, _, said = text.partition("  ")
    first = _FIRST_FACT.search(name)
    ways = [(name, said.strip())]
    if first is not None:
        ways.append((name[: first.start()], f"{name[first.end() :]}  {said}".strip()))
    return ways


def _name(line: _Line) -> str:
    return _parts(line.text)[-1][0]


def _unlike(text: str, span: CapturedSpan) -> str:
    """Return what *text* says that is not true of *span*, as a sentence; empty if all is true."""
    for name, said in _parts(text):
        if is_like(span.name, name):
            return _untrue(said, span)
    return f"{span.name} stands where {_parts(text)[-1][0]} was expected"


def _untrue(said: str, span: CapturedSpan) -> str:
    status = _STATUS.match(said)
    if status is not None:
        actual = span.status.status_code.name
        if actual != status[1]:
            return f"{span.name} has status {actual}, expected {status[1]}"
        description, _, rest = said[status.end() :].partition("  ")
        is_description = bool(description.strip()) and _FACT.sub("", description).strip() != ""
        if is_description:
            recorded = span.status.description or ""
            shown = next((event for event in (recorded, *_exceptions(span)) if is_like(event, description)), None)
            if shown is None:
                return f"{span.name} failed with {recorded!r}, expected {description!r}"
        said = rest if is_description else said[status.end() :]
    return _unlike_facts(said, span.name, span.attributes, span)


def _exceptions(span: CapturedSpan) -> list[str]:
    from tracekit.export.record import SpanRecord

    return [event.exception for event in SpanRecord.of(span.readable).events if event.exception]


def _is_event(wanted: str, event: Event) -> bool:
    return any(
        is_like(event.name, name) and not _unlike_facts(said, event.name, event.attributes or {}, None)
        for name, said in _parts(wanted)
    )


def _unlike_facts(said: str, name: str, attributes: Mapping[str, Any], span: CapturedSpan | None) -> str:
    for part in filter(None, (part.strip() for part in said.split("  "))):
        if part.startswith("…"):
            continue  # the tree's own: more attributes than it shows
        if part.startswith("←"):
            if span is not None and (span.readable.parent is None or isinstance(span.parent, CapturedSpan)):
                return f"{name} has its parent here or none, expected one from elsewhere"
            continue
        reason = _unlike_pairs(part, name, attributes)
        if reason:
            return reason
    return ""


def _unlike_pairs(part: str, name: str, attributes: Mapping[str, Any]) -> str:
    position = 0
    while position < len(part):
        fact = _FACT.match(part, position)
        if fact is None:
            return f"{part[position:]!r} is neither key=value nor key~regex, expected one of {name}"
        position = fact.end() + len(part[fact.end() :]) - len(part[fact.end() :].lstrip())
        key, pattern = fact["key"], fact["value"]
        value = attributes.get(key, _MISSING)
        if value is _MISSING:
            return f"{name} has no {key}, expected {fact[0]}"
        if not (is_found_in(value, re.compile(pattern)) if fact["means"] == "~" else reads_like(value, pattern)):
            return f"{name} has {key}={value_text(value)}, expected {fact[0]}"
    return ""
