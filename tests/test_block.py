"""`traced_block`: one span for each use, current inside and nowhere else, whatever order blocks are left in."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN, SpanKind, StatusCode

from tracekit import current_span, current_span_id, inject, traced, traced_block
from tracekit.errors import InstrumentationError
from tracekit.testing import CapturedSpans

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_span_is_current_inside_and_given(spans: CapturedSpans) -> None:
    with traced_block("payments.charge", {"order.id": 7}, kind="client") as span:
        assert current_span() is span
    assert current_span() is INVALID_SPAN
    captured = spans.one("payments.charge")
    assert captured.kind is SpanKind.CLIENT
    assert dict(captured.attributes) == {"order.id": 7}
    assert captured.status.status_code is StatusCode.OK


@pytest.mark.anyio
async def test_async_with_works_alike(spans: CapturedSpans) -> None:
    async with traced_block("payments.charge", {"order.id": 7}, kind=SpanKind.CLIENT) as span:
        await asyncio.sleep(0)
        assert current_span() is span
    assert current_span() is INVALID_SPAN
    assert spans.one("payments.charge").kind is SpanKind.CLIENT


def test_blocks_nest(spans: CapturedSpans) -> None:
    with traced_block("test.outer"):
        with traced_block("test.inner"):
            pass
        with traced_block("test.inner"):
            pass
    spans.assert_tree(
        """
        test.outer
          test.inner
          test.inner
        """
    )


def test_one_object_can_be_entered_again(spans: CapturedSpans) -> None:
    block = traced_block("test.block")
    for _ in range(2):
        with block:
            pass
    assert len({span.span_id for span in spans.all("test.block")}) == 2


def test_one_object_can_be_entered_inside_itself(spans: CapturedSpans) -> None:
    block = traced_block("test.block")
    with block as outer:
        with block as inner:
            assert current_span() is inner
        assert current_span() is outer
    assert current_span() is INVALID_SPAN
    spans.assert_tree(
        """
        test.block
          test.block
        """
    )


@pytest.mark.anyio
async def test_one_object_can_be_entered_by_tasks_at_once(spans: CapturedSpans) -> None:
    block = traced_block("test.block")
    everybody_in = asyncio.Event()
    inside: list[int] = []

    async def use(number: int) -> None:
        with traced_block(f"test.user_{number}"):
            async with block as span:
                inside.append(number)
                if len(inside) == 5:
                    everybody_in.set()
                await everybody_in.wait()
                for _ in range(number):
                    await asyncio.sleep(0)
                span.set_attribute("number", number)

    # The first to leave is not the last to have come.
    await asyncio.gather(*(use(number) for number in reversed(range(5))))
    for number in range(5):
        (child,) = spans.one(f"test.user_{number}").children
        assert child.attributes["number"] == number
    assert current_span() is INVALID_SPAN


def test_one_object_can_be_entered_by_threads_at_once(spans: CapturedSpans) -> None:
    block = traced_block("test.block")
    everybody_in = threading.Barrier(4)

    def use(number: int) -> None:
        with block as span:
            everybody_in.wait()
            span.set_attribute("number", number)
            assert current_span() is span
        assert current_span() is INVALID_SPAN

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(span.attributes["number"] for span in spans) == [0, 1, 2, 3]
    assert not any(span.readable.parent for span in spans)


def _hold(name: str) -> Iterator[str | None]:
    with traced_block(name):
        yield current_span_id()


def test_blocks_of_untraced_generators_closed_first_in_first_out_leave_no_dead_span_current(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    with traced_block("test.outer") as outer:
        held = [_hold(f"test.held_{number}") for number in range(4)]
        for generator in held:
            next(generator)
        for number in (1, 0, 3, 2):
            held[number].close()  # type: ignore[attr-defined]
        assert current_span() is outer
    assert current_span() is INVALID_SPAN
    assert len(spans) == 5
    assert not caplog.records


def test_block_left_in_another_context_changes_nothing_there(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    with traced_block("test.outer") as outer:
        held = _hold("test.held")
        contextvars.copy_context().run(next, held)
        assert current_span() is outer
        held.close()  # type: ignore[attr-defined]
        assert current_span() is outer
    assert not caplog.records


def test_block_collected_elsewhere_changes_nothing_there(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    held = [_hold("test.held")]
    contextvars.copy_context().run(next, held[0])
    with traced_block("test.collecting") as collecting:
        held.clear()
        gc.collect()
        assert current_span() is collecting
    assert spans.names == ["test.held", "test.collecting"]
    assert not caplog.records


def test_a_call_leaves_no_block_of_a_helper_current(spans: CapturedSpans) -> None:
    held = _hold("test.held")

    @traced("test.call")
    def call() -> None:
        next(held)

    with traced_block("test.outer") as outer:
        call()
        assert current_span() is outer
        held.close()  # type: ignore[attr-defined]
        assert current_span() is outer
    assert current_span() is INVALID_SPAN


def test_attributes_of_one_use_stay_with_it(spans: CapturedSpans) -> None:
    block = traced_block("test.block", {"shared": 1})
    with block as span:
        span.set_attribute("own", 1)
    with block:
        pass
    assert [dict(span.attributes) for span in spans] == [{"shared": 1, "own": 1}, {"shared": 1}]


def test_root_begins_a_trace_linked_to_the_current_one(spans: CapturedSpans) -> None:
    with traced_block("test.outer"), traced_block("test.block", root=True):
        pass
    block, outer = spans
    assert block.trace_id != outer.trace_id
    assert block.readable.parent is None
    assert [link.context.span_id for link in block.links] == [outer.span_id]


def test_parent_and_links_may_be_carriers(spans: CapturedSpans) -> None:
    with traced_block("test.producer"):
        headers = inject()
    with traced_block("test.consumer", parent=headers, links=[headers, headers]):
        pass
    consumer, producer = spans.one("test.consumer"), spans.one("test.producer")
    assert consumer.parent is producer
    assert [link.context.span_id for link in consumer.links] == [producer.span_id] * 2


def test_sample_zero_keeps_nothing_below() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    with traced_block("test.block", sample=0.0, tracer_provider=provider) as span:
        assert not span.is_recording()
        with traced_block("test.inner", tracer_provider=provider) as inner:
            assert not inner.is_recording()
            assert inner.get_span_context().trace_id == span.get_span_context().trace_id
    with traced_block("test.block", sample=1.0, tracer_provider=provider) as span:
        assert span.is_recording()


def test_tracer_provider_makes_the_span(spans: CapturedSpans) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with traced_block("test.block", tracer_provider=provider):
        pass
    assert [span.name for span in exporter.get_finished_spans()] == ["test.block"]
    assert not spans


def test_enabled_false_makes_no_span(spans: CapturedSpans) -> None:
    with traced_block("test.outer") as outer, traced_block("test.block", enabled=False) as span:
        assert span is INVALID_SPAN
        assert current_span() is outer
    assert spans.names == ["test.outer"]


def test_without_a_provider_there_is_no_span() -> None:
    with traced_block("test.block") as span:
        assert span is INVALID_SPAN
        span.set_attribute("key", 1)


def test_leaving_what_was_never_entered_does_nothing(spans: CapturedSpans) -> None:
    traced_block("test.block").__exit__(None, None, None)
    assert not spans


_OPTIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": 3}, ["name got 3", "expected a non-empty string", "Write 'orders.create'"]),
    ({"name": ""}, ["name got ''", "expected a non-empty string"]),
    ({"name": "."}, ["name got '.'"]),
    ({"service": ""}, ["service got ''", "expected a non-empty string", "Write 'orders'"]),
    ({"kind": "customer"}, ["kind of test.block got 'customer'", "internal, server, client", "Write kind='client'"]),
    ({"expected": "ValueError"}, ["got 'ValueError'", "expected exception classes", "expected=(NotFound,)"]),
    ({"record_exception": "yes"}, ["record_exception of test.block got 'yes'", "expected True or False"]),
    ({"set_status": 1, "expected": []}, ["set_status of test.block got 1"]),
    ({"set_status": 1}, ["set_status of test.block got 1", "expected True or False"]),
    ({"root": "no"}, ["root of test.block got 'no'", "expected True or False"]),
    ({"root": True, "parent": {}}, ["both root=True and parent=", "Write links="]),
    ({"sample": 2}, ["sample of test.block is 2", "from 0 (nothing) to 1 (everything)", "Write sample=0.01"]),
    ({"tracer_provider": "sdk"}, ["tracer_provider of test.block got 'sdk'", "expected a TracerProvider"]),
    ({"enabled": "no"}, ["enabled of test.block got 'no'", "expected True or False"]),
]


@pytest.mark.parametrize(("options", "words"), _OPTIONS)
def test_wrong_option_is_refused(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InstrumentationError) as refused:
        traced_block(**{"name": "test.block", **options})
    for word in words:
        assert word in str(refused.value)
