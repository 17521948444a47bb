"""What type checkers must see of `tracekit.testing`; checked by `make types`, never run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from typing_extensions import assert_type

from tracekit.testing import CapturedSpan, CapturedSpans, capture_spans

with capture_spans() as spans:
    assert_type(spans, CapturedSpans)

span = spans.one("orders.create")
assert_type(span, CapturedSpan)
assert_type(spans.all(), list[CapturedSpan])
assert_type(spans[0], CapturedSpan)
assert_type(spans[:1], list[CapturedSpan])
assert_type(spans.wait_for("orders.create", count=2), list[CapturedSpan])
assert_type(spans.tree(), str)
assert_type(span.readable, ReadableSpan)
assert_type(span.attributes, Mapping[str, Any])
assert_type(span.events, Sequence[Event])
assert_type(span.event("paid"), Event)
assert_type(span.children, list[CapturedSpan])

# The chain keeps its type.
assert_type(
    span.has_attributes({"order.id": 7, "url": re.compile("orders")})
    .has_no_attributes("password")
    .has_status("ERROR", "*declined")
    .has_kind("client")
    .has_event("payment_failed", {"order_id": 7})
    .has_no_event("paid")
    .has_exception(ValueError)
    .has_exception("CardDeclined")
    .has_link(span)
    .has_child("payments.charge")
    .has_no_children()
    .has_parent(None),
    CapturedSpan,
)
spans.assert_tree("orders.create", in_any_order=True)
spans.assert_tree(Path("trees/order.txt"))

# A misspelt assertion or word is caught.
span.has_atributes({})  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
span.has_status("FAILED")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
span.has_kind("backend")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
