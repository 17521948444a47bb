"""Copying baggage to spans: the entries that `configure(baggage_attributes=...)` names, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from opentelemetry import baggage
from opentelemetry.sdk.trace import SpanProcessor

from tracekit._attributes import AttributeValue, put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span

    from tracekit._redaction import Redactor


@final
class BaggageAttributes(SpanProcessor):
    """
    Gives each span the chosen baggage entries as attributes, at its start; an attribute that it has already stays.

    Args:
        keys: Names of entries, and of the attributes.
        redactor: Which names are secret.
        string_limit: Longest value, in characters.
    """

    def __init__(self, keys: Sequence[str], redactor: Redactor, string_limit: int) -> None:
        self._keys: Final = tuple(keys)
        self._redactor: Final = redactor
        self._string_limit: Final = string_limit

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Copy what the baggage of *parent_context* (None: the current one) has of the chosen entries."""
        entries = baggage.get_all(parent_context)
        if not entries:
            return
        own = span.attributes or {}
        attributes: dict[str, AttributeValue] = {}
        for key in self._keys:
            if key in entries and key not in own:
                put(attributes, key, entries[key], self._redactor, self._string_limit, "baggage_attributes")
        if attributes:
            span.set_attributes(attributes)
