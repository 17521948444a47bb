"""All captured spans: finding one, all or none, and comparing the tree they make with the one a test expects."""

from __future__ import annotations

import difflib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, final, overload

from tracekit.testing.expected import ExpectedTree
from tracekit.testing.pattern import is_like
from tracekit.testing.picture import NOTHING, Picture, with_marks
from tracekit.testing.span import CapturedSpan

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, Span

# Set to 1, files of expected trees that do not fit are written anew.
UPDATE_VARIABLE: Final = "TRACEKIT_UPDATE_TREES"
# A slip of the pen, not another name.
_CLOSE: Final = 0.8


@final
class CapturedSpans(Sequence[CapturedSpan]):
    """The spans that have ended so far, in the order in which they ended; live while capturing."""

    __slots__ = ("_by_id", "_changed", "_open", "_order", "_spans")

    def __init__(self) -> None:
        # Its lock is re-entrant: a finaliser may end a span while this thread appends one.
        self._changed: Final = threading.Condition()
        self._spans: Final[list[CapturedSpan]] = []
        self._by_id: Final[dict[int, CapturedSpan]] = {}
        # By span id. The order is that of the starts: a frozen clock tells none.
        self._open: Final[dict[int, CapturedSpan]] = {}
        self._order: Final[dict[int, int]] = {}

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> CapturedSpan: ...

    @overload
    def __getitem__(self, index: slice) -> list[CapturedSpan]: ...

    def __getitem__(self, index: int | slice) -> CapturedSpan | list[CapturedSpan]:
        return self._spans[index]

    def __iter__(self) -> Iterator[CapturedSpan]:
        with self._changed:
            return iter(list(self._spans))

    @property
    def names(self) -> list[str]:
        """The names, in the order in which the spans ended."""
        return [span.name for span in self]

    @property
    def roots(self) -> list[CapturedSpan]:
        """The spans whose parent was not captured, in the order in which they ended."""
        return [span for span in self if not isinstance(span.parent, CapturedSpan)]

    @property
    def still_open(self) -> list[str]:
        """The names of the spans that have started and not ended yet."""
        return [span.name for span in self._open_spans()]

    def one(self, name: str) -> CapturedSpan:
        """
        Return the one span called *name*, in which `*` stands for anything.

        Raises:
            AssertionError: There is none, or more than one; the message shows the tree.
        """
        __tracebackhide__ = True
        found = self.all(name)
        if len(found) != 1:
            what = f"{len(found)} spans are called {name!r}, expected one{self._hint(name, found)}"
            raise AssertionError(self.complaint(what, *found))
        return found[0]

    def all(self, name: str | None = None) -> list[CapturedSpan]:
        """Return the spans called *name* (`*` stands for anything), or all, in the order in which they ended."""
        return [span for span in self if name is None or is_like(span.name, name)]

    def none(self, name: str) -> None:
        """
        Assert that no span is called *name*, in which `*` stands for anything; one that is still open counts too.

        Raises:
            AssertionError: One is; the message shows the tree.
        """
        __tracebackhide__ = True
        found = [*self.all(name), *(span for span in self._open_spans() if is_like(span.name, name))]
        if found:
            raise AssertionError(self.complaint(f"{found[0].name} was not expected", *found))

    def wait_for(self, name: str, count: int = 1, timeout_s: float = 5.0) -> list[CapturedSpan]:
        """
        Wait until *count* spans called *name* have ended, on other threads, and return them.

        It blocks: in a coroutine, await the work itself.

        Raises:
            AssertionError: They have not within *timeout_s* seconds; the message shows what there was until then.
        """
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while len(found := self.all(name)) < count and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
        if len(found) < count:
            what = f"{len(found)} of {count} spans called {name!r} have ended within {timeout_s:g} s"
            raise AssertionError(self.complaint(what + self._hint(name, found), *found))
        return found

    def tree(self) -> str:
        """Return all traces as text that is the same in each run: no ids, no durations."""
        return Picture(self.by_start()).text

    def assert_tree(self, expected: str | os.PathLike[str], *, in_any_order: bool = False) -> None:
        """
        Assert that the captured spans are those of *expected*, one a line, children below their parent and deeper.

        A line is compared in what it says: a name alone matches whatever the attributes; `key=value`, `ERROR ...` must
        be there. `*` stands for anything, `key~regex` for what a regular expression finds, a line `...` for any
        number of spans in its place. Events (`•`) and links (`→`) may be left out. The guides (`├─`) may be replaced by
        spaces.

        Args:
            expected: The tree, or the path of a file that holds it; with TRACEKIT_UPDATE_TREES=1 a file that does not
                fit is written anew.
            in_any_order: Whether siblings may have started in another order, as those of threads do.

        Raises:
            AssertionError: They differ; the message shows both, and points to the first line that differs.
        """
        __tracebackhide__ = True
        is_file = not isinstance(expected, str)
        path = Path(expected) if is_file else None
        wanted = ExpectedTree(_text_of(path) if path is not None else str(expected), in_any_order=in_any_order)
        picture = Picture(self.by_start())
        difference = wanted.difference(picture.roots)
        if difference is None:
            return
        if path is not None and os.environ.get(UPDATE_VARIABLE) == "1":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{picture.text}\n", encoding="utf-8")
            return
        at_line = "" if difference.is_extra else f" at line {difference.line + 1}"
        if path is not None:
            at_line += f" of {path}" if at_line else f" from {path}"
        shown = with_marks(wanted.lines, () if difference.is_extra else {difference.line}) or NOTHING
        what = f"The trees differ{at_line}: {difference.reason}\n\nExpected:\n{shown}\n"
        if path is not None:
            what += f"(with {UPDATE_VARIABLE}=1 the file is written anew)\n"
        raise AssertionError(self.complaint(what, *filter(None, [difference.span])))

    def clear(self) -> None:
        """Forget what has ended so far."""
        with self._changed:
            self._spans.clear()
            self._by_id.clear()

    def by_id(self, span_id: int) -> CapturedSpan | None:
        """Return the span that has the id *span_id*, if it has ended."""
        return self._by_id.get(span_id)

    def by_start(self) -> list[CapturedSpan]:
        """Return the spans that have ended, in the order in which they started."""
        return self._in_order(self)

    def if_open(self, name: str) -> str:
        """Return what a message says if a span called *name* has started and not ended yet."""
        found = next((opened for opened in self.still_open if is_like(opened, name)), None)
        return f"; {found} has not ended yet" if found is not None else ""

    def _hint(self, name: str, found: Sequence[CapturedSpan]) -> str:
        """Return what a message adds if fewer spans were *found* than expected: one still open, a name like it."""
        opened = self.if_open(name)
        if opened or found:
            return opened
        close = difflib.get_close_matches(name, {*self.names, *self.still_open}, n=1, cutoff=_CLOSE)
        return f". Did you mean {close[0]!r}?" if close else ""

    def complaint(self, what: str, *spans: CapturedSpan) -> str:
        """Return the message of an assertion that failed: *what*, and all that was captured, with marks at *spans*."""
        still_open = self._open_spans()
        captured = Picture(self._in_order([*self, *still_open])).marked(spans)
        stop = "\n" if "\n" in what else " " if what.endswith("?") else ". "
        message = f"{what}{stop}Captured:\n{captured}"
        if still_open:
            message += f"\nNot ended yet: {', '.join(span.name for span in still_open)}"
        return message

    def _open_spans(self) -> list[CapturedSpan]:
        with self._changed:
            return self._in_order(list(self._open.values()))

    def _in_order(self, spans: Sequence[CapturedSpan]) -> list[CapturedSpan]:
        return sorted(spans, key=lambda span: self._order.get(span.span_id, 0))

    def _start(self, span: Span) -> None:
        opened = CapturedSpan(span, self)
        with self._changed:
            self._order[opened.span_id] = len(self._order)
            self._open[opened.span_id] = opened

    def _end(self, span: ReadableSpan) -> None:
        ended = CapturedSpan(span, self)
        with self._changed:
            self._open.pop(ended.span_id, None)
            self._spans.append(ended)
            self._by_id[ended.span_id] = ended
            self._changed.notify_all()


def _text_of(path: Path) -> str:
    """Return what the file says; nothing if there is none yet."""
    return path.read_text(encoding="utf-8") if path.exists() else ""
