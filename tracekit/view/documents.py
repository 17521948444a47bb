"""JSON documents put together from lines: one a line, or one over many lines as people format them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, cast, final

from tracekit.view.lines import MAX_LINE

if TYPE_CHECKING:
    from collections.abc import Iterator

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_SIGNALS: Final = frozenset({"resourceSpans", "resource_spans", "resourceMetrics", "resourceLogs"})
# Between the documents of a list that stand on a line each.
_PUNCTUATION: Final = frozenset({b"[", b"]", b","})


@final
class DocumentReader:
    """
    Lines in, documents out; lines that belong to none are counted.

    A document may be spread over lines, so one that breaks off waits for those that follow, until they close it or one
    of them is a whole request: a program that was killed while it wrote leaves half a line.
    """

    __slots__ = ("_depth", "_pending", "_size", "damaged_lines")

    def __init__(self) -> None:
        self.damaged_lines = 0
        self._pending: list[bytes] = []
        self._depth = 0
        self._size = 0

    def feed(self, line: bytes) -> Iterator[Any]:
        """Yield the document that *line* is or completes, if it does."""
        line = line.strip()
        if not self._pending:
            yield from self._begin(line)
        elif not self._pending[0].startswith(b"[") and _is_request(request := _alone(line)):
            self._give_up()
            yield request
        else:
            yield from self._go_on(line)

    def end(self) -> None:
        """Count what no line has closed."""
        self._give_up()

    def _begin(self, line: bytes) -> Iterator[Any]:
        if not line or line in _PUNCTUATION:
            return
        try:
            document = json.loads(line.removesuffix(b","))
        except json.JSONDecodeError as error:
            # Broken off, not wrong: everything up to its end could stand in a document.
            if line.startswith((b"{", b"[")) and error.pos >= len(error.doc) - 1:
                self._keep(line)
            else:
                self.damaged_lines += 1
        except (ValueError, RecursionError):  # no UTF-8; nested too deeply; an integer of thousands of digits
            self.damaged_lines += 1
        else:
            yield document

    def _go_on(self, line: bytes) -> Iterator[Any]:
        self._keep(line)
        if self._depth > 0:
            if self._size > MAX_LINE:
                self._give_up()
            return
        try:
            document = json.loads(b"\n".join(self._pending).removesuffix(b","))
        except (ValueError, RecursionError):
            self._give_up()
        else:
            self._forget()
            yield document

    def _keep(self, line: bytes) -> None:
        self._pending.append(line)
        self._size += len(line)
        brackets = _STRING.sub(b"", line)
        self._depth += sum(map(brackets.count, (b"{", b"["))) - sum(map(brackets.count, (b"}", b"]")))

    def _give_up(self) -> None:
        self.damaged_lines += len(self._pending)
        self._forget()

    def _forget(self) -> None:
        self._pending, self._depth, self._size = [], 0, 0


def _alone(line: bytes) -> Any:
    """Return the document that *line* is by itself, or None."""
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_request(document: Any) -> bool:
    return isinstance(document, dict) and not _SIGNALS.isdisjoint(cast("dict[str, Any]", document))
