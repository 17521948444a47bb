"""What can be asserted of one captured span: the chain goes on where it holds, and the message shows what there was."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING
from unittest.mock import ANY

import pytest

from tracekit import add_event, add_link, extract, traced, traced_block

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracekit.testing import CapturedSpan, CapturedSpans


class CardDeclinedError(Exception):
    pass


@pytest.fixture
def charge(spans: CapturedSpans) -> CapturedSpan:
    """Capture an order whose payment fails."""
    with (
        contextlib.suppress(CardDeclinedError),
        traced_block("orders.create", {"order.id": 7, "tags": ["a", "b"]}) as create,
    ):
        with traced_block("orders.validate"):
            pass
        with traced_block("payments.charge", {"amount": 12.5, "retry": True}, kind="client"):
            add_event("payment_failed", {"order_id": 7})
            add_link(create)
            raise CardDeclinedError("insufficient funds")  # noqa: EM101
    return spans.one("payments.charge")


def test_assertions_that_hold_chain(spans: CapturedSpans, charge: CapturedSpan) -> None:
    create = spans.one("orders.create")
    assert (
        charge.has_attributes({"amount": 12.5, "retry": True})
        .has_no_attributes("card.*", "password")
        .has_status("ERROR", "*insufficient funds")
        .has_kind("client")
        .has_event("payment_failed")
        .has_event("payment_failed", {"order_id": 7})
        .has_no_event("payment_completed")
        .has_exception(CardDeclinedError)
        .has_exception("CardDeclinedError", "insufficient *")
        .has_link(create)
        .has_link(create.context)
        .has_parent("orders.create")
        .has_no_children()
    ) is charge
    create.has_child("orders.validate").has_child("payments.*").has_parent(None)
    create.has_exception(CardDeclinedError)  # it passed through
    spans.one("orders.validate").has_status("OK").has_no_attributes("order.*")


def test_attributes_are_compared_by_value_pattern_or_their_own_equality(spans: CapturedSpans) -> None:
    with traced_block("orders.create", {"order.id": 7, "url": "http://shop/orders/7", "tags": ["a", "b"], "took": 0.3}):
        pass
    spans.one("orders.create").has_attributes(
        {
            "order.id": ANY,
            "url": re.compile(r"/orders/\d+$"),
            "tags": ["a", "b"],
            "took": pytest.approx(0.30001, rel=0.1),
        }
    )


@pytest.mark.parametrize(
    ("assertion", "message"),
    [
        (lambda span: span.has_attributes({"amount": 20.0}), "payments.charge has amount=12.5, expected 20.0"),
        (lambda span: span.has_attributes({"retry": 1}), "has retry=True, expected 1"),
        (lambda span: span.has_attributes({"amuont": 20}), "has no attribute 'amuont'. Its attributes: amount, retry"),
        (lambda span: span.has_attributes({"amount": re.compile("^3")}), "has amount=12.5, expected re.compile"),
        (lambda span: span.has_no_attributes("am*"), "has amount=12.5, expected no such attribute"),
        (lambda span: span.has_no_attributes(), "has amount=12.5, expected no such attribute"),
        (lambda span: span.has_status("OK"), "has status ERROR (CardDeclinedError: insufficient funds), expected OK"),
        (lambda span: span.has_status("ERROR", "late"), "has the status description 'CardDeclinedError: insuff"),
        (lambda span: span.has_kind("server"), "is of kind 'client', expected 'server'"),
        (lambda span: span.has_event("paid"), "has no event 'paid'. Its events: payment_failed, exception"),
        (lambda span: span.has_event("payment_failed", {"order_id": 8}), "with {'order_id': 8}, only with order_id=7"),
        (lambda span: span.has_no_event("payment_*"), "has the event 'payment_failed', expected none"),
        (lambda span: span.has_exception(ValueError), "has recorded no ValueError, but test_testing_asserts.CardDec"),
        (lambda span: span.has_exception(CardDeclinedError, "late"), "with 'late', but"),
        (lambda span: span.parent.has_exception(OSError), "orders.create has recorded no OSError, nor any other exc"),
        (lambda span: span.has_link(span), "has no link to payments.charge. It has links to: orders.create"),
        (lambda span: span.has_child("gateway.call"), "has no child 'gateway.call'. Its children: none"),
        (lambda span: span.has_parent("orders.validate"), "has 'orders.create' as its parent, expected 'orders.vali"),
        (lambda span: span.has_parent(None), "has 'orders.create' as its parent, expected none"),
        (lambda span: span.parent.has_no_children(), "orders.create has the children orders.validate, payments.charge"),
        (lambda span: span.event("paid"), "has 0 events called 'paid'"),
    ],
)
def test_assertion_that_fails_says_what_differs_and_where(
    charge: CapturedSpan, assertion: Callable[[CapturedSpan], object], message: str
) -> None:
    with pytest.raises(AssertionError) as failed:
        assertion(charge)
    assert message in str(failed.value)
    # The tree, with a mark at the span in question.
    assert re.search(r"^  > (└─ payments\.charge|orders\.create)  ", str(failed.value), re.MULTILINE)


def test_parent_of_elsewhere_is_no_captured_parent(spans: CapturedSpans) -> None:
    remote = extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    with traced_block("worker.handle", parent=remote):
        pass
    with pytest.raises(AssertionError, match="has a span that was not captured as its parent, expected none"):
        spans.one("worker.handle").has_parent(None)


def test_name_with_a_star_finds_what_begins_so(spans: CapturedSpans, charge: CapturedSpan) -> None:
    assert [span.name for span in spans.all("orders.*")] == ["orders.validate", "orders.create"]
    assert spans.one("payments.*") is charge
    spans.none("refunds.*")
    with pytest.raises(AssertionError, match=r"payments\.charge was not expected\. Captured:\n.*\n.*\n  > └─ paym"):
        spans.none("payments.*")


def test_span_that_is_still_open_is_named(spans: CapturedSpans) -> None:
    with traced_block("orders.create"):
        with traced_block("orders.validate"):
            pass
        assert spans.still_open == ["orders.create"]
        with pytest.raises(AssertionError, match=r"expected one; orders\.create has not ended yet") as failed:
            spans.one("orders.create")
        assert "orders.create (open)" in str(failed.value)
        assert str(failed.value).endswith("Not ended yet: orders.create")
        with pytest.raises(AssertionError, match=r"orders\.create has not ended yet"):
            spans.one("orders.validate").has_parent("orders.create")
        with pytest.raises(AssertionError, match=r"orders\.create was not expected"):
            spans.none("orders.create")
    assert spans.still_open == []
    spans.one("orders.create").has_child("orders.validate")


def test_spans_of_another_thread_can_be_waited_for(spans: CapturedSpans) -> None:
    import threading

    may_end = threading.Event()

    @traced("worker.handle")
    def handle() -> None:
        assert may_end.wait(20)

    threads = [threading.Thread(target=handle) for _ in range(2)]
    for thread in threads:
        thread.start()
    with pytest.raises(AssertionError, match=r"0 of 2 spans called 'worker\.handle' have ended within 0\.01 s; worker"):
        spans.wait_for("worker.handle", count=2, timeout_s=0.01)
    may_end.set()
    assert len(spans.wait_for("worker.*", count=2, timeout_s=20)) == 2
    for thread in threads:
        thread.join()
