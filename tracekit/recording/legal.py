"""What users give a span -> what a span may have: attributes and links, legal and within the limits."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.trace import Link, SpanContext

from tracekit._diagnostics import report_failure
from tracekit.recording.bounded import BoundedItems

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace import SpanLimits

# Values that are legal as they are, whatever the limits (strings have one).
NUMBERS: Final = frozenset({int, bool, float})
_STRINGS: Final = frozenset({str})
_SCALARS: Final = NUMBERS | _STRINGS
_PLAIN: Final = frozenset({dict, MappingProxyType})


def cleaned(attributes: Mapping[str, Any], most: int | None, longest: int | None) -> BoundedAttributes | None:
    """Return *attributes* as the SDK would have them; None, and a count, where they raise."""
    try:
        return BoundedAttributes(most, attributes, immutable=True, max_value_len=longest)
    except Exception as error:  # noqa: BLE001  # user values: a `__str__` or an iterator that raises
        if len(attributes) == 1:
            report_failure("span", "an attribute", error)
            return None
    # One of several: the others need not suffer.
    kept = BoundedAttributes(most, immutable=False, max_value_len=longest)
    for key, value in dict(attributes).items():
        one = cleaned({key: value}, most, longest)
        if one:
            kept.update(one)
    return kept


def legal_attributes(attributes: Mapping[str, Any] | None, limits: SpanLimits) -> tuple[dict[str, Any], int]:
    """Return *attributes* as a dict of a span's own, within its *limits*, and how many were dropped."""
    if not attributes:
        return {}, 0
    longest, most = limits.max_span_attribute_length, limits.max_span_attributes
    # Another mapping of the user's might raise when it is read.
    if (
        cast("Any", type(attributes)) in _PLAIN
        and (most is None or len(attributes) <= most)
        and _STRINGS.issuperset(map(type, attributes))
        and (NUMBERS if longest is not None else _SCALARS).issuperset(map(type, attributes.values()))
        and "" not in attributes
    ):
        return dict(attributes), 0
    clean = cleaned(attributes, most, longest)
    return ({}, 0) if clean is None else (dict(clean), clean.dropped)


def legal_links(links: Sequence[Link], limits: SpanLimits) -> Sequence[Link]:
    """Return those of *links* that lead somewhere or say something, within *limits*."""
    found = [legal for link in links if (legal := legal_link(link, limits)) is not None]
    return (
        found if limits.max_links is None or len(found) <= limits.max_links else bounded_links(limits.max_links, found)
    )


def legal_link(link: object, limits: SpanLimits) -> Link | None:
    """Return *link* with legal attributes; None if it neither leads anywhere nor says anything."""
    # Users hand over anything.
    context, attributes = getattr(link, "context", None), getattr(link, "attributes", None)
    if not isinstance(context, SpanContext) or not (context.is_valid or attributes or context.trace_state):
        return None
    legal: Any = cleaned(attributes or {}, limits.max_link_attributes, limits.max_attribute_length)
    return Link(context, legal)


def bounded_links(most: int | None, links: Sequence[Link]) -> Sequence[Link]:
    """Return *links* as a list that keeps the newest *most* of them."""
    from_seq = cast("Callable[[int | None, Sequence[Link]], Sequence[Link]]", BoundedItems.from_seq)
    return from_seq(most, links)
