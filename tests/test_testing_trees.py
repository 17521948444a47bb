"""`assert_tree`: what an expected tree may leave open, and how a message points to the first line that differs."""

from __future__ import annotations

import asyncio
import contextlib
import random
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit import add_event, extract, propagate, traced, traced_block
from tracekit.testing import capture_spans

if TYPE_CHECKING:
    from pathlib import Path

    from tracekit.testing import CapturedSpans


@pytest.fixture
def _order(spans: CapturedSpans) -> None:
    attributes = {"order.id": 7, "who": "Ada L"}
    with contextlib.suppress(ValueError), traced_block("orders.post", attributes) as request:
        request.update_name("POST /orders/{order_id}")
        for number in range(3):
            with traced_block("db.insert", {"row": number, "table": "orders"}):
                pass
        with traced_block("payments.charge", {"amount": 12.5, "url": "http://bank/charge?id=4711"}):
            add_event("payment_started", {"order_id": 7})
            add_event("payment_failed", {"order_id": 7})
            raise ValueError("card 4711 declined")  # noqa: EM101


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param(
            """
            POST /orders/{order_id}
              ...
            """,
            id="any children",
        ),
        pytest.param(
            """
            POST /orders/{order_id}  who="Ada L"
              ...
              payments.charge
            """,
            id="any before the last",
        ),
        pytest.param(
            """
            POST /orders/{order_id}
              db.insert  row=0
              ...
              db.insert  row=2
              ...
            """,
            id="any between",
        ),
        pytest.param(
            """
            ...
            POST *  order.id=7
            ├─ db.*  table=orders row=*
            ├─ db.*
            ├─ *
            └─ payments.charge  ERROR ValueError: card * declined  amount=*
               • payment_failed
            ...
            """,
            id="globs",
        ),
        pytest.param(
            r"""
            POST /orders/{order_id} order.id~^\d$
              db.insert row~[012]
              db.insert
              db.insert
              payments.charge  ERROR  url~id=\d+$ amount~^12
                • payment_started  order_id~7
                • payment_failed
            """,
            id="regular expressions",
        ),
        pytest.param(
            """
            POST /orders/{order_id}  who='Ada L'
              ...
            """,
            id="other quotes",
        ),
    ],
)
@pytest.mark.usefixtures("_order")
def test_tree_may_leave_open_what_varies(spans: CapturedSpans, expected: str) -> None:
    spans.assert_tree(expected)


@pytest.mark.parametrize(
    ("expected", "line", "reason"),
    [
        (
            """
            POST /orders/{order_id}  order.id=8
              ...
            """,
            1,
            "POST /orders/{order_id} has order.id=7, expected order.id=8",
        ),
        (
            """
            POST /orders/{order_id}
              db.insert  row=0
              db.insert  row=2
              ...
            """,
            3,
            "db.insert has row=1, expected row=2",
        ),
        (
            """
            POST /orders/{order_id}
              ...
              payments.charge  amount~^13
            """,
            3,
            "payments.charge has amount=12.5, expected amount~^13",
        ),
        (
            """
            POST /orders/{order_id}
              ...
              payments.refund
            """,
            3,
            "there is no 'payments.refund' below POST /orders/{order_id}",
        ),
        (
            """
            POST /orders/{order_id}
              ...
              payments.charge  OK
            """,
            3,
            "payments.charge has status ERROR, expected OK",
        ),
        (
            """
            POST /orders/{order_id}
              ...
              payments.charge  ERROR TimeoutError: *
            """,
            3,
            "payments.charge failed with 'ValueError: card 4711 declined', expected 'TimeoutError: *'",
        ),
        (
            """
            POST /orders/{order_id}
              ...
              payments.charge
                • payment_failed
                • payment_started
            """,
            5,
            "payments.charge has no event 'payment_started' in this place; its events: payment_started, payment_failed",
        ),
        (
            """
            POST /orders/{order_id}
              ...
              payments.charge  declined
            """,
            3,
            "'declined' is neither key=value nor key~regex",
        ),
        (
            """
            POST /orders/{order_id}
              ...
              payments.charge
                gateway.call
            """,
            4,
            "there is no 'gateway.call' below payments.charge",
        ),
        (
            """
            POST /orders/{order_id}  order.number=7
              ...
            """,
            1,
            "POST /orders/{order_id} has no order.number, expected order.number=7",
        ),
    ],
)
@pytest.mark.usefixtures("_order")
def test_message_points_to_the_first_line_that_differs(
    spans: CapturedSpans, expected: str, line: int, reason: str
) -> None:
    with pytest.raises(AssertionError) as failed:
        spans.assert_tree(expected)
    message = str(failed.value)
    assert message.startswith(f"The trees differ at line {line}: {reason}")
    told, captured = message.split("\nCaptured:\n")
    marked = [number for number, text in enumerate(told.split("Expected:\n")[1].splitlines(), 1) if text[:4] == "  > "]
    assert marked == [line]
    assert captured.count("  > ") == 1


@pytest.mark.usefixtures("_order")
def test_span_that_was_not_expected_is_pointed_to(spans: CapturedSpans) -> None:
    with pytest.raises(AssertionError) as failed:
        spans.assert_tree(
            """
            POST /orders/{order_id}
              db.insert
              db.insert
            """
        )
    assert str(failed.value) == dedent(
        """\
        The trees differ: db.insert below POST /orders/{order_id} was not expected

        Expected:
            POST /orders/{order_id}
              db.insert
              db.insert

        Captured:
            POST /orders/{order_id}  ERROR ValueError: card 4711 declined  order.id=7 who="Ada L"
            ├─ db.insert  row=0 table=orders
            ├─ db.insert  row=1 table=orders
          > ├─ db.insert  row=2 table=orders
            └─ payments.charge  ERROR ValueError: card 4711 declined  amount=12.5 url=http://bank/charge?id=4711
               • payment_started  order_id=7
               • payment_failed  order_id=7"""
    )


def test_siblings_may_come_in_any_order_where_that_is_said(spans: CapturedSpans) -> None:
    @traced("worker.handle")
    def handle(number: int) -> None:
        if number:
            with traced_block("worker.store"):
                pass

    with traced_block("orders.import"), ThreadPoolExecutor(3) as pool:
        list(pool.map(propagate(handle), random.sample(range(3), 3)))
    # The first fits all three: it must not take the place of the one that fits a single line.
    expected = """
        orders.import
          worker.handle
            ...
          worker.handle  number=2
            worker.store
          worker.handle  number=0
    """
    spans.assert_tree(expected, in_any_order=True)
    with pytest.raises(AssertionError, match=r"orders\.import|there is no 'worker\.handle  number=3' below"):
        spans.assert_tree(expected.replace("number=2", "number=3"), in_any_order=True)
    with pytest.raises(AssertionError, match=r"worker\.handle below orders\.import was not expected"):
        spans.assert_tree(
            """
            orders.import
              worker.handle  number=0
              worker.handle  number=1
                worker.store
            """,
            in_any_order=True,
        )


@pytest.mark.anyio
async def test_tasks_that_run_at_once_stand_below_their_parent(spans: CapturedSpans) -> None:
    @traced("prices.fetch")
    async def fetch(shop: str) -> None:
        await asyncio.sleep(0)

    with traced_block("prices.compare"):
        await asyncio.gather(fetch("a"), fetch("b"))
    spans.assert_tree(
        """
        prices.compare
          prices.fetch  shop=a
          prices.fetch  shop=b
        """
    )


def test_spans_stand_in_the_order_of_their_starts_under_a_frozen_clock(
    spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    with traced_block("orders.create"):
        for name in ("test.c", "test.a", "test.b"):
            with traced_block(name), traced_block("test.inner"):
                pass
    spans.assert_tree(
        """
        orders.create
          test.c
            test.inner
          test.a
            test.inner
          test.b
            test.inner
        """
    )


def test_remote_parent_can_be_asked_for(spans: CapturedSpans) -> None:
    remote = extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    with traced_block("worker.handle", {"a": 1, "b": 2}, parent=remote), traced_block("worker.store"):
        pass
    spans.assert_tree("worker.handle  a=1  ← remote parent\n  worker.store")
    with pytest.raises(AssertionError, match="has its parent here or none"):
        spans.assert_tree("worker.handle  a=1\n  worker.store  ← remote parent")


_NAMES = st.sampled_from(
    ["orders.create", "GET /orders/{id}", "a  b", "x=1", "ERROR", "...", "• e", "*", "é ~ ü", "OK now"]
)
_VALUES = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(max_size=100), st.lists(st.text(max_size=5), max_size=3)
)


@settings(max_examples=50)
@given(st.data())
def test_tree_of_what_was_captured_always_matches_it(data: Any) -> None:
    def trace(depth: int) -> None:
        attributes = data.draw(st.dictionaries(st.sampled_from(["a", "b.c", "d e"]), _VALUES, max_size=3))
        with contextlib.suppress(ValueError), traced_block("test.block", attributes) as span:
            span.update_name(data.draw(_NAMES))
            if data.draw(st.booleans()):
                add_event("done", attributes)
            for _ in range(data.draw(st.integers(0, 2)) if depth < 3 else 0):
                trace(depth + 1)
            if data.draw(st.booleans()):
                raise ValueError(data.draw(st.text(max_size=20)))

    with capture_spans() as spans:
        trace(0)
    spans.assert_tree(spans.tree())
    spans.assert_tree(spans.tree(), in_any_order=True)
    spans.assert_tree("...")


def test_file_of_a_tree_is_compared_and_written_when_asked(
    spans: CapturedSpans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trees" / "order.txt"
    with traced_block("orders.create", {"order.id": 7}):
        pass
    with pytest.raises(
        AssertionError, match=r"(?s)order\.txt: orders\.create was not expected.*TRACEKIT_UPDATE_TREES=1"
    ):
        spans.assert_tree(path)
    monkeypatch.setenv("TRACEKIT_UPDATE_TREES", "1")
    spans.assert_tree(path)
    assert path.read_text(encoding="utf-8") == "orders.create  order.id=7\n"
    # What still fits is left as somebody wrote it.
    path.write_text("orders.*\n", encoding="utf-8")
    spans.assert_tree(path)
    assert path.read_text(encoding="utf-8") == "orders.*\n"
    monkeypatch.delenv("TRACEKIT_UPDATE_TREES")
    path.write_text("orders.cancel\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"differ at line 1 of .*orders\.create stands where orders\.cancel was"):
        spans.assert_tree(path)
