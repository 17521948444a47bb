"""How much one span may hold: the `OTEL_*_LIMIT` variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import SpanLimits

from tracekit._config import DEFAULT_STRING_LIMIT

if TYPE_CHECKING:
    from tracekit._environment import Environment


def span_limits(variables: Environment) -> SpanLimits:
    """
    Return the limits that the environment sets, the specification's for the others.

    Source: OpenTelemetry specification, configuration/sdk-environment-variables, attribute and span limits.
    """
    return SpanLimits(
        max_attributes=variables.integer("OTEL_ATTRIBUTE_COUNT_LIMIT"),
        max_events=variables.integer("OTEL_SPAN_EVENT_COUNT_LIMIT"),
        max_links=variables.integer("OTEL_SPAN_LINK_COUNT_LIMIT"),
        max_span_attributes=variables.integer("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"),
        max_event_attributes=variables.integer("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT"),
        max_link_attributes=variables.integer("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT"),
        max_attribute_length=variables.integer("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
        max_span_attribute_length=variables.integer("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
    )


def string_limit(limits: SpanLimits) -> int:
    """Return the longest attribute string tracekit records, in characters."""
    # The SDK has given the span's own limit the general one where only that is set.
    return DEFAULT_STRING_LIMIT if limits.max_span_attribute_length is None else limits.max_span_attribute_length
