"""Every value, name and nesting arrives over OTLP as what the specification allows, or is left out; no call is hurt."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import json
import pathlib
import random
import threading
import types
import uuid
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tracekit
from tracekit import add_event, set_attribute, set_attributes, traced, traced_block
from tracekit.testing import capture_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otlp_receiver import HttpReceiver


def _recorded(value: object) -> Any:
    with capture_spans() as spans, traced_block("test.block"):
        set_attribute("key", value)
    return spans.one("test.block").attributes.get("key")


# --- containers ------------------------------------------------------------------------------------------------------


def _laughs(levels: int) -> list[Any]:
    laugh: list[Any] = ["ha"]
    for _ in range(levels):
        laugh = [laugh] * 10
    return laugh


def test_parts_that_are_shared_are_shown_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    # With room for all of it, were the parts not counted: 10 ** 7 of them.
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", str(10**9))
    with tracekit.configure(exporter="memory") as tracing, traced_block("test.block"):
        set_attribute("laughs", _laughs(7))
        set_attribute("texts", {f"{number}": ["x" * 1_000] * 128 + [None] for number in range(128)})
    [span] = tracing.spans
    assert span.attributes is not None
    assert str(span.attributes["laughs"]).count("ha") <= 1_024
    assert len(str(span.attributes["texts"])) <= 1_100_000


def test_container_that_holds_itself_says_so_where_it_would_begin_again() -> None:
    looped: dict[str, Any] = {"name": "ann"}
    looped["friends"] = [looped, {"again": looped}]
    assert json.loads(_recorded(looped)) == {"name": "ann", "friends": ["…", {"again": "…"}]}
    shared = {"a": 1}
    assert json.loads(_recorded([shared, shared])) == [shared, shared]


def test_text_of_a_sequence_is_bounded_as_a_whole() -> None:
    found = _recorded(["x" * 2_048] * 128)
    assert sum(map(len, found)) <= 64 * 1024 + 1
    assert found[-1] == "…"


def test_numbers_that_json_does_not_have_are_texts_there() -> None:
    found = _recorded({"nan": float("nan"), "inf": float("-inf")})
    assert json.loads(found, parse_constant=pytest.fail) == {"nan": "NaN", "inf": "-Infinity"}


def test_keys_of_nested_mappings_are_texts() -> None:
    keys: dict[Any, int] = {1: 1, b"bytes": 2, uuid.UUID(int=3): 3, (1, 2): 4, True and 2.5: 5}
    assert list(json.loads(_recorded(keys))) == ["1", "bytes", str(uuid.UUID(int=3)), "?", "2.5"]


def test_bytes_are_cut_at_whole_characters_and_marked() -> None:
    found = _recorded(("é" * 5_000).encode())
    assert found == "é" * 2_047 + "…"
    assert len(_recorded("\udce9" * 5_000)) == 2_048


def test_mapping_behind_a_proxy_is_not_asked() -> None:
    class Asked(dict[str, int]):
        def items(self) -> Any:
            raise AssertionError

    assert _recorded(types.MappingProxyType(Asked(a=1))) is None
    assert _recorded([types.MappingProxyType(Asked(a=1))]) == '["<mappingproxy>"]'


def test_containers_that_other_threads_change_are_recorded_all_the_same() -> None:
    changing: list[Any] = [{}, set(), collections.deque(maxlen=100), collections.OrderedDict()]
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            changing[0][number % 500] = changing[3][number % 300] = number
            changing[1].add(number % 700)
            changing[2].append(number)
            for container in (changing[0], changing[3]):
                container.pop((number * 7) % 500, None)

    threads = [threading.Thread(target=change) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            with capture_spans() as spans, traced_block("test.block"):
                set_attributes(dict(enumerate(changing)) | {f"key{number}": one for number, one in enumerate(changing)})
            assert len(spans[0].attributes) == 4
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_generators_are_not_consumed() -> None:
    items = (number for number in range(3))
    assert _recorded(items) is None
    assert _recorded([items]) == '["<generator>"]'
    assert list(items) == [0, 1, 2]


# --- other libraries' scalars ----------------------------------------------------------------------------------------


def test_scalars_of_numpy_are_recorded_as_pythons() -> None:
    numpy = pytest.importorskip("numpy")
    assert _recorded(numpy.int32(3)) == 3
    assert _recorded(numpy.float32(0.5)) == 0.5
    assert _recorded(numpy.longdouble(0.5)) == 0.5
    assert _recorded(numpy.bool_(True)) is True
    assert _recorded(numpy.str_("text")) == "text"
    assert _recorded(numpy.uint64(2**64 - 1)) == str(2**64 - 1)
    assert _recorded([numpy.int8(1), numpy.int8(2)]) == (1, 2)
    assert _recorded(numpy.datetime64("2026-01-02T03:04:05")) == "2026-01-02T03:04:05"
    assert _recorded(numpy.zeros(3)) is None
    assert _recorded(numpy.complex64(1)) is None


def test_scalars_of_pandas_are_recorded_as_pythons() -> None:
    pandas = pytest.importorskip("pandas")
    assert _recorded(pandas.Timestamp("2026-01-02", tz="UTC")) == "2026-01-02T00:00:00+00:00"
    assert _recorded(pandas.Timedelta(seconds=1)) == "0:00:01"
    assert _recorded(pandas.NaT) is None
    assert _recorded(pandas.NA) is None
    assert _recorded(pandas.Series([1])) is None


# --- over OTLP -------------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Fails:
    """An object on which everything fails."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __iter__ = __len__ = __bool__ = __eq__ = __hash__ = __index__ = __float__ = __str__  # type: ignore[assignment]


class Text(str):
    __slots__ = ()
    __str__ = __repr__ = __len__ = __eq__ = __hash__ = encode = isascii = Fails.__str__  # type: ignore[assignment]


class Listed(list[int]):
    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1


class Failing(collections.UserDict[str, int]):
    def items(self) -> Any:
        raise KeyError


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError

    def __hash__(cls) -> int:
        raise RuntimeError


class OfMeta(metaclass=Meta):
    """One whose class fails."""


def _looped() -> list[Any]:
    looped: list[Any] = [1]
    looped.append(looped)
    return looped


MAKERS: Final[tuple[Callable[[random.Random], object], ...]] = (
    lambda rng: None,
    lambda rng: rng.random() < 0.5,
    lambda rng: rng.randint(-(2**70), 2**70),
    lambda rng: rng.getrandbits(20_000),
    lambda rng: rng.choice([0.5, float("nan"), float("inf"), -0.0, 1e308]),
    lambda rng: "".join(chr(rng.randrange(0x11_0000)) for _ in range(rng.randrange(20))),
    lambda rng: rng.choice(["", "\0", "\ud800", "x" * 5_000, "é" * 3_000, "\udce9" * 3_000]),
    lambda rng: rng.randbytes(rng.randrange(50)),
    lambda rng: bytearray(rng.randbytes(9_000)),
    lambda rng: rng.choice(list(Colour)),
    lambda rng: uuid.UUID(int=rng.getrandbits(128)),
    lambda rng: decimal.Decimal(rng.choice(["NaN", "1e999999", "-0", "3.14"])),
    lambda rng: fractions.Fraction(rng.randint(0, 99), 7),
    lambda rng: dt.datetime.fromtimestamp(rng.randrange(2**31), dt.timezone.utc),
    lambda rng: dt.date.fromordinal(rng.randrange(1, 3_000_000)),
    lambda rng: dt.timedelta(rng.randint(-999, 999)),
    lambda rng: pathlib.PurePosixPath("/srv/caf\udce9"),
    lambda rng: ipaddress.ip_interface("10.0.0.1/24"),
    lambda rng: (
        rng.choice([object, Fails, OfMeta, Listed, Failing, Ellipsis, print, random])
        if rng.random() < 0.3
        else rng.choice([object, Fails, OfMeta, Listed, Failing, _looped])()
    ),
    lambda rng: Text("lies"),
    lambda rng: range(rng.choice([3, 10**12])),
    lambda rng: complex(1, 2),
    lambda rng: memoryview(b"abc"),
)


def _make(rng: random.Random, depth: int = 3) -> object:
    if depth == 0 or rng.random() < 0.6:
        return rng.choice(MAKERS)(rng)
    items = [_make(rng, depth - 1) for _ in range(rng.randrange(4))]
    kind = rng.choice([list, tuple, collections.deque, dict, collections.OrderedDict, types.MappingProxyType])
    if kind in (list, tuple, collections.deque):
        return kind(items)
    mapping = {_key(rng): item for item in items}
    return mapping if kind is dict else kind(mapping)


def _key(rng: random.Random) -> Any:
    return rng.choice(
        ["key", "", "k" * 300, "\ud800", 1, None, b"key", (1, 2), Colour.RED, 2.5, "password", "a.b", "\0"]
    )


def _use(value: object, key: Any) -> None:
    """Put *value* wherever values can be put."""

    @traced("test.call", capture=("value", "more"), capture_result=True)
    def call(value: object, **more: object) -> object:
        set_attribute(key, value)
        set_attributes({key: value, "legal": 1})
        add_event("event", {key: value, "legal": 1})
        return value

    assert call(value, more=value) is value
    with traced_block("test.block", {"value": value}):
        set_attributes(value)  # type: ignore[arg-type]
        add_event(key, value)  # type: ignore[arg-type]
        set_attribute("legal", 1)


_VALUES: Final = st.integers(0, 2**64).map(lambda seed: _make(random.Random(seed)))  # no secrets
_TEXTS: Final = st.text(st.characters(), max_size=300) | st.text(st.characters(categories=["Cs", "Cc"]), max_size=20)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_VALUES | st.recursive(_TEXTS | st.floats() | st.integers(), st.lists), _TEXTS)
def test_every_span_arrives_with_every_legal_attribute(otlp_http: HttpReceiver, value: object, key: str) -> None:
    with tracekit.configure(exporter="otlp", endpoint=otlp_http.endpoint, protocol="http/protobuf") as tracing:
        before = len(otlp_http.spans)
        _use(value, key)
        assert tracing.flush(timeout_s=20)
        assert (tracing.stats.exported, dict(tracing.stats.dropped)) == (2, {})
    call, block = otlp_http.spans[before:]
    assert (call.name, block.name) == ("test.call", "test.block")
    assert call.attributes["legal"] == block.attributes["legal"] == 1
    [event] = [event for event in call.events if event.name == "event"]
    assert event.attributes["legal"] == 1
    expected = _recorded(value)
    if expected is not None and expected == expected and not isinstance(expected, (tuple, float)):  # noqa: PLR0124  # NaN
        assert call.attributes["value"] == expected


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
def test_no_value_reaches_the_caller_as_an_exception(seed: int) -> None:
    rng = random.Random(seed)
    with tracekit.configure(exporter="none", redact=[lambda key, value: None]) as tracing:
        for _ in range(25_000):
            _use(_make(rng), _key(rng))
    assert tracing.stats.sampled == 50_000


@pytest.mark.engine("those that are open at the end of the process are lost")
def test_objects_of_hostile_classes_do_not_keep_open_spans_from_being_ended(tmp_path: pathlib.Path) -> None:
    hostile = [OfMeta()]
    path = tmp_path / "traces.jsonl"
    tracing = tracekit.configure(exporter=f"file:{path}")
    block = traced_block("test.open")
    block.__enter__()
    tracing.shutdown()
    block.__exit__(None, None, None)
    assert hostile
    assert "tracekit.incomplete" in path.read_text(encoding="utf-8")
