"""Where a span belongs: its parent, where that is not the current span, and what it is linked to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext

from tracekit._attributes import attribute_items
from tracekit._config import runtime
from tracekit._context import ACTIVE_KEY, SPAN_KEY, current_context, replace_context

if TYPE_CHECKING:
    from tracekit._operation import Operation

# Under this key a context holds the span that traces which begin there are linked to.
ORIGIN_KEY: Final = "tracekit-origin"


def relations(operation: Operation, values: tuple[Any, ...], current: Context) -> tuple[Context, list[Link]]:
    """Return the context the span starts in, and its links, as `root`, `parent` and `links` ask for."""
    base, links = current, list[Link]()
    if operation.root:
        before = trace_api.get_current_span(current).get_span_context()
        if before.is_valid:
            links.append(Link(before))
        base = trace_api.set_span_in_context(trace_api.INVALID_SPAN, current)
    elif operation.parent is not None:
        given = operation.parent(values)
        extracted = given if isinstance(given, Context) else _extract(given)
        if trace_api.get_current_span(extracted).get_span_context().is_valid:
            merged: dict[str, Any] = {**current, **extracted}
            base = Context(merged)
    origin = current.get(ORIGIN_KEY)
    if isinstance(origin, SpanContext) and not trace_api.get_current_span(base).get_span_context().is_valid:
        links.append(Link(origin))
    if operation.links is not None:
        links.extend(link_to(target) for target in _targets(operation.links(values)))
    return base, [link for link in links if link.context.is_valid]


def begin_new_traces() -> None:
    """Leave the current trace for good: what is traced from now on begins new ones, each linked to the current span."""
    before = current_context()
    values: dict[str, Any] = {key: value for key, value in before.items() if key not in (SPAN_KEY, ACTIVE_KEY)}
    origin = trace_api.get_current_span(before).get_span_context()
    if origin.is_valid:
        values[ORIGIN_KEY] = origin
    replace_context(Context(values))


def _targets(given: object) -> Sequence[object]:
    # A list of pairs is one carrier (ASGI headers); a list of anything else is several.
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        return (given,)
    items = cast("Sequence[object]", given)
    are_pairs = all(isinstance(item, tuple) and not isinstance(item, SpanContext) for item in items)
    return (items,) if are_pairs else items


def link_to(target: object) -> Link:
    """Return a link to *target*: a Link, a SpanContext, a Span, a Context or a carrier of one."""
    if isinstance(target, Link):
        settings = runtime.settings
        return Link(
            target.context, attribute_items(target.attributes, settings.redactor, settings.string_limit, "links")
        )
    if isinstance(target, SpanContext):
        return Link(target)
    if isinstance(target, Span):
        return Link(target.get_span_context())
    context = target if isinstance(target, Context) else _extract(target)
    return Link(trace_api.get_current_span(context).get_span_context())


def _extract(carrier: object) -> Context:
    # Here: a program that has no carriers does without the 5 ms of the import.
    from tracekit.propagation import extract

    return extract(carrier)
