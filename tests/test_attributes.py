"""Any Python value becomes a legal, bounded attribute or is left out, and nothing it does reaches the caller."""

from __future__ import annotations

import collections
import decimal
import enum
import fractions
import ipaddress
import json
import math
import pathlib
import types
import uuid
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit import add_event, configure, set_attribute, set_attributes, traced, traced_block
from tracekit.testing import CapturedSpans, capture_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Colour(enum.Enum):
    RED = "red"
    NUMBER = 3


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    """A string that lies about itself."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __len__ = __eq__ = __hash__ = encode = isascii = __str__  # type: ignore[assignment]


class Number(int):
    """A number that lies about itself."""

    def __int__(self) -> int:
        raise RuntimeError

    __str__ = __repr__ = __index__ = __bool__ = __lt__ = __le__ = __ge__ = bit_length = __int__  # type: ignore[assignment]


class Listed(list[int]):
    """A list that never ends."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1


class Fails:
    """An object on which everything fails."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __iter__ = __len__ = __bool__ = __eq__ = __hash__ = __str__  # type: ignore[assignment]


class Liar:
    """An object that claims to be a string."""

    __class__ = str  # type: ignore[assignment]


class FailingMapping(collections.UserDict[str, int]):
    def items(self) -> Any:
        raise KeyError


def of_failing_class() -> object:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            raise RuntimeError

    class WithMeta(metaclass=Meta): ...

    return WithMeta()


def _self_containing_list() -> list[Any]:
    made: list[Any] = [1]
    made.append(made)
    return made


def _self_containing_dict() -> dict[str, Any]:
    made: dict[str, Any] = {"a": 1}
    made["self"] = made
    return made


def _deep(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def _recorded(value: object) -> Any:
    """Return what became of *value* as an attribute; None where it was left out."""
    with capture_spans() as spans, traced_block("test.block"):
        set_attribute("key", value)
    return spans.one("test.block").attributes.get("key")


@pytest.mark.parametrize(
    ("value", "recorded"),
    [
        (True, True),
        (3, 3),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, str(2**63)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (1 << 10_000, "<int of 10001 bits>"),
        (1.5, 1.5),
        ("hello", "hello"),
        ("", ""),
        (b"bytes \xff", "bytes \\xff"),
        (bytearray(b"bytes"), "bytes"),
        (Colour.RED, "red"),
        (Colour.NUMBER, "NUMBER"),
        (Level.HIGH, 3),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.10"), "1.10"),
        (fractions.Fraction(1, 3), "1/3"),
        (datetime(2026, 1, 2, tzinfo=timezone.utc), "2026-01-02T00:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(1, 2), "01:02:00"),
        (timedelta(seconds=1), "0:00:01"),
        (pathlib.PurePosixPath("/a"), "/a"),
        (ipaddress.ip_address("::1"), "::1"),
        ([1, 2], (1, 2)),
        ((1, 2.5), (1.0, 2.5)),
        (["a", "b"], ("a", "b")),
        ([True, False], (True, False)),
        ([uuid.UUID(int=1)], ("00000000-0000-0000-0000-000000000001",)),
        ([], ()),
        (frozenset({1}), (1,)),
        (range(3), (0, 1, 2)),
        (collections.deque([1]), (1,)),
        ([1, "a"], '[1, "a"]'),
        ([None], "[null]"),
        ([[1], [2]], "[[1], [2]]"),
        ({"a": 1}, '{"a": 1}'),
        (collections.OrderedDict(a=[1]), '{"a": [1]}'),
        (types.MappingProxyType({"a": 1}), '{"a": 1}'),
        ({1: object()}, '{"1": "<object>"}'),
        (None, None),
    ],
)
def test_value_is_recorded_as(value: object, recorded: object) -> None:
    found = _recorded(value)
    assert found == recorded
    assert type(found) is type(recorded)


@pytest.mark.parametrize("make", [object, Listed, Liar, Fails, of_failing_class, lambda: print, lambda: iter([1])])
def test_value_without_a_safe_form_is_left_out(make: Callable[[], object]) -> None:
    assert _recorded(make()) is None
    name = type.__dict__["__name__"].__get__(type(make()))
    assert _recorded({"inside": make()}) == f'{{"inside": "<{name}>"}}'


def test_a_string_that_lies_about_itself_is_recorded_as_what_it_is() -> None:
    assert _recorded(Text("hello")) == "hello"
    assert type(_recorded(Text("hello"))) is str


def test_a_number_that_lies_about_itself_is_recorded_as_what_it_is() -> None:
    assert _recorded(Number(7)) == 7
    assert type(_recorded(Number(7))) is int


def test_not_a_number_and_infinity_stay_numbers() -> None:
    assert math.isnan(_recorded(math.nan))
    assert _recorded(math.inf) == math.inf


def test_lone_surrogates_are_escaped() -> None:
    assert _recorded("caf\udce9") == "caf\\udce9"
    assert _recorded(["\ud800"]) == ("\\ud800",)
    assert json.loads(_recorded({"\ud800": "\ud800"})) == {"\\ud800": "\\ud800"}


def test_long_strings_are_cut_and_marked() -> None:
    for long in ("x" * 10_000_000, b"x" * 10_000_000, {"key": "x" * 10_000}):
        found = _recorded(long)
        assert len(found) == 2_048
        assert found.endswith("…")
    assert _recorded("x" * 2_048) == "x" * 2_048


def test_string_limit_of_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5")
    configure(exporter="none")
    assert _recorded("hello world") == "hell…"


def test_long_sequences_are_cut_without_being_gone_through() -> None:
    assert _recorded(range(10**12)) == tuple(range(128))
    assert _recorded(list(range(1_000))) == tuple(range(128))
    assert len(json.loads(_recorded(dict.fromkeys(map(str, range(300)))))) == 128


@pytest.mark.parametrize("make", [_self_containing_list, _self_containing_dict, lambda: _deep(100_000)])
def test_endless_nesting_ends(make: Any) -> None:
    assert len(_recorded(make())) < 2_049


def test_width_and_depth_together_stay_cheap() -> None:
    wide: list[Any] = ["x" * 100] * 128
    for _ in range(20):
        wide = [wide] * 128
    assert len(_recorded(wide)) <= 2_048


@pytest.mark.parametrize("make", [str, lambda: None, lambda: 3, object, bytes])
def test_a_key_that_is_no_name_is_left_out(spans: CapturedSpans, make: Callable[[], Any]) -> None:
    with traced_block("test.block"):
        set_attribute(make(), 1)
        set_attributes({make(): 1, "good": 2})
        add_event("event", {make(): 1, "good": 2})
    span = spans.one("test.block")
    assert dict(span.attributes) == dict(span.event("event").attributes or {}) == {"good": 2}


def test_keys_are_bounded_and_legal() -> None:
    with capture_spans() as spans, traced_block("test.block"):
        set_attributes({"k" * 1_000: 1, "\ud800": 2, Colour.RED: 3})
    assert {len(key) for key in spans[0].attributes} == {256, 6, 3}


@pytest.mark.parametrize("make", [lambda: None, lambda: [1], str, int, FailingMapping, Fails, Liar])
def test_what_is_no_mapping_gives_no_attributes(spans: CapturedSpans, make: Callable[[], Any]) -> None:
    with traced_block("test.block", make()):
        set_attributes(make())
        add_event("event", make())
    span = spans.one("test.block")
    assert dict(span.attributes) == {}
    assert [event.name for event in span.events] == ["event"]


def test_one_bad_value_costs_no_other(spans: CapturedSpans) -> None:
    with traced_block("test.block", {"bad": Fails(), "good": 1}):
        set_attributes({"worse": object(), "better": 2})
    assert dict(spans.one("test.block").attributes) == {"good": 1, "better": 2}


def test_time_zone_that_is_traced_is_asked_once(spans: CapturedSpans) -> None:
    class Zone(tzinfo):
        @traced("zone.offset")
        def utcoffset(self, dt: datetime | None) -> timedelta:
            return timedelta(hours=2)

    assert _recorded(datetime(2026, 1, 2, tzinfo=Zone())) == "2026-01-02T00:00:00+02:00"
    with traced_block("test.block", {"at": datetime(2026, 1, 2, tzinfo=Zone())}):
        pass
    assert spans.names == ["zone.offset", "test.block"]


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(st.characters(categories=["Cs"]))
    | st.binary()
    | st.datetimes()
    | st.uuids()
    | st.decimals()
    | st.complex_numbers()
    | st.builds(object)
    | st.builds(Fails),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(_VALUES)
def test_every_value_becomes_what_the_specification_allows(value: object) -> None:
    found = _recorded(value)
    if isinstance(found, tuple):
        assert len(found) <= 128
        assert len({type(item) for item in found}) <= 1
    items = found if isinstance(found, tuple) else () if found is None else (found,)
    for item in items:
        assert type(item) in (str, bool, int, float)
        if type(item) is str:
            assert len(item.encode()) <= 4 * 2_048
        if type(item) is int:
            assert -(2**63) <= item < 2**63
