"""About how many bytes a span holds: cheap enough to ask of every span that ends."""

# ruff: noqa: SLF001  # read by fields: the SDK's properties make copies

from __future__ import annotations

from typing import Any, Final

# What a span has without attributes, and each of its attributes, events and links besides their texts.
SPAN_BYTES: Final = 256
_ITEM_BYTES: Final = 32


def weight_of(span: Any) -> int:
    """Return about how many bytes *span* takes when it is written."""
    try:
        attributes, events, links = span._attributes, span._events, span._links
        weight = SPAN_BYTES + _weight_of_all(attributes) if attributes else SPAN_BYTES
        if events:
            for event in events:
                weight += SPAN_BYTES + _weight_of_all(event.attributes or {})
        return weight + len(links) * SPAN_BYTES if links else weight
    except Exception:  # noqa: BLE001  # a span unlike others
        return SPAN_BYTES


def _weight_of_all(attributes: Any) -> int:
    # The SDK's mapping is eight times as slow to go through as what is in it.
    items: dict[str, Any] = getattr(attributes, "_dict", attributes)
    weight = _ITEM_BYTES * len(items)
    for value in items.values():
        kind: object = type(value)  # pyright: ignore[reportUnknownVariableType]  # it is one
        if kind is str or kind is bytes:
            weight += len(value)
        elif kind is tuple or kind is list:
            weight += _ITEM_BYTES * len(value) + sum([len(item) for item in value if isinstance(item, str)])
    return weight
