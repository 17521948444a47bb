"""`@traced`: what it takes, what it gives back, and how it says that an option is wrong."""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, get_current_span, set_span_in_context
from strategies import run

from tracekit import arg, current_span, inject, traced, traced_block
from tracekit.errors import InstrumentationError
from tracekit.testing import CapturedSpans

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = __name__.rpartition(".")[2]


# --- forms -----------------------------------------------------------------------------------------------------------


def test_bare_named_and_called_forms_decorate_alike(spans: CapturedSpans) -> None:
    @traced
    def bare() -> int:
        return 1

    @traced()
    def called() -> int:
        return 2

    @traced("orders.named")
    def named() -> int:
        return 3

    assert [bare(), called(), named()] == [1, 2, 3]
    assert spans.names == [f"{MODULE}.bare", f"{MODULE}.called", "orders.named"]


def test_one_decorator_may_decorate_several(spans: CapturedSpans) -> None:
    by_class = traced(service="orders", kind="server")
    for operation in ("create", "cancel"):

        def func() -> None: ...

        func.__qualname__ = func.__name__ = operation
        by_class(func)()
    assert spans.names == ["orders.create", "orders.cancel"]


@pytest.mark.parametrize("kind", list(SpanKind))
def test_kind_is_given_by_name_or_member(spans: CapturedSpans, kind: SpanKind) -> None:
    traced("test.member", kind=kind)(lambda: None)()
    traced("test.name", kind=kind.name.lower())(lambda: None)()  # type: ignore[arg-type]
    assert [span.kind for span in spans] == [kind, kind]


def test_kind_is_internal_if_nothing_is_said(spans: CapturedSpans) -> None:
    traced("test.call")(lambda: None)()
    assert spans.one("test.call").kind is SpanKind.INTERNAL


def test_decorating_twice_makes_one_span(spans: CapturedSpans) -> None:
    @traced
    @traced
    def plain() -> None: ...

    class Caller:
        def __call__(self) -> None: ...

    once = traced("test.named")(plain.__wrapped__)  # type: ignore[attr-defined]
    assert traced("test.named")(once) is once
    plain()
    traced(traced(Caller()))()
    traced(traced(functools.partial(Caller())))()
    assert spans.names == [f"{MODULE}.plain", f"{MODULE}.Caller", f"{MODULE}.Caller"]


def test_decorating_as_another_operation_makes_two_spans(spans: CapturedSpans) -> None:
    traced("test.outer")(traced("test.inner")(lambda: None))()
    assert spans.names == ["test.inner", "test.outer"]


def test_wrapper_of_somebody_else_around_ours_can_be_traced(spans: CapturedSpans) -> None:
    @traced("test.inner")
    def inner() -> None: ...

    @traced("test.outer")
    @functools.wraps(inner)
    def outer() -> None:
        inner()

    outer()
    spans.assert_tree(
        """
        test.outer
          test.inner
        """
    )


def test_enabled_false_gives_back_what_was_given(spans: CapturedSpans) -> None:
    def func() -> None: ...

    class Service:
        def method(self) -> None: ...

    assert traced(enabled=False)(func) is func
    assert traced("test.call", enabled=False)(func) is func
    assert traced(enabled=False)(Service) is Service
    Service().method()
    assert not spans


# --- classes ---------------------------------------------------------------------------------------------------------


def test_public_methods_of_a_class_are_traced_in_place(spans: CapturedSpans) -> None:  # noqa: C901  # methods
    class Base:
        def inherited(self) -> str:
            return "inherited"

    @traced
    class OrderService(Base):
        constant = 3
        field: int = 4

        class Nested:
            def method(self) -> str:
                return "nested"

        def __init__(self) -> None:
            self.made = True

        def __len__(self) -> int:
            return 5

        def method(self) -> str:
            return self._private()

        def _private(self) -> str:
            return "private"

        async def coroutine(self) -> str:
            return "coroutine"

        @property
        def value(self) -> str:
            return "value"

        @functools.cached_property
        def cached(self) -> str:
            return "cached"

        @staticmethod
        def static() -> str:
            return "static"

        @classmethod
        def make(cls) -> OrderService:
            return cls()

        @traced("orders.own_name")
        def named(self) -> str:
            return "named"

    assert isinstance(OrderService, type)
    service = OrderService.make()
    assert service.method() == "private"
    assert run(service.coroutine()) == "coroutine"
    assert [service.value, service.cached, service.static(), service.inherited(), len(service)] == [
        *("value", "cached", "static", "inherited"),
        5,
    ]
    assert service.named() == "named"
    assert OrderService.Nested().method() == "nested"
    assert spans.names == [
        *("order_service.make", "order_service.method", "order_service.coroutine", "order_service.static"),
        "orders.own_name",
    ]


def test_subclass_of_a_traced_class_is_left_alone(spans: CapturedSpans) -> None:
    @traced
    class Base:
        def method(self) -> str:
            return "base"

    class Derived(Base):
        def method(self) -> str:
            return "derived " + super().method()

        def other(self) -> str:
            return "other"

    derived = Derived()
    assert [derived.method(), derived.other()] == ["derived base", "other"]
    assert spans.names == ["base.method"]


def test_kinds_of_classes_stay_what_they_are(spans: CapturedSpans) -> None:
    @traced
    @dataclasses.dataclass(frozen=True)
    class Point:
        x: int

        def double(self) -> int:
            return self.x * 2

    @traced
    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self) -> int: ...

    @traced
    class Colour(enum.Enum):
        RED = 1

        def shout(self) -> str:
            return self.name

    @traced
    class Slotted:
        __slots__ = ("value",)

        def set(self, value: int) -> None:
            self.value = value

    assert Point(2).double() == 4
    assert Point(2) == Point(2)
    with pytest.raises(TypeError, match="abstract"):
        Shape()  # type: ignore[abstract]
    assert Colour.RED.shout() == "RED"
    Slotted().set(1)
    assert spans.names == ["point.double", "colour.shout", "slotted.set"]


def test_options_of_a_class_hold_for_each_method(spans: CapturedSpans) -> None:
    @traced(kind="client", attributes={"db.system": "sqlite"})
    class Repository:
        def load(self, key: int) -> None: ...

        @classmethod
        def open(cls) -> None: ...

    Repository().load(1)
    Repository.open()
    for span in spans:
        assert span.kind is SpanKind.CLIENT
        assert span.attributes["db.system"] == "sqlite"
        assert "key" not in span.attributes


# --- relations to other spans ----------------------------------------------------------------------------------------


def test_root_begins_a_trace_linked_to_the_current_one(spans: CapturedSpans) -> None:
    @traced("test.job", root=True)
    def job() -> None:
        with traced_block("test.part"):
            pass

    with traced_block("test.request"):
        job()
    job()
    part, linked, request, _, alone = spans
    assert linked.trace_id == part.trace_id != request.trace_id
    assert linked.readable.parent is None
    assert [link.context.span_id for link in linked.links] == [request.span_id]
    assert not alone.links


def test_parent_is_taken_from_the_arguments(spans: CapturedSpans) -> None:
    with traced_block("test.producer"):
        message = SimpleNamespace(headers=inject())

    @traced("test.consumer", parent=lambda message: message.headers)
    def by_callable(message: Any) -> None: ...

    @traced("test.consumer", parent=arg("message.headers"))
    def by_path(message: Any) -> None: ...

    @traced("test.consumer", parent=message.headers)
    def fixed() -> None: ...

    with traced_block("test.polling"):
        by_callable(message)
        by_path(message)
        fixed()
    producer = spans.one("test.producer")
    assert [span.parent for span in spans.all("test.consumer")] == [producer] * 3


def test_parent_may_be_a_context(spans: CapturedSpans) -> None:
    @traced("test.call", parent=lambda context: context)
    def call(context: Any) -> None: ...

    with traced_block("test.other"):
        context = set_span_in_context(get_current_span())
    call(context)
    assert spans.one("test.call").parent is spans.one("test.other")


@pytest.mark.parametrize("headers", [None, {}, {"traceparent": "nonsense"}, 3, object()])
def test_parent_that_is_none_leaves_the_current_one(spans: CapturedSpans, headers: Any) -> None:
    @traced("test.call", parent=lambda headers: headers)
    def call(headers: Any) -> None: ...

    with traced_block("test.outer"):
        call(headers)
    assert spans.one("test.call").parent is spans.one("test.outer")


def test_links_are_taken_from_the_arguments(spans: CapturedSpans) -> None:
    batch = []
    for _ in range(3):
        with traced_block("test.producer"):
            batch.append(inject())

    @traced("test.batch", links=lambda messages: messages)
    def consume(messages: list[Any]) -> None: ...

    @traced("test.single", links=arg("messages.0"))
    def consume_first(messages: list[Any]) -> None: ...

    consume([*batch, {"traceparent": "nonsense"}])
    consume_first(batch)
    produced = [span.span_id for span in spans.all("test.producer")]
    assert [link.context.span_id for link in spans.one("test.batch").links] == produced
    assert [link.context.span_id for link in spans.one("test.single").links] == produced[:1]


def test_generators_have_parents_and_links_too(spans: CapturedSpans) -> None:
    with traced_block("test.producer"):
        headers = inject()

    @traced("test.stream", parent=lambda headers: headers, links=lambda headers: [headers])
    def stream(headers: Any) -> Any:
        yield 1

    list(stream(headers))
    span = spans.one("test.stream")
    assert span.parent is spans.one("test.producer")
    assert len(span.links) == 1


def test_sample_decides_for_one_operation() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def call() -> None:
        with traced_block("test.inner", tracer_provider=provider):
            pass

    for ratio in (0.0, 1.0):
        traced("test.call", sample=ratio, tracer_provider=provider)(call)()
    assert [span.name for span in exporter.get_finished_spans()] == ["test.inner", "test.call"]


def test_tracer_provider_makes_the_spans(spans: CapturedSpans) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    @traced("test.call", tracer_provider=provider)
    def call() -> bool:
        return current_span().is_recording()

    assert call()
    assert [span.name for span in exporter.get_finished_spans()] == ["test.call"]
    assert not spans


# --- strictness ------------------------------------------------------------------------------------------------------


def _subject(order: int) -> None: ...


@pytest.mark.parametrize(
    ("decorate", "words"),
    [
        (lambda: traced("", service="x"), ["name got ''", "expected a non-empty string", "Write 'orders.create'"]),
        (lambda: traced("..."), ["name got '...'", "expected a non-empty string"]),
        (lambda: traced(service=""), ["service got ''", "expected a non-empty string", "Write 'orders'"]),
        (lambda: traced(service=3), ["service got 3"]),  # type: ignore[call-overload]
        (
            lambda: traced("test.call", kind="customer"),  # type: ignore[call-overload]
            ["got 'customer'", "internal, server, client, producer, consumer", "Write kind='client'"],
        ),
        (lambda: traced("test.call", kind=3), ["kind of test.call got 3"]),  # type: ignore[call-overload]
        (
            lambda: traced("test.call", expected=ValueError("x")),  # type: ignore[call-overload]
            ["expected exception classes", "Write expected=(NotFound,)"],
        ),
        (lambda: traced("test.call", expected=(ValueError, int)), ["expected exception classes"]),  # type: ignore[call-overload]
        (
            lambda: traced("test.call", record_exception="no"),  # type: ignore[call-overload]
            ["record_exception of test.call got 'no'", "expected True or False", "Write record_exception=True"],
        ),
        (lambda: traced("test.call", set_status=None), ["set_status of test.call got None"]),  # type: ignore[call-overload]
        (lambda: traced("test.call", root=1), ["root of test.call got 1"]),  # type: ignore[call-overload]
        (lambda: traced("test.call", enabled=1), ["enabled of test.call got 1"]),  # type: ignore[call-overload]
        (
            lambda: traced("test.call", root=True, parent={}),
            ["test.call got both root=True and parent=, expected one", "Write links="],
        ),
        (
            lambda: traced("test.call", sample=1.5),
            ["sample of test.call is 1.5", "expected a number from 0 (nothing) to 1", "Write sample=0.01"],
        ),
        (lambda: traced("test.call", sample="10%"), ["sample of test.call is '10%'"]),  # type: ignore[call-overload]
        (lambda: traced("test.call", sample=True), ["sample of test.call is True"]),
        (
            lambda: traced("test.call", tracer_provider="sdk"),  # type: ignore[call-overload]
            ["tracer_provider of test.call got 'sdk'", "expected a TracerProvider", "Write configure(provider=...)"],
        ),
        (
            lambda: traced("test.call", atributes={}),  # type: ignore[call-overload]
            ["the unknown option 'atributes'", "expected one of: ", "attributes"],
        ),
    ],
)
def test_wrong_option_says_what_was_given_expected_and_to_write(decorate: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(InstrumentationError) as refused:
        decorate()(_subject)
    for word in words:
        assert word in str(refused.value)


def test_what_is_not_callable_is_refused() -> None:
    with pytest.raises(InstrumentationError, match=r"traced got 3, expected a function.*Write @traced above a def"):
        traced(3)  # type: ignore[call-overload]
    with pytest.raises(InstrumentationError, match="expected a function"):
        traced("test.call")(property(_subject))


def test_options_next_to_a_callable_are_refused() -> None:
    with pytest.raises(InstrumentationError, match=r"together with options.*Write @traced\('orders.create', \.\.\.\)"):
        traced(_subject, kind="client")  # type: ignore[call-overload]


def test_name_for_a_class_is_refused() -> None:
    with pytest.raises(InstrumentationError, match=r"got 'orders' for the class Orders.*Write service='orders'"):

        @traced("orders")
        class Orders: ...
