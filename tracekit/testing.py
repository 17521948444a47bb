"""
Capturing spans in tests: `capture_spans()`, and the pytest fixture `spans`.

What is captured goes nowhere else, whatever `configure` or the environment say, and nothing stays behind.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import dedent
from typing import Any, Final, final, overload

from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext, SpanKind, Status

from tracekit._config import runtime
from tracekit.export.record import SpanRecord
from tracekit.export.tree import TreeOptions, render_tree
from tracekit.recording import EntropyIdGenerator

# No ids, no durations, nothing folded: the same program gives the same text.
_STABLE: Final = TreeOptions(header=False, ids=False, durations=False, fold_from=0, max_lines=10_000)
_GUIDES: Final = "│├└─ "
# What lines of events and links begin with.
_MARKS: Final = "•→"
# What joins the roots to the header, which is left out here.
_GUIDE_WIDTH: Final = 3


@final
class CapturedSpan:
    """A span that has ended, with its place among the others; all of `ReadableSpan` is here too, as `readable`."""

    __slots__ = ("_spans", "readable")

    def __init__(self, readable: ReadableSpan, spans: CapturedSpans) -> None:
        self.readable = readable
        self._spans = spans

    @property
    def name(self) -> str:
        """The span's name."""
        return self.readable.name

    @property
    def kind(self) -> SpanKind:
        """The span's kind."""
        return self.readable.kind

    @property
    def context(self) -> SpanContext:
        """The span's own context."""
        return self.readable.context or INVALID_SPAN_CONTEXT

    @property
    def trace_id(self) -> int:
        """The id of its trace."""
        return self.context.trace_id

    @property
    def span_id(self) -> int:
        """Its own id."""
        return self.context.span_id

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Its attributes."""
        return self.readable.attributes or {}

    @property
    def events(self) -> Sequence[Event]:
        """Its events, in order."""
        return self.readable.events

    @property
    def links(self) -> Sequence[Link]:
        """Its links, in order."""
        return self.readable.links

    @property
    def status(self) -> Status:
        """Its status."""
        return self.readable.status

    @property
    def parent(self) -> CapturedSpan | SpanContext | None:
        """The captured span it is a child of; the context of one that was not captured; None at the root."""
        context = self.readable.parent
        if context is None:
            return None
        return next((span for span in self._spans if span.span_id == context.span_id), context)

    @property
    def children(self) -> list[CapturedSpan]:
        """The captured spans below it, in the order in which they started."""
        found = [span for span in self._spans if (span.readable.parent or span.context).span_id == self.span_id]
        return sorted((span for span in found if span is not self), key=lambda span: span.readable.start_time or 0)

    def event(self, name: str) -> Event:
        """
        Return the one event called *name*.

        Raises:
            AssertionError: There is none, or more than one.
        """
        found = [event for event in self.events if event.name == name]
        if len(found) != 1:
            names = ", ".join(event.name for event in self.events) or "none"
            msg = f"{self.name} has {len(found)} events called {name!r}, expected one. Its events: {names}"
            raise AssertionError(msg)
        return found[0]

    def __repr__(self) -> str:
        return f"<CapturedSpan {self.name!r} {self.status.status_code.name}>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.readable, name)


@final
class CapturedSpans(Sequence[CapturedSpan]):
    """The spans that have ended so far, in the order in which they ended; live while capturing."""

    __slots__ = ("_lock", "_spans")

    def __init__(self) -> None:
        # Re-entrant: a finaliser may end a span while this thread appends one.
        self._lock = threading.RLock()
        self._spans: list[CapturedSpan] = []

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> CapturedSpan: ...

    @overload
    def __getitem__(self, index: slice) -> list[CapturedSpan]: ...

    def __getitem__(self, index: int | slice) -> CapturedSpan | list[CapturedSpan]:
        return self._spans[index]

    def __iter__(self) -> Iterator[CapturedSpan]:
        with self._lock:
            return iter(list(self._spans))

    @property
    def names(self) -> list[str]:
        """The names, in the order in which the spans ended."""
        return [span.name for span in self]

    @property
    def roots(self) -> list[CapturedSpan]:
        """The spans whose parent was not captured, in the order in which they ended."""
        return [span for span in self if not isinstance(span.parent, CapturedSpan)]

    def one(self, name: str) -> CapturedSpan:
        """
        Return the one span called *name*.

        Raises:
            AssertionError: There is none, or more than one; the message shows the tree.
        """
        found = self.all(name)
        if len(found) != 1:
            msg = f"{len(found)} spans are called {name!r}, expected one. Captured:\n{self.tree() or '(nothing)'}"
            raise AssertionError(msg)
        return found[0]

    def all(self, name: str | None = None) -> list[CapturedSpan]:
        """Return the spans called *name*, or all of them, in the order in which they ended."""
        return [span for span in self if name is None or span.name == name]

    def tree(self) -> str:
        """Return all traces as text that is the same in each run: no ids, no durations."""
        traces: dict[int, list[SpanRecord]] = {}
        for span in sorted(self, key=lambda span: span.readable.start_time or 0):
            traces.setdefault(span.trace_id, []).append(SpanRecord.of(span.readable))
        lines = [line for trace in traces.values() for line in render_tree(trace, _STABLE).splitlines()]
        return "\n".join(line[_GUIDE_WIDTH:] for line in lines)

    def assert_tree(self, expected: str) -> None:
        """
        Assert that the captured spans are those of *expected*, one a line, children below their parent and deeper.

        A line is compared in what it says: a name alone matches whatever the attributes; `key=value` and `ERROR ...`
        must be there. Events (`•`) and links (`→`) may be left out. The guides (`├─`) may be replaced by spaces.

        Raises:
            AssertionError: They differ; the message shows both.
        """
        actual = self.tree()
        if not _matches(_lines(expected), _lines(actual)):
            msg = f"The trees differ.\nExpected:\n{dedent(expected).strip()}\n\nCaptured:\n{actual or '(nothing)'}"
            raise AssertionError(msg)

    def clear(self) -> None:
        """Forget what was captured so far."""
        with self._lock:
            self._spans.clear()

    def _append(self, span: ReadableSpan) -> None:
        with self._lock:
            self._spans.append(CapturedSpan(span, self))


@contextmanager
def capture_spans() -> Generator[CapturedSpans, None, None]:
    """
    Capture every span that tracekit and what it instruments make in this process, on any thread, sampled or not.

    Independent of OpenTelemetry's global provider and of `configure`, also where it is called meanwhile.
    """
    spans = CapturedSpans()
    # The SDK's own ids come from the random numbers a test may have seeded.
    provider = TracerProvider(sampler=ALWAYS_ON, id_generator=EntropyIdGenerator(), shutdown_on_exit=False)
    provider.add_span_processor(_Capture(spans))
    undo = runtime.capture(provider)
    try:
        yield spans
    finally:
        undo()


@final
class _Capture(SpanProcessor):
    def __init__(self, spans: CapturedSpans) -> None:
        self._spans = spans

    def on_end(self, span: ReadableSpan) -> None:
        """Keep *span*."""
        self._spans._append(span)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # of the same room


def _lines(tree: str) -> list[tuple[int, str]]:
    """Return each line of *tree* as its depth in characters and what it says."""
    lines = [line for line in dedent(tree).splitlines() if line.strip()]
    return [(len(line) - len(line.lstrip(_GUIDES)), line.lstrip(_GUIDES).rstrip()) for line in lines]


def _matches(expected: list[tuple[int, str]], actual: list[tuple[int, str]]) -> bool:
    told = {content[0] for _, content in expected}
    shown = [line for line in actual if line[1][0] in told or line[1][0] not in _MARKS]
    return (
        len(shown) == len(expected)
        and _depths(shown) == _depths(expected)
        and all(_says(line, wanted) for (_, line), (_, wanted) in zip(shown, expected, strict=True))
    )


def _depths(lines: list[tuple[int, str]]) -> list[int]:
    """Return how many lines each one stands below: the same for guides of any width."""
    depths: list[int] = []
    open_lines: list[int] = []
    for indent, content in lines:
        if content[0] in _MARKS:
            depths.append(0)  # they follow their span, however far in they are written
            continue
        while open_lines and open_lines[-1] >= indent:
            open_lines.pop()
        depths.append(len(open_lines))
        open_lines.append(indent)
    return depths


def _says(line: str, wanted: str) -> bool:
    """Tell whether *line* has the name *wanted* begins with, and then its words in their order."""
    name, _, said = line.partition("  ")
    if wanted != name and not wanted.startswith(f"{name} "):
        return False
    words = iter(said.split())
    return all(word in words for word in wanted[len(name) :].split())
