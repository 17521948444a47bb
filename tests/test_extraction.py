"""What is recorded of arguments and results: exactly what was asked for, read only if the span records."""

from __future__ import annotations

import dataclasses
import enum
import functools
import logging
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from strategies import run

from tracekit import SpanAttribute, arg, configure, result, traced
from tracekit.errors import InstrumentationError
from tracekit.testing import CapturedSpans, capture_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opentelemetry.trace import Link, SpanKind
    from opentelemetry.util.types import Attributes


class Colour(enum.Enum):
    RED = "red"
    NONE = 0


class Size(str, enum.Enum):
    SMALL = "small"


@dataclasses.dataclass
class Order:
    id: int = 7
    items: list[dict[str, Any]] = dataclasses.field(default_factory=lambda: [{"sku": "a-1"}, {"sku": "b-2"}])
    meta: dict[str, Any] = dataclasses.field(default_factory=lambda: {"region": {"name": "eu"}})
    status: str = "new"


def _attributes(spans: CapturedSpans) -> dict[str, Any]:
    """Return what the only span has, besides where the function is."""
    assert len(spans) == 1
    found = dict(spans[0].attributes)
    del found["code.function.name"]
    return found


# --- attributes= -----------------------------------------------------------------------------------------------------


def test_constants_paths_extractors_and_results_are_recorded(spans: CapturedSpans) -> None:
    @traced(
        "orders.create",
        attributes={
            "order.channel": "web",
            "order.id": arg("order.id"),
            "order.items_count": lambda order: len(order.items),
            "order.status": result("status"),
        },
    )
    def create_order(order: Order, *, channel: str = "web") -> Order:
        order.status = "created"
        return order

    create_order(Order())
    assert _attributes(spans) == {
        "order.channel": "web",
        "order.id": 7,
        "order.items_count": 2,
        "order.status": "created",
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("order.id", 7),
        ("order.items.0.sku", "a-1"),
        ("order.items.-1.sku", "b-2"),
        ("order.meta.region.name", "eu"),
        ("note", "hello"),
        ("pair.1", 2),
    ],
)
def test_path_leads_through_attributes_keys_and_indexes(spans: CapturedSpans, path: str, value: object) -> None:
    @traced("test.call", attributes={"found": arg(path)})
    def call(order: Order, note: str, pair: tuple[int, int]) -> None: ...

    call(Order(), "hello", (1, 2))
    assert _attributes(spans) == {"found": value}


def test_extractor_is_given_the_arguments_it_names(spans: CapturedSpans) -> None:
    def both(*, second: int, first: int, absent: str = "default") -> str:
        return f"{first}-{second}-{absent}"

    def by_position(second: int, /) -> int:
        return second

    @traced("test.call", attributes={"both": both, "by_position": by_position, "none": lambda: 0})
    def call(first: int, *rest: int, second: int = 2, **more: int) -> None: ...

    call(1)
    assert _attributes(spans) == {"both": "1-2-default", "by_position": 2, "none": 0}


def test_extractor_with_keyword_arguments_is_given_all(spans: CapturedSpans) -> None:
    @traced("test.call", attributes={"names": lambda **given: sorted(given)})
    def call(first: int, *rest: int, second: int = 2, **more: int) -> None: ...

    call(1, 5, third=3)
    assert _attributes(spans) == {"names": ("first", "more", "rest", "second")}


def test_extractor_may_name_an_extra_keyword_argument(spans: CapturedSpans) -> None:
    @traced("test.call", attributes={"extra": lambda extra: extra})
    def call(**more: int) -> None: ...

    call(extra=3)
    assert _attributes(spans) == {"extra": 3}


def test_callable_may_return_a_whole_mapping_and_parts_may_be_listed(spans: CapturedSpans) -> None:
    def of_order(order: Order) -> Mapping[str, object]:
        return {"order.id": order.id, "order.status": order.status, "order.nothing": None}

    @traced("test.call", attributes=[of_order, {"order.channel": "web"}, lambda note: {"note": note}])
    def call(order: Order, note: str) -> None: ...

    call(Order(), "hello")
    assert _attributes(spans) == {"order.id": 7, "order.status": "new", "order.channel": "web", "note": "hello"}


def test_class_as_a_value_is_refused_as_no_constant() -> None:
    with pytest.raises(InstrumentationError, match="got <class 'int'>, expected a string"):
        traced("test.call", attributes={"kind": int})(lambda: None)


def test_arguments_of_methods_are_read_too(spans: CapturedSpans) -> None:
    class Gateway:
        name = "visa"

        @traced("test.call", attributes={"gateway": lambda self: self.name, "amount": arg("amount")})
        def charge(self, amount: int) -> None: ...

    Gateway().charge(3)
    assert _attributes(spans) == {"gateway": "visa", "amount": 3}


# --- SpanAttribute ---------------------------------------------------------------------------------------------------


def test_annotated_parameters_are_recorded_under_their_key(spans: CapturedSpans) -> None:
    @traced("test.call")
    def call(
        order_id: Annotated[int, SpanAttribute("order.id")],
        note: Annotated[str, "documentation", SpanAttribute()],
        other: int = 3,
    ) -> None: ...

    call(7, "hello")
    assert _attributes(spans) == {"order.id": 7, "note": "hello"}


OrderId = Annotated[int, SpanAttribute("order.id")]


def test_annotations_may_be_aliases(spans: CapturedSpans) -> None:
    traced("test.call")(_by_alias)(7)
    assert _attributes(spans) == {"order.id": 7}


def _by_alias(order_id: OrderId) -> None: ...


def test_annotations_may_be_real_objects(spans: CapturedSpans) -> None:
    def call(order_id: int) -> None: ...

    call.__annotations__ = {"order_id": Annotated[int, SpanAttribute("order.id")]}
    traced("test.call")(call)(7)
    assert _attributes(spans) == {"order.id": 7}


def test_annotations_may_name_what_is_defined_later(spans: CapturedSpans) -> None:
    @traced("test.call")
    def call(order: Annotated[DefinedLater | int, SpanAttribute("order.id")]) -> None: ...

    class DefinedLater: ...

    call(7)
    assert _attributes(spans) == {"order.id": 7}


def test_annotations_may_name_what_is_imported_for_type_checkers_only(spans: CapturedSpans) -> None:
    @traced("test.call")
    def call(items: Annotated[Sequence[int], SpanAttribute("items")], other: int) -> None: ...

    call([1, 2], 3)
    assert _attributes(spans) == {"items": (1, 2)}


def test_the_marker_itself_may_be_imported_for_type_checkers_only(spans: CapturedSpans) -> None:
    module = ModuleType("shop.orders")
    source = "def call(order: 'Annotated[models.Order[int] | None, SpanAttribute(\"order.id\")]', other=1): pass"
    exec(source, vars(module))
    traced("test.call")(module.call)(7)
    assert _attributes(spans) == {"order.id": 7}


def test_marker_with_a_key_that_is_not_there_is_refused() -> None:
    def call(order: Annotated[int, SpanAttribute(KEY)]) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(InstrumentationError, match=r"annotation of 'order' got .*SpanAttribute\(KEY\).*cannot be read"):
        traced("test.call")(call)


def test_annotations_that_make_no_sense_are_not_ours_to_judge(spans: CapturedSpans) -> None:
    def call(a: Annotated[0 / 0, "x"], b: nonsense.of[3](4) = 2) -> None: ...  # type: ignore  # noqa: F821, PGH003

    traced("test.call")(call)(1)
    assert _attributes(spans) == {"a": 1, "b": 2}


def read_by(span: Any) -> dict[str, Any]:
    return {key: value for key, value in span.attributes.items() if key != "code.function.name"}


def test_arguments_that_a_partial_holds_are_recorded(spans: CapturedSpans) -> None:
    from functools import partial

    class Orders:
        def save(self, order_id: int, note: str = "", *rest: int, channel: str = "web", **more: Any) -> None: ...

    traced("test.first")(partial(Orders.save, Orders(), 7, channel="shop"))("x")
    traced("test.keywords")(partial(Orders.save, Orders(), order_id=7, note="x", weight=3))(note="y")
    traced("test.nested")(partial(partial(Orders().save, 7), "x", 1, 2))(3, weight=4)
    traced("test.told", attributes={"order.id": arg("order_id")})(partial(Orders().save, 7))()
    assert read_by(spans.one("test.told")) == {"order.id": 7}
    expected = {"order_id": 7, "note": "x", "channel": "shop"}
    assert read_by(spans.one("test.first")) == expected
    assert read_by(spans.one("test.keywords")) == {"order_id": 7, "note": "y", "channel": "web", "weight": 3}
    assert read_by(spans.one("test.nested")) == {"order_id": 7, "note": "x", "channel": "web", "weight": 4}


@pytest.mark.skipif(not hasattr(functools, "Placeholder"), reason="placeholders came with Python 3.14")
def test_places_that_a_partial_leaves_are_filled(spans: CapturedSpans) -> None:
    def save(order_id: int, note: str) -> None: ...

    placeholder: Any = getattr(functools, "Placeholder", None)
    traced("test.save")(functools.partial(save, placeholder, "x"))(7)
    assert read_by(spans.one("test.save")) == {"order_id": 7, "note": "x"}


def test_annotations_of_partials_and_callable_objects_count(spans: CapturedSpans) -> None:
    from functools import partial

    class Caller:
        def __call__(self, order_id: Annotated[int, SpanAttribute("order.id")]) -> None: ...

    def call(order_id: Annotated[int, SpanAttribute("order.id")], note: str) -> None: ...

    traced("test.object")(Caller())(7)
    traced("test.partial")(partial(call, note="hello"))(8)
    assert [span.attributes["order.id"] for span in spans] == [7, 8]


# --- capture= --------------------------------------------------------------------------------------------------------

_MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
SCALARS: dict[str, tuple[object, object]] = {
    "boolean": (True, True),
    "integer": (3, 3),
    "number": (1.5, 1.5),
    "string": ("hello", "hello"),
    "enumerated": (Colour.RED, "red"),
    "by_name": (Colour.NONE, "NONE"),
    "string_enumerated": (Size.SMALL, "small"),
    "identifier": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "amount": (Decimal("1.10"), "1.10"),
    "moment": (_MOMENT, "2026-01-02T03:04:05+00:00"),
    "day": (date(2026, 1, 2), "2026-01-02"),
    "clock": (time(3, 4), "03:04:00"),
    "duration": (timedelta(hours=1, seconds=2), "1:00:02"),
    "path": (PurePosixPath("/a/b"), "/a/b"),
}


def test_scalars_are_recorded_if_nothing_is_said(spans: CapturedSpans) -> None:
    @traced("test.call")
    def call(order: Order, listed: list[int], nothing: None, **scalars: object) -> None: ...

    call(Order(), [1], None, **{name: value for name, (value, _) in SCALARS.items()})
    assert _attributes(spans) == {name: recorded for name, (_, recorded) in SCALARS.items()}


def test_defaults_and_extra_keyword_arguments_are_recorded_and_extra_positional_ones_are_not(
    spans: CapturedSpans,
) -> None:
    @traced("test.call")
    def call(first: int, second: int = 2, *rest: int, third: int = 3, **more: int) -> None: ...

    call(1, 20, 30, extra=4)
    assert _attributes(spans) == {"first": 1, "second": 20, "third": 3, "extra": 4}


@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])
def test_arguments_are_recorded_for_every_kind_of_callable(spans: CapturedSpans, kind: str) -> None:
    @traced("test.function")
    def function(a: int, /, b: int, *, c: int = 3) -> None: ...

    @traced("test.coroutine")
    async def coroutine(a: int, /, b: int, *, c: int = 3) -> None: ...

    @traced("test.generator")
    def generator(a: int, /, b: int, *, c: int = 3) -> Iterator[int]:
        yield 1

    @traced("test.async_generator")
    async def async_generator(a: int, /, b: int, *, c: int = 3) -> Any:
        yield 1

    async def consume() -> None:
        async for _ in async_generator(1, b=2):
            pass

    if kind == "function":
        function(1, b=2)
    elif kind == "coroutine":
        run(coroutine(1, b=2))
    elif kind == "generator":
        list(generator(1, b=2))
    else:
        run(consume())
    found = _attributes(spans)
    found.pop("generator.items", None)
    assert found == {"a": 1, "b": 2, "c": 3}


def test_self_and_cls_are_never_recorded(spans: CapturedSpans) -> None:
    class Text(str):  # noqa: SLOT000  # a scalar, so that it would be recorded
        @traced("test.method")
        def method(self, other: int) -> None: ...

        @traced("test.asked", capture=("self", "other"))
        def asked(self, other: int) -> None: ...

        @classmethod
        @traced("test.class_method")
        def class_method(cls, other: int) -> None: ...

    text = Text("secret")
    text.method(1)
    text.asked(1)
    text.class_method(1)
    for span in spans:
        recorded = {key: value for key, value in span.attributes.items() if key != "code.function.name"}
        assert recorded == {"other": 1, **({"self": "[redacted]"} if span.name == "test.asked" else {})}


def test_names_are_recorded_whatever_they_hold(spans: CapturedSpans) -> None:
    @traced("test.call", capture=("listed", "mapped", "more"))
    def call(listed: list[int], mapped: dict[str, int], other: int, **extra: int) -> None: ...

    call([1, 2], {"a": 1}, 3, more=4)
    assert _attributes(spans) == {"listed": (1, 2), "mapped": '{"a": 1}', "more": 4}


@pytest.mark.parametrize(
    ("options", "recorded"),
    [
        ({"capture": True}, {"a", "b"}),
        ({"capture": False}, set()),
        ({"capture": ["a"]}, {"a"}),
        ({"capture": {"b"}}, {"b"}),
        ({"attributes": {}}, set()),
        ({"attributes": {"k": 1}}, {"k"}),
        ({"attributes": {"k": 1}, "capture": ("a",)}, {"k", "a"}),
        ({"attributes": {"k": 1}, "capture": True}, {"k", "a", "b"}),
    ],
)
def test_what_is_said_is_recorded_and_nothing_else(
    spans: CapturedSpans, options: dict[str, Any], recorded: set[str]
) -> None:
    @traced("test.call", **options)
    def call(a: int, b: str, c: object) -> None: ...

    call(1, "two", object())
    assert set(_attributes(spans)) == recorded


def test_capture_arguments_false_turns_the_default_off_and_nothing_else() -> None:
    @traced("test.default")
    def default(a: int) -> None: ...

    @traced("test.asked", capture=("a",))
    def asked(a: int) -> None: ...

    configure(capture_arguments=False, exporter="none")
    with capture_spans() as spans:
        default(1)
        asked(1)
    assert "a" not in spans.one("test.default").attributes
    assert spans.one("test.asked").attributes["a"] == 1


# --- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        (True, {"return_value": '{"status": "paid", "id": 7}'}),
        ("status", {"return_value.status": "paid"}),
        (result("id"), {"return_value.id": 7}),
        (lambda value: value["id"] + 1, {"return_value": 8}),
        (lambda value: {"order.id": value["id"], "order.none": None}, {"order.id": 7}),
        (
            {"order.id": "id", "order.status": result("status"), "n": len},
            {"order.id": 7, "order.status": "paid", "n": 2},
        ),
        ({"whole": result()}, {"whole": '{"status": "paid", "id": 7}'}),
        (False, {}),
        (None, {}),
    ],
)
def test_result_is_recorded_in_every_form(spans: CapturedSpans, given: Any, recorded: dict[str, object]) -> None:
    @traced("test.call", capture_result=given)
    def call() -> dict[str, object]:
        return {"status": "paid", "id": 7}

    call()
    assert _attributes(spans) == recorded


def test_result_of_a_coroutine_function_is_recorded(spans: CapturedSpans) -> None:
    @traced("test.call", capture_result=True)
    async def call() -> int:
        return 3

    run(call())
    assert _attributes(spans) == {"return_value": 3}


def test_capture_result_leaves_the_arguments_to_their_default(spans: CapturedSpans) -> None:
    @traced("test.call", capture_result=True)
    def call(a: int) -> int:
        return a + 1

    call(1)
    assert _attributes(spans) == {"a": 1, "return_value": 2}


# --- failures --------------------------------------------------------------------------------------------------------


class Hostile:
    """An object on which everything fails."""

    def __getattr__(self, name: str) -> Any:
        msg = "hunter2"
        raise RuntimeError(msg)

    def __repr__(self) -> str:
        msg = "hunter2"
        raise RuntimeError(msg)

    __str__ = __len__ = __iter__ = __bool__ = __hash__ = __repr__  # type: ignore[assignment]


def test_extractors_that_fail_lose_only_themselves_and_are_logged_once_without_values(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(order: Order) -> str:
        raise ValueError(order.status)

    @traced(
        f"test.{test_extractors_that_fail_lose_only_themselves_and_are_logged_once_without_values.__name__}",
        attributes=[
            {"failing": fails, "path": arg("order.absent.deeper"), "index": arg("order.items.9"), "good": 1},
            fails,
            lambda: 7,
            {"late": result("absent"), "illegal": lambda: Hostile, "also_good": arg("order.id")},
        ],
    )
    def call(order: Order) -> str:
        return order.status

    with tracing_errors() as errors, caplog.at_level(logging.WARNING, "tracekit"):
        for _ in range(3):
            assert call(Order(status="hunter2")) == "hunter2"
    for span in spans:
        assert {key for key in span.attributes if not key.startswith("code.")} == {"good", "also_good"}
    assert "hunter2" not in caplog.text
    # Seven failures a call, each logged once.
    assert len(caplog.records) == 7
    assert errors() == 21
    assert {record.name for record in caplog.records} == {"tracekit"}


class tracing_errors:  # noqa: N801  # reads as a verb where it is used
    """Count the failures that were kept from callers, as `Tracing.stats` does."""

    def __enter__(self) -> Callable[[], int]:
        self._tracing = configure(exporter="none")
        before = self._tracing.stats.internal_errors
        return lambda: self._tracing.stats.internal_errors - before

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    "option",
    [
        {"capture": ("value",)},
        {"capture": True},
        {"attributes": {"value": arg("value.anything")}},
        {"attributes": {"value": lambda value: value}},
        {"attributes": lambda value: value},
        {"capture_result": True},
        {"capture_result": "anything"},
        {"parent": lambda value: value},
        {"links": lambda value: [value]},
        {},
    ],
)
def test_hostile_arguments_and_results_never_reach_the_caller(spans: CapturedSpans, option: dict[str, Any]) -> None:
    @traced("test.call", **option)
    def call(value: object) -> object:
        return value

    hostile = Hostile()
    assert call(hostile) is hostile
    assert spans.names == ["test.call"]


def test_wrong_call_keeps_the_words_of_python(spans: CapturedSpans) -> None:
    def call(a: int, *, b: int = 2) -> None: ...

    for arguments in ({}, {"a": 1, "c": 3}):
        with pytest.raises(TypeError) as plain:
            call(**arguments)  # type: ignore[arg-type]
        with pytest.raises(TypeError) as told:
            traced("test.call")(call)(**arguments)
        assert str(told.value) == str(plain.value)


def test_iterators_are_not_consumed(spans: CapturedSpans) -> None:
    @traced("test.call", capture=("items",), attributes={"items.n": lambda items: items})
    def call(items: Iterator[int]) -> list[int]:
        return list(items)

    assert call(iter([1, 2])) == [1, 2]
    assert call(value for value in (1, 2)) == [1, 2]


# --- order -----------------------------------------------------------------------------------------------------------


def test_nothing_is_read_when_the_span_does_not_record() -> None:
    read: list[str] = []

    def note(what: str) -> str:
        read.append(what)
        return what

    @traced(
        "test.call",
        attributes=[{"a": lambda: note("attribute")}, lambda: {"b": note("mapping")}],
        capture_result=lambda _: note("result"),
        tracer_provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False),
    )
    def call(value: object) -> str:
        return "value"

    assert call(Hostile()) == "value"
    assert read == []


def test_sampler_sees_fixed_attributes_and_arguments_are_read_after_it_has_decided() -> None:
    order: list[str] = []
    seen: dict[str, Any] = {}

    class Watching(Sampler):
        def should_sample(
            self,
            parent_context: Any,
            trace_id: int,
            name: str,
            kind: SpanKind | None = None,
            attributes: Attributes = None,
            links: Sequence[Link] | None = None,
            trace_state: Any = None,
        ) -> SamplingResult:
            order.append("sampler")
            seen.update(attributes or {})
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)

        def get_description(self) -> str:
            return "Watching"

    def late() -> str:
        order.append("argument")
        return "late"

    @traced(
        "test.call",
        attributes={"fixed": "value", "late": late},
        capture_result=lambda _: order.append("result"),
        tracer_provider=TracerProvider(sampler=Watching(), shutdown_on_exit=False),
    )
    def call() -> None:
        order.append("body")

    call()
    assert order == ["sampler", "argument", "body", "result"]
    assert seen == {"fixed": "value", "code.function.name": f"{__name__}.{call.__qualname__}"}


def test_constants_are_made_legal_once_and_bounded(spans: CapturedSpans) -> None:
    traced("test.call", attributes={"long": "x" * 5_000, "id": uuid.UUID(int=1), "list": [1, 2]})(lambda: None)()
    found = _attributes(spans)
    assert len(found["long"]) == 2_048
    assert found["id"] == "00000000-0000-0000-0000-000000000001"
    assert found["list"] == (1, 2)


# --- strictness ------------------------------------------------------------------------------------------------------


def _subject(order: Order, channel: str = "web") -> None: ...


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"attributes": {"order.id": arg("ordr.id")}},
            ["attributes['order.id'] asks for 'ordr'", "(it has: order, channel)", "Write arg('order.id')."],
        ),
        (
            {"attributes": {"order.id": lambda oder: oder}},
            ["asks for 'oder'", "(it has: order, channel)", "Write lambda order: ..."],
        ),
        ({"attributes": lambda missing: {}}, ["attributes asks for 'missing'", "(it has: order, channel)"]),
        ({"capture": ("chanel",)}, ["capture asks for 'chanel'", "it has: order, channel", "capture=('channel',)"]),
        ({"capture": "channel"}, ["got 'channel'", "expected True, False or names", "Write capture=('channel',)."]),
        ({"capture": 3}, ["got 3", "expected True, False or names"]),
        ({"capture": (3,)}, ["capture asks for 3", "it has: order, channel"]),
        ({"attributes": "order.id"}, ["got 'order.id'", "expected a mapping", "arg('order.id')"]),
        ({"attributes": arg("order.id")}, ["got arg('order.id')", "expected a mapping"]),
        ({"attributes": [{"a": 1}, 3]}, ["got 3", "expected a mapping"]),
        ({"attributes": {3: "x"}}, ["has the key 3", "expected a non-empty string"]),
        ({"attributes": {"": "x"}}, ["has the key ''", "expected a non-empty string"]),
        ({"attributes": {"k": object}}, ["attributes['k']", "expected a string, number, bool"]),
        ({"attributes": {"k": None}}, ["attributes['k']", "got None"]),
        ({"attributes": {"k": Order()}}, ["attributes['k']", "Write str(...) or a lambda."]),
        ({"attributes": {"k": max}}, ["attributes['k']", "Write a lambda around it."]),
        ({"capture_result": 3}, ["got 3", "expected True, a path, a callable or a mapping", "Write capture_result="]),
        ({"capture_result": {"k": 3}}, ["got 3", "expected True, a path"]),
        ({"parent": lambda mesage: mesage}, ["parent asks for 'mesage'", "it has: order, channel"]),
        ({"links": arg("messages")}, ["links asks for 'messages'", "it has: order, channel"]),
    ],
)
def test_wrong_option_is_refused_when_decorating_with_what_there_is(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InstrumentationError) as refused:
        traced("test.call", **options)(_subject)
    for word in words:
        assert word in str(refused.value)


def test_coroutine_function_as_an_extractor_is_refused() -> None:
    async def extractor(order: Order) -> int:
        return order.id

    with pytest.raises(InstrumentationError, match=r"got the coroutine function .*, expected a plain one"):
        traced("test.call", attributes={"k": extractor})(_subject)


@pytest.mark.parametrize("path", ["", ".", "a..b", ".a", "a.", 3, None])
def test_path_that_is_none_is_refused(path: Any) -> None:
    with pytest.raises(InstrumentationError, match=r"expected names joined by dots\. Write arg\('order\.id'\)"):
        arg(path)


@pytest.mark.parametrize("path", [".", "a..b", 3])
def test_result_path_that_is_none_is_refused(path: Any) -> None:
    with pytest.raises(InstrumentationError, match=r"expected names joined by dots\. Write result\('status'\)"):
        result(path)


@pytest.mark.parametrize("key", ["", 3])
def test_key_of_a_span_attribute_that_is_none_is_refused(key: Any) -> None:
    with pytest.raises(InstrumentationError, match=r"expected a non-empty string\. Write SpanAttribute\('order\.id'\)"):
        SpanAttribute(key)


def test_function_without_parameters_says_so() -> None:
    with pytest.raises(InstrumentationError, match="it has: no parameters"):
        traced("test.call", attributes={"k": arg("order")})(lambda: None)


def test_markers_say_what_they_are() -> None:
    assert repr(arg("order.id")) == "arg('order.id')"
    assert repr(result("status")) == "result('status')"
    assert repr(SpanAttribute("order.id")) == "SpanAttribute('order.id')"


def test_namespace_objects_are_followed(spans: CapturedSpans) -> None:
    traced("test.call", attributes={"x": arg("space.a.b")})(lambda space: None)(SimpleNamespace(a=SimpleNamespace(b=1)))
    assert _attributes(spans) == {"x": 1}
