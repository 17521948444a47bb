"""`configure(baggage_attributes=[...])`: chosen baggage entries become attributes of every span, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from tracekit import configure, remote_parent, set_baggage, traced_block, use_context
from tracekit.errors import ConfigurationError
from tracekit.messaging import consuming, producing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    with use_context(Context()):
        yield


def test_chosen_entries_become_attributes_of_every_span() -> None:
    tracing = configure(exporter="memory", baggage_attributes=["tenant.id", "plan"])
    set_baggage("tenant.id", "acme")
    set_baggage("customer", "ada")
    with traced_block("shop.order"), trace.get_tracer("of another library").start_as_current_span("GET"):
        pass
    assert [dict(span.attributes or {}) for span in tracing.spans] == [{"tenant.id": "acme"}, {"tenant.id": "acme"}]


def test_entries_of_a_request_or_message_become_attributes() -> None:
    tracing = configure(exporter="memory", baggage_attributes=["tenant.id"])
    with remote_parent({"baggage": "tenant.id=acme"}), producing("orders", system="kafka") as headers:
        pass
    with consuming("orders", headers, system="kafka"):
        pass
    assert [span.attributes and span.attributes["tenant.id"] for span in tracing.spans] == ["acme"] * 2


def test_entries_of_the_given_context_count() -> None:
    tracing = configure(exporter="memory", baggage_attributes=["tenant.id"])
    with set_baggage("tenant.id", "current"):
        given = baggage.set_baggage("tenant.id", "given", Context())
        trace.get_tracer("of another library").start_span("GET", context=given).end()
    assert tracing.spans[0].attributes == {"tenant.id": "given"}


def test_attribute_that_a_span_has_already_stays() -> None:
    tracing = configure(exporter="memory", baggage_attributes=["tenant.id"])
    with set_baggage("tenant.id", "baggage"), traced_block("shop.order", {"tenant.id": "own"}):
        pass
    assert tracing.spans[0].attributes == {"tenant.id": "own"}


def test_values_are_bounded_and_secrets_redacted() -> None:
    tracing = configure(exporter="memory", baggage_attributes=["tenant.id", "session_id"])
    with set_baggage("tenant.id", "a" * 4_000), set_baggage("session_id", "s-1"), traced_block("shop.order"):
        pass
    attributes: Any = tracing.spans[0].attributes
    assert len(attributes["tenant.id"]) == 2_048
    assert attributes["session_id"] == "[redacted]"


def test_processors_see_the_attributes_at_the_start() -> None:
    class Seeing(SpanProcessor):
        def on_start(self, span: Any, parent_context: Context | None = None) -> None:
            seen.append(dict(span.attributes))

    seen: list[dict[str, Any]] = []
    configure(exporter=[Seeing()], baggage_attributes=["tenant.id"])
    with set_baggage("tenant.id", "acme"), traced_block("shop.order"):
        pass
    assert seen == [{"tenant.id": "acme"}]


def test_traces_kept_for_their_errors_have_them_too() -> None:
    tracing = configure(exporter="memory", sample=0.0, keep_errors=True, baggage_attributes=["tenant.id"])
    with pytest.raises(ValueError), set_baggage("tenant.id", "acme"), traced_block("shop.order"):  # noqa: PT011
        raise ValueError
    attributes: Any = tracing.spans[0].attributes
    assert attributes["tenant.id"] == "acme"


def test_spans_of_a_provider_of_ones_own_have_them() -> None:
    provider = TracerProvider()
    tracing = configure(provider=provider, exporter="memory", baggage_attributes=["tenant.id"])
    with set_baggage("tenant.id", "acme"):
        provider.get_tracer("own").start_span("GET").end()
    assert tracing.spans[0].attributes == {"tenant.id": "acme"}


def test_next_configure_decides_anew() -> None:
    configure(exporter="memory", baggage_attributes=["tenant.id"])
    tracing = configure(exporter="memory")
    with set_baggage("tenant.id", "acme"), traced_block("shop.order"):
        pass
    assert not tracing.spans[0].attributes


@pytest.mark.parametrize("wrong", ["tenant.id", [7], [""], {"tenant.id": "acme"}])
def test_wrong_names_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'Write baggage_attributes=\["tenant.id"\]'):
        configure(exporter="none", baggage_attributes=wrong)
