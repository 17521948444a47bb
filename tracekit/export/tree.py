"""
The trace tree: the spans of one trace as lines of text. Nothing here prints.

    Trace: 4bf92f3577b34da6a3ce929d0e0e4736  (120ms, 3 spans)
    ├─ HTTP POST /orders (120ms)
    │  ├─ orders.validate (5ms)  order.id=7
    │  └─ payments.charge (80ms)  ERROR CardDeclined: insufficient funds
    │     • payment_started  order_id=7
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

from tracekit._semconv import (
    CODE_FILE_PATH,
    CODE_FUNCTION_NAME,
    CODE_LINE_NUMBER,
    ERROR_TYPE,
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)
from tracekit.export.forest import Forest, event_kind, fold
from tracekit.export.record import EventRecord, LinkRecord, SpanRecord
from tracekit.export.text import CUT, duration_text, printable, value_text

# What instrumentations record about each span and a developer at a terminal knows already.
NOISE: Final = frozenset(
    {
        CODE_FUNCTION_NAME, CODE_FILE_PATH, CODE_LINE_NUMBER, "code.filepath", "code.function", "code.lineno",
        "code.namespace", "code.column.number", "code.stacktrace", "thread.id", "thread.name",
        "http.flavor", "http.host", "http.scheme", "http.server_name", "http.user_agent", "url.scheme",
        "user_agent.original", "client.address", "client.port", "net.host.name", "net.host.port", "net.peer.ip",
        "net.peer.name", "net.peer.port", "network.peer.address", "network.peer.port", "network.protocol.name",
        "network.protocol.version", "network.transport", "network.type",
    }
)  # fmt: skip
# Left out where the span's name or its URL says them.
_ECHOES: Final = frozenset(
    {
        *("http.method", "http.request.method", "http.route", "http.target", "url.path"),
        *("server.address", "server.port", "db.operation.name", "db.collection.name"),
    }
)
# With what the work was done: the same for all that is done with it, and of use where it has failed.
_MEANS: Final = frozenset(
    {
        *("server.address", "server.port", "db.system", "db.system.name", "db.namespace", "db.name", "db.user"),
        *("db.connection_string", "messaging.system", "messaging.client.id", "rpc.system", "rpc.system.name"),
        *("http.status_text", "db.operation", "db.operation.name"),
    }
)
_OWN_ADDRESS: Final = frozenset({"server.address", "server.port"})
_QUERIES: Final = frozenset({"db.query.text", "db.statement"})
_TABLE: Final = re.compile(r"\b(?:from|into|update|join|table)\s+[\"'`\[]?([\w.$]+)", re.IGNORECASE)
# Attributes of instrumentations begin so; those of the program itself tell more.
_OF_INSTRUMENTATIONS: Final = (
    *("http.", "url.", "net.", "network.", "server.", "client.", "db.", "messaging.", "rpc.", "code.", "thread."),
    *("process.", "host.", "os.", "k8s.", "container.", "cloud.", "telemetry.", "faas.", "user_agent.", "otel."),
)
_URLS: Final = ("url.full", "http.url")
_HTTP_STATUSES: Final = ("http.response.status_code", "http.status_code")
_TOLD_BY_EXCEPTION: Final = frozenset({EXCEPTION_TYPE, EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE, "exception.escaped"})

_MAX_NAME: Final = 120
_MAX_KEY: Final = 60
_MAX_DESCRIPTION: Final = 200
_MAX_ATTRIBUTES: Final = 12
_MAX_DETAILS: Final = 20
_MAX_LEFT_OUT_ERRORS: Final = 20
# Deeper spans say their level instead: the guides alone would fill the line.
_MAX_LEVEL: Final = 32

_BOLD, _DIM, _RED, _CYAN, _BLUE = "1", "2", "1;31", "36", "34"


@final
@dataclass(frozen=True, slots=True)
class TreeOptions:
    """
    How to write a tree; without *header*, *ids* and *durations* the text is the same in each run.

    Args:
        header: Begin with the line that names the trace.
        ids: Write span ids of links and of parents that are not in the tree.
        durations: Write durations.
        color: Use terminal colours.
        hidden: Attribute keys to leave out.
        fold_from: How many siblings of one shape become one line; 0 for never.
        max_lines: About how many lines a tree may have.
    """

    header: bool = True
    ids: bool = True
    durations: bool = True
    color: bool = False
    hidden: frozenset[str] = NOISE
    fold_from: int = 5
    max_lines: int = 500


DEFAULT_OPTIONS: Final = TreeOptions()


def render_tree(spans: Iterable[SpanRecord], options: TreeOptions = DEFAULT_OPTIONS, *, note: str = "") -> str:
    """
    Return the tree of the *spans* of one trace, each line ended by a newline.

    Siblings of one shape (name, outcome, events, kinds of children) share a line, wherever they stand among their
    siblings. No span is left out without being counted, no error without being shown or counted as one.

    Args:
        spans: The spans of one trace, in any order.
        options: How to write it.
        note: A word on the whole tree, for its header ("late").
    """
    return "".join(f"{line}\n" for line in _Tree(list(spans), options).lines(note))


def trace_header(spans: Sequence[SpanRecord], options: TreeOptions = DEFAULT_OPTIONS, note: str = "") -> str:
    """Return the line that names the trace of *spans*, with what is to be known of all of it."""
    paint = _painted if options.color else _plain
    ended = [span for span in spans if span.end_time_ns is not None]
    facts = [_count(len(ended), "span")]
    if options.durations and ended:
        start = min(span.start_time_ns for span in spans)
        facts.insert(0, duration_text(max(span.end_time_ns or 0 for span in ended) - start))
    notes = [note] if note else []
    if len(ended) < len(spans):
        notes.append(f"incomplete: {len(spans) - len(ended):,} still open")
    trace_id = printable(spans[0].trace_id if spans else "", 32)
    return "  ".join([f"{paint(_BOLD, 'Trace:')} {trace_id}", paint(_DIM, f"({', '.join(facts)})"), *notes])


def _nothing_said(_key: str, _text: str) -> bool:
    return False


class _Branch(NamedTuple):
    """One line to be and what hangs on it: a span, or several folded into one."""

    members: list[int]
    prefix: str
    is_last: bool
    level: int
    service: str


@final
class _Tree:
    __slots__ = ("_forest", "_is_joined", "_options", "_paint", "_spans")

    def __init__(self, spans: list[SpanRecord], options: TreeOptions) -> None:
        self._forest = Forest(spans)
        self._spans = self._forest.spans
        self._is_joined = len({span.service for span in spans}) > 1
        self._options = options
        self._paint: Callable[[str, str], str] = _painted if options.color else _plain

    def lines(self, note: str) -> Iterator[str]:
        if self._options.header:
            yield trace_header(self._spans, self._options, note)
        left_out: list[int] = []
        written = 0
        # A stack of its own: spans may nest deeper than Python calls may.
        stack = self._branches(self._forest.roots, "", level=0, service="", ends=False)
        while stack:
            branch = stack.pop()
            first = branch.members[0]
            span = self._spans[first]
            children = self._forest.children_of(branch.members)
            prefix = branch.prefix
            if written < self._options.max_lines:
                prefix += "" if branch.level > _MAX_LEVEL else "   " if branch.is_last else "│  "
                yield self._span_line(branch)
                details = self._details(branch.members)
                guide = self._paint(_DIM, prefix)
                for detail in details:
                    yield guide + detail
                written += 1 + len(details)
            else:
                left_out += branch.members
            stack += self._branches(children, prefix, level=branch.level + 1, service=span.service)
        if left_out:
            yield from self._what_is_left_out(left_out)

    def _branches(
        self, siblings: list[int], prefix: str, *, level: int, service: str, ends: bool = True
    ) -> list[_Branch]:
        """Return *siblings* as branches, the last one first, as a stack wants them."""
        groups = self._forest.folded(siblings, self._options.fold_from)
        last = len(groups) - 1
        return [_Branch(groups[i], prefix, ends and i == last, level, service) for i in range(last, -1, -1)]

    def _span_line(self, branch: _Branch) -> str:
        paint = self._paint
        span = self._spans[branch.members[0]]
        guide = paint(_DIM, branch.prefix + ("└─ " if branch.is_last else "├─ "))
        if branch.level > _MAX_LEVEL:
            guide += paint(_DIM, f"(level {branch.level}) ")
        if self._is_joined and span.service != branch.service:
            guide += paint(_BLUE, f"[{printable(span.service, _MAX_NAME) or 'unknown service'}] ")
        figures = self._figures(branch.members)
        parts = [printable(span.name, _MAX_NAME) + (f" {paint(_DIM, f'({figures})')}" if figures else "")]
        description = _description(span)
        if span.status == "error":
            parts.append(paint(_RED, f"ERROR {printable(description, _MAX_DESCRIPTION)}".rstrip()))
        parts += self._attributes(
            _common([self._spans[member].attributes for member in branch.members]), said=_said(span, description)
        )
        if span.parent_id is not None and not self._forest.has_parent(branch.members[0]):
            parts.append(paint(_DIM, self._missing_parent(branch.members)))
        return guide + "  ".join(parts)

    def _figures(self, members: list[int]) -> str:
        durations = [ns for member in members if (ns := self._spans[member].duration_ns) is not None]
        facts = [f"x {len(members):,}"] if len(members) > 1 else []
        if not durations:
            facts.append("open")
        elif self._options.durations:
            total = duration_text(sum(durations))
            facts += [f"{total} total", f"slowest {duration_text(max(durations))}"] if len(members) > 1 else [total]
        return ", ".join(facts)

    def _missing_parent(self, members: list[int]) -> str:
        span = self._spans[members[0]]
        is_one = len({self._spans[member].parent_id for member in members}) == 1
        name = "parent" if is_one else "parents"
        if is_one and self._options.ids:
            name += f" {printable(span.parent_id or '', 16)}"
        return f"← remote {name}" if span.parent_is_remote else f"← {name} not in this tree"

    def _attributes(self, attributes: Mapping[str, Any], *, said: Callable[[str, str], bool]) -> list[str]:
        texts: dict[str, str] = {}
        for key, value in attributes.items():
            if key not in self._options.hidden and not said(key, text := value_text(value)):
                texts[key] = text
        keys = list(texts)
        if len(keys) > _MAX_ATTRIBUTES:
            kept = set(sorted(keys, key=lambda key: key.startswith(_OF_INSTRUMENTATIONS))[:_MAX_ATTRIBUTES])
            keys = [key for key in keys if key in kept]
        shown = [self._paint(_DIM, f"{printable(key, _MAX_KEY)}=") + texts[key] for key in keys]
        if len(texts) > len(keys):
            shown.append(self._paint(_DIM, f"{CUT} {len(attributes):,} attributes"))
        # Attributes stand close together, but apart from what is before and after them.
        return [" ".join(shown)] if shown else []

    def _details(self, members: list[int]) -> list[str]:
        """Return the lines of the events and links of all *members*, without guides."""
        spans = [self._spans[member] for member in members]
        description, trace_id = _description(spans[0]), spans[0].trace_id
        fold_from = self._options.fold_from
        events = [event for span in spans for event in span.events if not _is_told(event, description)]
        lines = [self._event_line(group) for group in fold(events, event_kind, fold_from)]
        links = [link for span in spans for link in span.links]
        groups = fold(links, lambda link: link.trace_id == trace_id, fold_from)
        lines += [self._link_line(group, trace_id) for group in groups]
        if len(lines) > _MAX_DETAILS:
            rest = len(lines) - _MAX_DETAILS + 1
            lines[-rest:] = [self._paint(_DIM, f"{CUT} {rest:,} more events and links")]
        return lines

    def _event_line(self, events: list[EventRecord]) -> str:
        exception = events[0].exception
        name = printable(events[0].name, _MAX_NAME)
        attributes = [event.attributes for event in events]
        if not exception:
            return self._detail_line("•", name, attributes)
        name += f" {printable(exception, _MAX_DESCRIPTION)}"
        return self._detail_line("•", name, attributes, said=lambda key, _: key in _TOLD_BY_EXCEPTION)

    def _link_line(self, links: list[LinkRecord], trace_id: str) -> str:
        link, is_one = links[0], len(links) == 1
        is_here = link.trace_id == trace_id
        name = (self._forest.name_of(link.span_id) if is_one and is_here else None) or (
            "this trace" if is_here else "another trace"
        )
        name = f"link to {printable(name, _MAX_NAME)}"
        if is_one and self._options.ids:
            name += f" {printable(link.span_id if is_here else f'{link.trace_id} {link.span_id}', 49)}"
        return self._detail_line("→", name, [link.attributes for link in links])

    def _detail_line(
        self,
        mark: str,
        name: str,
        attributes: Sequence[Mapping[str, Any]],
        said: Callable[[str, str], bool] = _nothing_said,
    ) -> str:
        times = f" {self._paint(_DIM, f'(x {len(attributes):,})')}" if len(attributes) > 1 else ""
        return "  ".join(
            [f"{self._paint(_CYAN, mark)} {name}{times}", *self._attributes(_common(attributes), said=said)]
        )

    def _what_is_left_out(self, left_out: list[int]) -> Iterator[str]:
        errors = [member for member in left_out if self._spans[member].status == "error"]
        text = f"{CUT} {_count(len(left_out), 'more span')} left out"
        yield self._paint(_DIM, text + (f", {_count(len(errors), 'error')} among them:" if errors else ""))
        for member in errors[:_MAX_LEFT_OUT_ERRORS]:
            yield self._span_line(_Branch([member], "", is_last=False, level=0, service=""))
        if len(errors) > _MAX_LEFT_OUT_ERRORS:
            yield self._paint(_DIM, f"{CUT} {_count(len(errors) - _MAX_LEFT_OUT_ERRORS, 'more error')}")


def _painted(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def _plain(_: str, text: str) -> str:
    return text


def _said(span: SpanRecord, description: str) -> Callable[[str, str], bool]:
    """Return what tells whether an attribute of *span* needs not be said: the rest of its line does, or nobody asks."""
    attributes, has_failed = span.attributes, span.status == "error"
    told = [span.name, *(url for key in _URLS if isinstance(url := attributes.get(key), str))]

    def said(key: str, text: str) -> bool:
        text = text.strip('"')
        if key == ERROR_TYPE:
            # Instrumentations of HTTP write the status there.
            is_status = any(key in attributes and text == value_text(attributes[key]) for key in _HTTP_STATUSES)
            return is_status or text.rpartition(".")[2] in description
        if key in _ECHOES and any(text in told_text for told_text in told):
            return True
        # Where a server listens is no reason for its failure.
        if has_failed and not (span.kind == "server" and key in _OWN_ADDRESS):
            return False
        return key in _MEANS or (key in _QUERIES and _is_named_after(span.name, attributes.get(key)))

    return said


def _is_named_after(name: str, query: object) -> bool:
    """Tell whether the *name* of a span says what *query* does: to which table, or the whole of it."""
    if not isinstance(query, str):
        return False
    table = _TABLE.search(query)
    return (table[1].rpartition(".")[2] if table else query.strip()) in name


def _description(span: SpanRecord) -> str:
    """Return what is known of the error of *span*: some instrumentations only record an exception, or its type."""
    if span.status != "error" or span.description:
        return span.description
    error_type = span.attributes.get(ERROR_TYPE)
    raised = [event.exception for event in span.events if event.exception]
    return raised[-1] if raised else error_type if isinstance(error_type, str) else ""


def _is_told(event: EventRecord, description: str) -> bool:
    """Tell whether the status says what *event* says; its type may be written in full there."""
    exception = event.exception
    return bool(exception) and (description == exception or description.endswith("." + exception))


def _common(mappings: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the items that all *mappings* share."""
    common = mappings[0]
    for mapping in mappings[1:]:
        if not common:
            break
        common = {key: value for key, value in common.items() if key in mapping and mapping[key] == value}
    return common


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
