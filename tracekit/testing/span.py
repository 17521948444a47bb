"""A captured span: what it holds, its place among the others, and assertions that can be chained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final, get_args

from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext, SpanKind, Status
from typing_extensions import Self

from tracekit._semconv import ERROR_TYPE, EVENT_EXCEPTION, EXCEPTION_TYPE
from tracekit.export.text import value_text
from tracekit.testing.pattern import equals, is_like

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event, ReadableSpan

    from tracekit.testing.spans import CapturedSpans

StatusName: TypeAlias = Literal["UNSET", "OK", "ERROR"]
KindName: TypeAlias = Literal["internal", "server", "client", "producer", "consumer"]

_MISSING: Final = object()


@final
class CapturedSpan:
    """
    A span that has ended, with its place among the others; all of `ReadableSpan` is here too, as `readable`.

    What begins with `has_` asserts, and returns the span again:

        spans.one("payments.charge").has_attributes({"amount": 12.5}).has_status("OK").has_no_children()
    """

    __slots__ = ("_spans", "readable")

    def __init__(self, readable: ReadableSpan, spans: CapturedSpans) -> None:
        self.readable: Final = readable
        self._spans: Final = spans

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
        return None if context is None else self._spans.by_id(context.span_id) or context

    @property
    def children(self) -> list[CapturedSpan]:
        """The captured spans below it, in the order in which they started."""
        return [span for span in self._spans.by_start() if _parent_id(span) == self.span_id and span is not self]

    def event(self, name: str) -> Event:
        """
        Return the one event called *name*.

        Raises:
            AssertionError: There is none, or more than one.
        """
        __tracebackhide__ = True
        found = [event for event in self.events if event.name == name]
        if len(found) != 1:
            self._fail(f"has {len(found)} events called {name!r}, expected one. Its events: {self._event_names()}")
        return found[0]

    def has_attributes(self, attributes: Mapping[str, object]) -> Self:
        """
        Assert that it has *attributes*; it may have others.

        Args:
            attributes: Keys and what each must be: a value, a compiled pattern that is found in it, or anything with an
                equality of its own (`mock.ANY`, `pytest.approx`).

        Raises:
            AssertionError: One is missing or another; the message shows what was captured.
        """
        __tracebackhide__ = True
        for key, expected in attributes.items():
            value = self.attributes.get(key, _MISSING)
            if value is _MISSING:
                self._fail(f"has no attribute {key!r}. Its attributes: {', '.join(self.attributes) or 'none'}")
            if not equals(value, expected):
                self._fail(f"has {key}={value_text(value)}, expected {expected!r}")
        return self

    def has_no_attributes(self, *keys: str) -> Self:
        """
        Assert that it has none of the attributes *keys*, in which `*` stands for anything; none given: none at all.

        Raises:
            AssertionError: It has one.
        """
        __tracebackhide__ = True
        for key, value in self.attributes.items():
            if any(is_like(key, unwanted) for unwanted in keys or ("*",)):
                self._fail(f"has {key}={value_text(value)}, expected no such attribute")
        return self

    def has_status(self, status: StatusName, description: str | None = None) -> Self:
        """
        Assert that its status is *status*, and described by *description*, in which `*` stands for anything.

        Raises:
            AssertionError: It is another.
            ValueError: There is no such status.
        """
        __tracebackhide__ = True
        _check_word("status", status, StatusName)
        actual, described = self.status.status_code.name, self.status.description or ""
        if actual != status:
            self._fail(f"has status {actual}{f' ({described})' if described else ''}, expected {status}")
        if description is not None and not is_like(described, description):
            self._fail(f"has the status description {described!r}, expected {description!r}")
        return self

    def has_kind(self, kind: KindName) -> Self:
        """
        Assert that its kind is *kind*.

        Raises:
            AssertionError: It is another.
            ValueError: There is no such kind.
        """
        __tracebackhide__ = True
        _check_word("kind", kind, KindName)
        if self.kind.name.lower() != kind:
            self._fail(f"is of kind {self.kind.name.lower()!r}, expected {kind!r}")
        return self

    def has_event(self, name: str, attributes: Mapping[str, object] | None = None) -> Self:
        """
        Assert that it has an event called *name* with these *attributes* at least, as for `has_attributes`.

        Raises:
            AssertionError: It has none.
        """
        __tracebackhide__ = True
        found = [event for event in self.events if event.name == name]
        wanted = attributes or {}
        if not any(_has(event.attributes or {}, wanted) for event in found):
            shown = "; ".join(", ".join(f"{k}={value_text(v)}" for k, v in (e.attributes or {}).items()) for e in found)
            if not found:
                self._fail(f"has no event {name!r}. Its events: {self._event_names()}")
            self._fail(f"has no event {name!r} with {dict(wanted)!r}, only with {shown or 'no attributes'}")
        return self

    def has_no_event(self, name: str) -> Self:
        """
        Assert that it has no event called *name*, in which `*` stands for anything.

        Raises:
            AssertionError: It has one.
        """
        __tracebackhide__ = True
        found = next((event.name for event in self.events if is_like(event.name, name)), None)
        if found is not None:
            self._fail(f"has the event {found!r}, expected none of that name")
        return self

    def has_exception(self, kind: type[BaseException] | str, message: str = "*") -> Self:
        """
        Assert that an exception of type *kind* was recorded, with *message*, in which `*` stands for anything.

        Args:
            kind: The class (its subclasses do not count), or its name, with or without the module.
            message: What it says.

        Raises:
            AssertionError: There is none.
        """
        __tracebackhide__ = True
        wanted = kind if isinstance(kind, str) else _full_name(kind)
        recorded = [event.attributes or {} for event in self.events if event.name == EVENT_EXCEPTION]
        for exception in recorded:
            named = str(exception.get(EXCEPTION_TYPE, ""))
            is_of_kind = wanted in (named, named.rpartition(".")[2])
            if is_of_kind and is_like(str(exception.get("exception.message", "")), message):
                return self
        # An outer operation that it passed through only says its type.
        if message == "*" and wanted in (named := str(self.attributes.get(ERROR_TYPE, "")), named.rpartition(".")[2]):
            return self
        shown = ", ".join(f"{each.get(EXCEPTION_TYPE)}: {each.get('exception.message')}" for each in recorded)
        instead = f"but {shown}" if shown else "nor any other exception"
        self._fail(f"has recorded no {wanted}{'' if message == '*' else f' with {message!r}'}, {instead}")
        return self

    def has_link(self, to: CapturedSpan | SpanContext) -> Self:
        """
        Assert that one of its links leads to *to*.

        Raises:
            AssertionError: None does.
        """
        __tracebackhide__ = True
        target = to.context if isinstance(to, CapturedSpan) else to
        linked = [link.context for link in self.links]
        if not any((c.trace_id, c.span_id) == (target.trace_id, target.span_id) for c in linked):
            called = to.name if isinstance(to, CapturedSpan) else f"{target.span_id:016x}"
            spans = (self._spans.by_id(context.span_id) for context in linked)
            names = ", ".join(span.name if span is not None else "a span not captured" for span in spans)
            self._fail(f"has no link to {called}. It has links to: {names or 'none'}")
        return self

    def has_child(self, name: str) -> Self:
        """
        Assert that a span called *name*, in which `*` stands for anything, is right below it.

        Raises:
            AssertionError: None is.
        """
        __tracebackhide__ = True
        if not any(is_like(child.name, name) for child in self.children):
            below = ", ".join(child.name for child in self.children) or "none"
            self._fail(f"has no child {name!r}{self._spans.if_open(name)}. Its children: {below}")
        return self

    def has_no_children(self) -> Self:
        """
        Assert that no span is below it.

        Raises:
            AssertionError: One is.
        """
        __tracebackhide__ = True
        if self.children:
            self._fail(f"has the children {', '.join(child.name for child in self.children)}, expected none")
        return self

    def has_parent(self, name: str | None) -> Self:
        """
        Assert that it is right below a captured span called *name*, in which `*` stands for anything; None: a root.

        Raises:
            AssertionError: It is not.
        """
        __tracebackhide__ = True
        parent = self.parent
        if name is None:
            if parent is not None:
                self._fail(f"has {_described(parent)} as its parent, expected none")
        elif not isinstance(parent, CapturedSpan) or not is_like(parent.name, name):
            self._fail(f"has {_described(parent)} as its parent, expected {name!r}{self._spans.if_open(name)}")
        return self

    def _event_names(self) -> str:
        return ", ".join(event.name for event in self.events) or "none"

    def _fail(self, what: str) -> None:
        __tracebackhide__ = True
        raise AssertionError(self._spans.complaint(f"{self.name} {what}", self))

    def __repr__(self) -> str:
        return f"<CapturedSpan {self.name!r} {self.status.status_code.name}>"

    # Unknown to type checkers, which must see a misspelt assertion.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return getattr(self.readable, name)


def _parent_id(span: CapturedSpan) -> int | None:
    return None if span.readable.parent is None else span.readable.parent.span_id


def _has(actual: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    return all(key in actual and equals(actual[key], value) for key, value in wanted.items())


def _described(parent: CapturedSpan | SpanContext | None) -> str:
    if parent is None:
        return "nothing"
    return repr(parent.name) if isinstance(parent, CapturedSpan) else "a span that was not captured"


def _full_name(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _check_word(what: str, given: str, words: Any) -> None:
    """Check that *given* is one of the literals *words*."""
    __tracebackhide__ = True
    if given not in get_args(words):
        *others, last = get_args(words)
        msg = f"has_{what}({given!r}): there is no such {what}, expected {', '.join(others)} or {last}."
        raise ValueError(msg)
