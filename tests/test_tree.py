"""The trace tree as text: what a developer reads, and what a hostile span cannot do to it."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from tracekit.export import SpanRecord, TreeOptions, render_tree
from tracekit.export.record import EventRecord, LinkRecord
from tracekit.export.text import duration_text, for_encoding, value_text

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
STABLE = TreeOptions(header=False, ids=False, durations=False)
MS = 1_000_000


def span(
    number: int, name: str, parent: int | None = None, *, start_ms: int | None = None, **fields: Any
) -> SpanRecord:
    """A span of 1 ms that starts *number* ms after the trace unless told otherwise."""
    start = (number if start_ms is None else start_ms) * MS
    fields.setdefault("end_time_ns", start + MS)
    parent_id = None if parent is None else f"{parent:016x}"
    return SpanRecord(TRACE, f"{number:016x}", name, parent_id, start_time_ns=start, **fields)


def stable(*spans: SpanRecord, **options: Any) -> str:
    return render_tree(spans, TreeOptions(header=False, ids=False, durations=False, **options))


def test_tree_is_written_as_documented() -> None:
    spans = [
        span(2, "orders.validate", 1, attributes={"order.id": 7}, end_time_ns=7 * MS),
        span(3, "db.insert orders", 1, start_ms=10, end_time_ns=25 * MS),
        span(
            4,
            "payments.charge",
            1,
            start_ms=30,
            end_time_ns=110 * MS,
            status="error",
            description="CardDeclined: insufficient funds",
            events=(EventRecord("payment_started", 31 * MS, {"order_id": 7}),),
        ),
        span(1, "HTTP POST /orders", start_ms=0, end_time_ns=120 * MS),
    ]
    assert render_tree(spans) == (
        "Trace: 4bf92f3577b34da6a3ce929d0e0e4736  (120ms, 4 spans)\n"
        "├─ HTTP POST /orders (120ms)\n"
        "│  ├─ orders.validate (5ms)  order.id=7\n"
        "│  ├─ db.insert orders (15ms)\n"
        "│  └─ payments.charge (80ms)  ERROR CardDeclined: insufficient funds\n"
        "│     • payment_started  order_id=7\n"
    )


def test_text_without_ids_and_durations_is_the_same_in_each_run() -> None:
    def run(offset: int) -> str:
        return stable(
            span(offset + 1, "a", offset + 9, parent_is_remote=True, links=(LinkRecord("f" * 32, "e" * 16),)),
            span(offset + 2, "b", offset + 1, end_time_ns=(offset * 7 + 50) * MS),
        )

    assert run(0) == run(100) == "├─ a  ← remote parent\n│  → link to another trace\n│  └─ b\n"


def test_children_stand_in_the_order_they_started_in() -> None:
    assert stable(span(3, "c", 1), span(2, "b", 1), span(1, "a")) == "├─ a\n│  ├─ b\n│  └─ c\n"


def test_events_and_links_stand_below_their_span() -> None:
    tree = stable(
        span(1, "a", events=(EventRecord("started"),), links=(LinkRecord(TRACE, f"{3:016x}", {"why": "retry"}),)),
        span(2, "b", 1),
        span(3, "c", 1),
    )
    assert tree == "├─ a\n│  • started\n│  → link to c  why=retry\n│  ├─ b\n│  └─ c\n"


def test_links_to_other_traces_say_where_they_lead() -> None:
    tree = render_tree([span(1, "a", links=(LinkRecord("f" * 32, "e" * 16),))])
    assert f"→ link to another trace {'f' * 32} {'e' * 16}\n" in tree


def test_remote_and_missing_parents_are_named() -> None:
    tree = render_tree([span(1, "a", 0xAB, parent_is_remote=True), span(2, "b", 0xCD)], TreeOptions(durations=False))
    assert "├─ a  ← remote parent 00000000000000ab\n" in tree
    assert "├─ b  ← parent 00000000000000cd not in this tree\n" in tree


def test_spans_of_two_processes_join_and_name_their_services() -> None:
    tree = stable(
        span(1, "POST /orders", service="orders"),
        span(2, "HTTP POST", 1, service="orders"),
        span(3, "POST /charge", 2, parent_is_remote=True, service="payments"),
        span(4, "gateway.charge", 3, service="payments"),
    )
    assert tree == (
        "├─ [orders] POST /orders\n│  └─ HTTP POST\n│     └─ [payments] POST /charge\n│        └─ gateway.charge\n"
    )


def test_open_spans_make_the_trace_incomplete() -> None:
    tree = render_tree([span(1, "a", end_time_ns=None), span(2, "b", 1)])
    assert tree.splitlines()[0].endswith("(2ms, 1 span)  incomplete: 1 still open")
    assert "├─ a (open)\n" in tree


def test_exception_is_said_once_and_without_its_stack() -> None:
    raised = EventRecord(
        "exception",
        0,
        {"exception.type": "shop.CardDeclined", "exception.message": "no funds", "exception.stacktrace": "File...\n"},
    )
    by_tracekit = span(1, "a", status="error", description="CardDeclined: no funds", events=(raised,))
    by_hand = span(1, "a", status="error", description="shop.CardDeclined: no funds", events=(raised,))
    expected = span(1, "a", attributes={"error.type": "shop.CardDeclined"}, events=(raised,))
    assert stable(by_tracekit) == "├─ a  ERROR CardDeclined: no funds\n"
    assert stable(by_hand) == "├─ a  ERROR shop.CardDeclined: no funds\n"
    assert stable(expected) == "├─ a  error.type=shop.CardDeclined\n│  • exception CardDeclined: no funds\n"


def test_error_without_description_says_what_is_known() -> None:
    raised = EventRecord("exception", 0, {"exception.type": "KeyError", "exception.message": "'sku'"})
    assert stable(span(1, "a", status="error", events=(raised,))) == "├─ a  ERROR KeyError: 'sku'\n"
    assert stable(span(1, "a", status="error", attributes={"error.type": "500"})) == "├─ a  ERROR 500\n"
    assert stable(span(1, "a", status="error")) == "├─ a  ERROR\n"


def test_attributes_that_say_nothing_new_are_left_out() -> None:
    tree = stable(
        span(
            1,
            "POST /orders",
            attributes={
                "code.function.name": "shop.create",
                "thread.id": 1,
                "http.request.method": "POST",
                "http.route": "/orders",
                "url.full": "http://shop/orders",
                "server.address": "shop",
                "http.response.status_code": 201,
                "code.review": "kept",
            },
        )
    )
    assert tree == "├─ POST /orders  url.full=http://shop/orders http.response.status_code=201 code.review=kept\n"


DATABASE = {"db.system": "sqlite", "server.address": "db", "db.query.text": "SELECT * FROM shop.products"}


def test_with_what_the_work_was_done_is_said_where_it_has_failed() -> None:
    assert (
        stable(span(1, "SELECT products", attributes={**DATABASE, "shop.id": 1})) == "├─ SELECT products  shop.id=1\n"
    )
    failed = stable(span(1, "SELECT products", status="error", attributes=DATABASE))
    assert "db.system=sqlite server.address=db db.query.text=" in failed


def test_a_query_is_said_where_the_name_does_not_tell_its_table() -> None:
    assert stable(span(1, "SELECT", attributes=DATABASE)) == '├─ SELECT  db.query.text="SELECT * FROM shop.products"\n'


def test_a_status_is_said_once() -> None:
    attributes = {"http.response.status_code": 500, "error.type": "500"}
    assert stable(span(1, "GET /", status="error", description="KeyError: 'CHF'", attributes=attributes)) == (
        "├─ GET /  ERROR KeyError: 'CHF'  http.response.status_code=500\n"
    )


def test_attributes_of_the_program_go_before_those_of_instrumentations() -> None:
    attributes = {**{f"http.{number}": number for number in range(12)}, "order.id": 7}
    assert "order.id=7 … 13 attributes" in stable(span(1, "a", attributes=attributes))


def test_caller_chooses_what_is_hidden() -> None:
    hidden = frozenset({"a"})
    assert stable(span(1, "x", attributes={"a": 1, "thread.id": 2}), hidden=hidden) == "├─ x  thread.id=2\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("", '""'),
        ('say "hi"', "'say \"hi\"'"),
        ('it\'s "it"', '"it\'s \\"it\\""'),
        ("https://shop/orders?id=7", "https://shop/orders?id=7"),
        (r"C:\temp", r"C:\temp"),
        ("line\nbreak", r"line\nbreak"),
        ("x" * 100, "x" * 79 + "…"),
        (True, "True"),
        (None, "None"),
        (1.5, "1.5"),
        (float("nan"), "nan"),
        (b"\x00ab", r"b'\x00ab'"),
        (("a", "b c", 1), '[a, "b c", 1]'),
        ({"a": [1, {"b": 2}]}, "{a: [1, {b: 2}]}"),
        ([[[[1]]]], "[[[[…]]]]"),
        (object(), "<object>"),
    ],
)
def test_value_is_written_as_a_developer_reads_it(value: object, text: str) -> None:
    assert value_text(value) == text


def test_int_too_long_to_print_is_named() -> None:
    assert value_text(1 << 20_000) == "<int of 20001 bits>"


def test_long_values_are_cut_without_reading_them_to_the_end() -> None:
    class Endless(list[int]):
        def __iter__(self) -> Any:
            while True:
                yield 1_000

    assert len(value_text(Endless([1]))) < 100
    assert len(stable(span(1, "n" * 9_999, attributes={f"k{i}": "v" * 9_999 for i in range(200)}))) < 1_500


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0ns"),
        (999, "999ns"),
        (1_000, "1µs"),
        (4_200, "4.2µs"),
        (999_499, "999µs"),
        (999_600, "1ms"),
        (5_000_000, "5ms"),
        (120_400_000, "120ms"),
        (999_900_000, "1s"),
        (1_240_000_000, "1.2s"),
        (59_000_000_000, "59s"),
        (125_000_000_000, "2m 5s"),
        (3_720_000_000_000, "1h 2m"),
        (-60_000_000_000, "-1m 0s"),
    ],
)
def test_duration_is_written_in_the_unit_of_fewest_digits(ns: int, text: str) -> None:
    assert duration_text(ns) == text


# ---------------------------------------------------------------- repeats


def test_repeats_become_one_line() -> None:
    queries = [span(i, "db.select", 1, attributes={"shop": "north", "item": i}) for i in range(2, 242)]
    tree = render_tree([span(1, "a", end_time_ns=300 * MS), *queries], TreeOptions(header=False))
    assert tree == "├─ a (299ms)\n│  └─ db.select (x 240, 240ms total, slowest 1ms)  shop=north\n"


def test_a_few_repeats_are_shown_one_by_one() -> None:
    assert stable(*(span(i, "a") for i in range(1, 5))) == "├─ a\n" * 4
    assert stable(*(span(i, "a") for i in range(1, 9)), fold_from=0) == "├─ a\n" * 8


def test_repeats_are_folded_where_they_take_turns() -> None:
    turns = [span(i, "read" if i % 2 else "write", 1) for i in range(2, 22)]
    assert stable(span(1, "a"), *turns) == "├─ a\n│  ├─ write (x 10)\n│  └─ read (x 10)\n"


def test_repeats_with_children_of_the_same_kind_are_folded_with_them() -> None:
    loads = [span(i * 100, "load", 1, start_ms=i * 100) for i in range(1, 11)]
    items = [
        span(load * 100 + item, "item", load * 100, events=(EventRecord("miss"),))
        for load in range(1, 11)
        for item in range(1, load + 2)
    ]
    assert stable(span(1, "a"), *loads, *items) == (
        "├─ a\n│  └─ load (x 10)\n│     └─ item (x 65)\n│        • miss (x 65)\n"
    )


def test_errors_are_not_folded_into_successes() -> None:
    spans = [span(i, "charge", 1) for i in range(2, 102)]
    spans[49] = span(51, "charge", 1, status="error", description="Declined: no")
    assert stable(span(1, "a"), *spans) == "├─ a\n│  ├─ charge (x 99)\n│  └─ charge  ERROR Declined: no\n"


def test_repeated_errors_stay_visible_when_folded() -> None:
    spans = [span(i, "charge", status="error", description="Timeout") for i in range(1, 8)]
    assert stable(*spans) == "├─ charge (x 7)  ERROR Timeout\n"


def test_failures_below_repeats_are_not_folded_away() -> None:
    loads = [span(i * 10, "load") for i in range(1, 11)]
    items = [span(i * 10 + 1, "item", i * 10, status="error" if i == 7 else "ok") for i in range(1, 11)]
    assert stable(*loads, *items) == "├─ load (x 9)\n│  └─ item (x 9)\n├─ load\n│  └─ item  ERROR\n"


def test_repeated_events_become_one_line() -> None:
    chunks = tuple(EventRecord("chunk", i, {"size": 10, "index": i}) for i in range(100))
    assert stable(span(1, "a", events=chunks)) == "├─ a\n│  • chunk (x 100)  size=10\n"


def test_many_different_events_are_counted() -> None:
    events = tuple(EventRecord(f"event_{i}") for i in range(100))
    lines = stable(span(1, "a", events=events)).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "│  … 81 more events and links"


# ---------------------------------------------------------------- size and shape


def test_deep_nesting_is_written_level_by_level() -> None:
    lines = stable(*(span(i, f"level_{i}", i - 1 if i > 1 else None) for i in range(1, 20_001)), max_lines=10**6)
    rows = lines.splitlines()
    assert len(rows) == 20_000
    assert max(map(len, rows)) < 150
    assert rows[19_999].endswith("(level 19999) level_20000")


def test_thousands_of_different_spans_leave_a_count_and_the_errors() -> None:
    spans = [span(1, "root")] + [span(i, f"step_{i}", 1) for i in range(2, 10_001)]
    spans[9_000] = span(9_001, "step_9001", 1, status="error", description="Lost: it")
    lines = stable(*spans).splitlines()
    assert len(lines) == 502
    assert lines[-2:] == ["… 9,500 more spans left out, 1 error among them:", "├─ step_9001  ERROR Lost: it"]


def test_left_out_errors_are_bounded_and_counted() -> None:
    spans = [span(i, f"step_{i}", status="error") for i in range(1, 1_001)]
    lines = stable(*spans, max_lines=10).splitlines()
    assert len(lines) == 10 + 1 + 20 + 1
    assert lines[-1] == "… 970 more errors"


def test_no_spans_make_a_header_only() -> None:
    assert render_tree([]) == "Trace:   (0 spans)\n"


NUMBERS = st.integers(min_value=1, max_value=12)


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS | st.none(), st.sampled_from("ab"), st.booleans()), max_size=40),
    st.integers(min_value=0, max_value=60),
)
def test_every_span_is_shown_or_counted(shape: list[tuple[int, int | None, str, bool]], max_lines: int) -> None:
    # Ids repeat, parents are missing or form circles: what a file may claim.
    spans = [span(n, name, parent, status="error" if bad else "unset") for n, parent, name, bad in shape]
    tree = stable(*spans, max_lines=max_lines)
    told = re.sub(r"(?s)… ([\d,]+) more spans? left out.*", r"(x \1)", tree)
    counts = [
        int(match[1] or 1) for match in re.finditer(r"^.*?(?:\(x (\d+)\).*|$)\n?", told, re.MULTILINE) if match[0]
    ]
    assert sum(counts) == len(spans)


# ---------------------------------------------------------------- hostile text

HOSTILE = st.text(
    st.characters() | st.sampled_from("\x00\x07\x1b\x7f\x85\x9b\n\r\t\u2028\u2029\u202e\u2066\u200b\ud800\udfff├└│─•"),
    max_size=300,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=200) | HOSTILE,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(HOSTILE, values, max_size=4),
    max_leaves=8,
)
ATTRIBUTES = st.dictionaries(HOSTILE, VALUES, max_size=4)
EVENTS = st.lists(st.builds(EventRecord, HOSTILE, st.just(0), ATTRIBUTES), max_size=4)


@given(
    HOSTILE, ATTRIBUTES, EVENTS, HOSTILE, HOSTILE, st.sampled_from(["utf-8", "ascii", "cp1252", "shift_jis", "utf-16"])
)
def test_hostile_text_makes_no_line_and_no_control_character(
    name: str, attributes: dict[str, Any], events: list[EventRecord], description: str, service: str, encoding: str
) -> None:
    hostile = span(
        1,
        name,
        attributes=attributes,
        events=tuple(events),
        links=(LinkRecord(TRACE, f"{1:016x}", attributes),),
        status="error",
        description=description,
        service=service,
    )
    tree = render_tree([hostile, span(2, "b", 1)], TreeOptions(fold_from=0))
    assert tree.count("\n") == 1 + 1 + len(events) + 1 + 1
    assert not [char for char in tree.replace("\n", "") if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert len(tree.splitlines()) == tree.count("\n")
    # Shown where it cannot be drawn, too.
    for_encoding(tree, encoding).encode(encoding)
    assert for_encoding(tree, encoding).count("\n") == tree.count("\n")


def test_colours_only_paint() -> None:
    spans = [
        span(1, "a\x1b[31m", attributes={"k": "v"}, events=(EventRecord("e"),), status="error", description="bad"),
        span(2, "b", 1),
    ]
    painted = render_tree(spans, TreeOptions(color=True))
    assert "\x1b[1;31mERROR bad\x1b[0m" in painted
    assert re.sub(r"\x1b\[[\d;]+m", "", painted) == render_tree(spans)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "no such encoding"])
def test_narrow_encoding_gets_an_ascii_tree(encoding: str) -> None:
    tree = "├─ a (3µs)  price=5€ who=Åsa…\n│  └─ b\n│     • c\n"
    euro = "€" if encoding == "cp1252" else "\\u20ac"
    who = "Åsa" if encoding == "cp1252" else "\\xc5sa"
    assert for_encoding(tree, encoding) == f"|- a (3us)  price=5{euro} who={who}...\n|  `- b\n|     * c\n"


def test_wide_encodings_keep_the_tree() -> None:
    assert for_encoding("├─ a\n", "utf-8") == for_encoding("├─ a\n", None) == "├─ a\n"
    assert for_encoding("├─ é\n", "cp437") == "├─ é\n"


def test_span_made_by_hand_of_wrong_types_is_still_written() -> None:
    wrong: Any = ReadableSpan(name=7, context=SpanContext(1, 2, is_remote=False), start_time="now", end_time=1.5)  # type: ignore[arg-type]
    assert stable(SpanRecord.of(wrong)) == "├─ <int>\n"
    assert SpanRecord.of(wrong).start_time_ns == 0
