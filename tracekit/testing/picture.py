"""What was captured, as text and as trees at once: each span knows its line, so that a message can point to it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from tracekit.export.forest import Forest
from tracekit.export.record import SpanRecord
from tracekit.export.tree import TreeOptions, render_tree

if TYPE_CHECKING:
    from tracekit.testing.span import CapturedSpan

# No ids, no durations, nothing folded or left out: the same program gives the same text.
_STABLE: Final = TreeOptions(header=False, ids=False, durations=False, fold_from=0, max_lines=10**9)
_SPAN_LINE: Final = re.compile(r"(?:│  |   )*[├└]─ (?:\(level \d+\) )?")
_GUIDES: Final = "│├└─ "
# What joins the roots to the header, which is left out here.
_GUIDE_WIDTH: Final = 3

NOTHING: Final = "(nothing)"


@final
@dataclass(slots=True)
class Node:
    """
    A span in its place.

    Args:
        span: The span.
        line: The number of its line in the picture.
        text: What that line says.
        details: What the lines of its events and links say.
        children: The spans below it, in the order in which they started.
    """

    span: CapturedSpan
    line: int = 0
    text: str = ""
    details: list[str] = field(default_factory=list[str])
    children: list[Node] = field(default_factory=list["Node"])


@final
class Picture:
    """
    The traces of *spans*, one after the other.

    Args:
        spans: In the order in which they started.
    """

    def __init__(self, spans: Iterable[CapturedSpan]) -> None:
        self.lines: Final[list[str]] = []
        self.roots: Final[list[Node]] = []
        traces: dict[int, list[CapturedSpan]] = {}
        for span in spans:
            traces.setdefault(span.trace_id, []).append(span)
        for trace in traces.values():
            self._add(trace)

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines)

    def marked(self, spans: Collection[CapturedSpan]) -> str:
        """Return all lines indented, those of *spans* with a mark in front."""
        marked = {node.line for node in self._nodes() if node.span in spans}
        return with_marks(self.lines, marked) if self.lines else NOTHING

    def _add(self, trace: list[CapturedSpan]) -> None:
        records = [SpanRecord.of(span.readable) for span in trace]
        forest = Forest(records)
        # Sorting is stable: spans that started at the same moment, as under a frozen clock, stay in their order.
        in_order = sorted(range(len(trace)), key=lambda index: records[index].start_time_ns)
        nodes = [Node(trace[index]) for index in in_order]
        for index, node in enumerate(nodes):
            node.children = [nodes[child] for child in forest.children_of([index])]
        self.roots.extend(nodes[root] for root in forest.roots)
        on_their_way = _downwards([nodes[root] for root in forest.roots])
        current: Node | None = None
        for line in render_tree(records, _STABLE).splitlines():
            guides = _SPAN_LINE.match(line)
            if guides is not None:
                current = next(on_their_way)
                current.line, current.text = len(self.lines), line[guides.end() :]
            elif current is not None:
                current.details.append(line.lstrip(_GUIDES))
            self.lines.append(line[_GUIDE_WIDTH:])

    def _nodes(self) -> Iterator[Node]:
        return _downwards(self.roots)


def with_marks(lines: Sequence[str], marked: Collection[int]) -> str:
    """Return *lines* indented, with a mark in front of those whose numbers are *marked*."""
    return "\n".join(f"{'  > ' if number in marked else '    '}{line}" for number, line in enumerate(lines))


def _downwards(roots: list[Node]) -> Iterator[Node]:
    """Yield all nodes in the order of their lines; without recursion, spans nest deeper than Python calls may."""
    stack = roots[::-1]
    while stack:
        node = stack.pop()
        yield node
        stack += node.children[::-1]
