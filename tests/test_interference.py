"""What plugged-in code, threads and processes do to each other's spans: nothing."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import tracekit
from tracekit import arg, current_span, traced, traced_block
from tracekit.testing import CapturedSpans

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan


def test_threads_that_share_one_block_end_their_own_spans(spans: CapturedSpans) -> None:
    block = traced_block("shop.shared")
    leaked: list[object] = []

    def work() -> None:
        for _ in range(300):
            with block as span:
                assert current_span() is span
        if current_span().get_span_context().is_valid:
            leaked.append(current_span())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(spans.all("shop.shared")) == 2_400
    assert not leaked


class Leaves:
    @property
    def total(self) -> NoReturn:
        raise SystemExit(3)


def leave(*_: object) -> NoReturn:
    raise SystemExit(4)


@pytest.mark.parametrize(
    "options",
    [
        {"attributes": {"total": arg("order.total")}},
        {"attributes": {"total": lambda order: leave(order) or None}},
        {"capture_result": leave},
        {"parent": lambda order: leave(order) or None},
        {"links": lambda order: leave(order) or None},
    ],
)
def test_exit_raised_by_what_reads_a_call_does_not_reach_the_caller(
    options: dict[str, Any], spans: CapturedSpans
) -> None:
    @traced("shop.order", **options)
    def order(order: object) -> str:
        return "done"

    assert order(Leaves()) == "done"
    assert spans.one("shop.order").status.is_ok


def test_exception_whose_attributes_exit_is_the_one_that_is_raised(spans: CapturedSpans) -> None:
    class LeavesError(Exception):
        def __getattr__(self, name: str) -> NoReturn:
            raise SystemExit(5)

    @traced("shop.order")
    def order() -> None:
        raise error

    error = LeavesError("mine")
    with pytest.raises(LeavesError) as raised:
        order()
    assert raised.value is error
    assert spans.one("shop.order").status.description == "LeavesError: mine"


def test_extra_keyword_arguments_do_not_push_out_the_fixed_attributes(spans: CapturedSpans) -> None:
    @traced("shop.order", attributes=None)
    def order(**options: int) -> None: ...

    order(**{f"option_{number}": number for number in range(1_000)})
    attributes = spans.one("shop.order").attributes
    assert "code.function.name" in attributes
    assert attributes["option_0"] == 0
    assert len(attributes) < 128


def test_a_key_that_is_cut_is_judged_whole(spans: CapturedSpans) -> None:
    with traced_block("shop.order", {"a" * 300 + ".password": "hunter2"}):
        pass
    assert "hunter2" not in str(spans.one("shop.order").attributes)


@pytest.mark.engine("what a log handler raises reaches who set the attribute")
def test_log_handler_that_raises_does_not_reach_who_sets_attributes() -> None:
    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> NoReturn:
            raise AssertionError

    handler = Raises()
    logging.getLogger().addHandler(handler)
    try:
        with tracekit.configure(service="shop", exporter="memory"), traced_block("shop.order") as span:
            for number in range(200):
                span.set_attribute(f"key_{number}", number)
            span.end()
            span.set_attribute("late", 1)
    finally:
        logging.getLogger().removeHandler(handler)


def test_exporter_that_empties_its_batch_loses_nothing_uncounted() -> None:
    class Empties(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            if isinstance(spans, list):
                spans.clear()
            return SpanExportResult.FAILURE

        def shutdown(self) -> None: ...

    with tracekit.configure(service="shop", exporter=Empties()) as tracing:
        for _ in range(10):
            with traced_block("shop.order"):
                pass
        assert not tracing.flush()
        assert dict(tracing.stats.dropped) == {"export_failed": 10}


@pytest.mark.engine("a forked child ends its copies of them too")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_child_leaves_the_spans_its_parent_has_open_to_it(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    with tracekit.configure(service="shop", exporter=f"file:{path}") as tracing:
        with traced_block("shop.parent"):
            child = os.fork()
            if not child:
                with traced_block("shop.child"):
                    pass
        if not child:
            tracing.flush()
            os._exit(0)
        os.waitpid(child, 0)
    written = path.read_text()
    assert written.count('"shop.parent"') == 1
    assert written.count('"shop.child"') == 1
