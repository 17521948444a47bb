"""Baggage: set here, bounded, read by the services called from here, and left out where it must not go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry.context import Context

from tracekit import extract, get_baggage, inject, remote_parent, set_baggage, use_context

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACEPARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    with use_context(Context()):
        yield


def received(header: str | bytes | list[str]) -> dict[str, object]:
    return dict(baggage.get_all(extract({"baggage": header})))


def test_entry_holds_from_the_call_on() -> None:
    set_baggage("tenant", "a")
    assert get_baggage("tenant") == "a"
    assert inject() == {"baggage": "tenant=a"}
    set_baggage("tenant", "b")
    assert get_baggage("tenant") == "b"


def test_entry_ends_with_the_block_around() -> None:
    with remote_parent({"traceparent": TRACEPARENT}):
        set_baggage("tenant", "a")
        assert trace.get_current_span().get_span_context().is_valid
    assert get_baggage("tenant") is None


def test_entry_may_have_a_block_of_its_own() -> None:
    set_baggage("tenant", "outer")
    with set_baggage("tenant", "inner"):
        assert get_baggage("tenant") == "inner"
    assert get_baggage("tenant") == "outer"


@pytest.mark.anyio
async def test_entry_does_not_leave_its_task() -> None:
    async def work() -> None:
        async with set_baggage("inner", "a"):
            set_baggage("tenant", "task")
            await asyncio.sleep(0)

    set_baggage("tenant", "a")
    await asyncio.create_task(work())
    assert dict(baggage.get_all()) == {"tenant": "a"}


def test_missing_entry_is_none() -> None:
    assert get_baggage("tenant") is None


def test_none_removes_the_entry() -> None:
    set_baggage("tenant", "a")
    set_baggage("tenant", None)
    set_baggage("never", None)
    assert baggage.get_all() == {}


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (True, "True"), (1.5, "1.5"), ("", "")])
def test_value_is_text(value: object, text: str) -> None:
    set_baggage("key", value)
    assert get_baggage("key") == text
    assert extract(inject()) == context_api.get_current()


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", "a"),
        ("\ud800", "a"),
        ("a", "\ud800"),
        ("a", Unprintable()),
        ("a", "b" * 5_000),
        ("a", "é" * 1_000),
        ("a" * 5_000, "b"),
        (None, "a"),
        (3, "a"),
        ([], "a"),
        ([], None),
    ],
)
def test_entry_that_cannot_be_sent_is_left_out(key: Any, value: object) -> None:
    set_baggage("tenant", "a")
    with set_baggage(key, value):
        assert dict(baggage.get_all()) == {"tenant": "a"}
    assert dict(baggage.get_all()) == {"tenant": "a"}


def test_baggage_grows_no_longer_than_a_header_may_be() -> None:
    for number in range(1_000):
        set_baggage(f"key{number}", "value")
    assert len(baggage.get_all()) == 180
    set_baggage("key0", None)
    for number in range(10):
        set_baggage(f"large{number}", "x" * 1_000)
    assert len(inject()["baggage"]) <= 8_192
    assert extract(inject()) == context_api.get_current()


@pytest.mark.parametrize("key", [None, 3, [], "a"])
def test_reading_what_others_have_set_raises_nothing(key: Any) -> None:
    with use_context(baggage.set_baggage("a", Unprintable())):
        assert get_baggage(key) is None


def test_what_others_have_set_costs_only_itself_when_sent() -> None:
    context = extract({"traceparent": TRACEPARENT, "baggage": "good=1"})
    for value in (Unprintable(), "\ud800", "x" * 9_000):
        context = baggage.set_baggage("bad", value, context)
        assert inject(context=context) == {"traceparent": TRACEPARENT, "baggage": "good=1"}
    context = baggage.set_baggage("\ud800", "a", baggage.remove_baggage("bad", context))
    context = baggage.set_baggage("", "a", context)
    assert inject(context=context) == {"traceparent": TRACEPARENT, "baggage": "good=1"}


def test_header_stays_within_the_limit_when_spaces_are_escaped() -> None:
    context = Context()
    for number in range(7):
        context = baggage.set_baggage(str(number), " " * 1_000, context)
    sent = inject(context=context)["baggage"]
    assert len(sent) <= 8_192
    assert sent.split(",") == [f"{number}=" + "%20" * 1_000 for number in range(2)]


def test_baggage_does_not_go_where_it_must_not() -> None:
    carrier = {"Host": "partner.example", "Baggage": "from=an earlier request"}
    with remote_parent({"traceparent": TRACEPARENT, "baggage": "tenant=a"}):
        assert inject(carrier, baggage=False) == {"Host": "partner.example", "traceparent": TRACEPARENT}
        assert inject(baggage=False) == {"traceparent": TRACEPARENT}
        assert get_baggage("tenant") == "a"


def test_baggage_is_taken_out_even_without_a_trace() -> None:
    assert inject({"BAGGAGE": "a=1", "Host": "b"}, baggage=False) == {"Host": "b"}


def test_plus_is_a_plus_and_space_is_a_space() -> None:
    assert received("a=1+1,b=%2B,c=x%20y") == {"a": "1+1", "b": "+", "c": "x y"}
    set_baggage("a", "1+1 = 2")
    assert inject()["baggage"] == "a=1%2B1%20%3D%202"


@pytest.mark.parametrize(
    ("header", "entries"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ("a=", {"a": ""}),
        (" a = 1 ,\tb=2\t", {"a": "1", "b": "2"}),
        ("a=1;prop;p=2, b=2 ; x", {"a": "1", "b": "2"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=1,a=2", {"a": "2"}),
        ("a=caf%C3%A9", {"a": "café"}),
        ("a=%FF%zz", {"a": "\N{REPLACEMENT CHARACTER}%zz"}),
        ("a=1,bad,b=2,=3,,c=4", {"a": "1", "b": "2", "c": "4"}),
        ("a=1,é=2,b=é,c=3", {"a": "1", "c": "3"}),
        ("a=1,b=x y,c=\x00,d=\r\n,(=1,e=2", {"a": "1", "e": "2"}),
        ('a="1",b=2', {"b": "2"}),
        (f"a=1,b={'x' * 4_100},c=3", {"a": "1", "c": "3"}),
        ("a=1," + "x" * 9_000, {}),
    ],
)
def test_header_is_read_by_the_rules(header: str, entries: dict[str, str]) -> None:
    assert received(header) == entries
    assert received(header.encode()) == entries


def test_several_headers_are_one() -> None:
    assert received(["a=1", "", "b=2,c=3"]) == {"a": "1", "b": "2", "c": "3"}


def test_header_is_read_up_to_the_limits() -> None:
    assert len(received(",".join(f"key{number}=1" for number in range(500)))) == 180
    assert len(received([f"key{number}={'x' * 1_000}" for number in range(20)])) == 8
    assert len(received("a=" + "+" * 2_000 + ",b=" + "+" * 2_000)) <= 2


@given(st.text(min_size=1), st.text())
def test_any_text_arrives_as_it_was_sent(key: str, value: str) -> None:
    with use_context(Context()):
        set_baggage(key, value)
        entries = baggage.get_all(extract(inject()))
    # OpenTelemetry's propagator strips what it has decoded.
    assert dict(entries) == {key.strip(): value.strip()}


@given(st.text(st.characters(codec=None), max_size=200) | st.binary(max_size=200))
def test_no_header_raises_or_is_logged(header: str | bytes) -> None:
    assert all(isinstance(value, str) for value in received(header).values())
