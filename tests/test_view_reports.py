"""What views say of a trace: where its time went, what it had to wait for, why it failed."""

from __future__ import annotations

import re
import traceback
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.export import SpanRecord
from tracekit.export.record import EventRecord
from tracekit.export.text import columns_of, fitted
from tracekit.view import report
from tracekit.view.causes import causes_of, last_own_frame
from tracekit.view.critical_path import critical_path
from tracekit.view.layout import Layout
from tracekit.view.selection import Selection, duration_ns, time_ns
from tracekit.view.sorting import SortedSpans
from tracekit.view.summary import Summary, render_summary
from tracekit.view.waterfall import render_waterfall

MS = 1_000_000
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PLAIN = Layout(columns=80)


def span(
    number: int, name: str, parent: int | None = None, *, start: int = 0, end: int = 10, **fields: object
) -> SpanRecord:
    """A span from *start* to *end*, in milliseconds."""
    return SpanRecord(
        trace_id=TRACE_ID,
        span_id=f"{number:016x}",
        name=name,
        parent_id=None if parent is None else f"{parent:016x}",
        start_time_ns=start * MS,
        end_time_ns=end * MS,
        **fields,  # type: ignore[arg-type]
    )


def spans_of(structure: list[tuple[int, int, int, bool]]) -> list[SpanRecord]:
    """Spans, each below one before it (or itself, or none), whatever their times."""
    return [
        span(number, f"s{number % 5}", None if parent < 0 else parent % (number + 2), start=start, end=start + size - 2,
             status="error" if failed else "ok")
        for number, (parent, start, size, failed) in enumerate(structure)
    ]  # fmt: skip


TRACES = st.lists(
    st.tuples(st.integers(-1, 12), st.integers(0, 30), st.integers(0, 30), st.booleans()), min_size=1, max_size=12
).map(spans_of)


def path_of(*spans: SpanRecord) -> list[tuple[str, int]]:
    return [(part.span.name if part.span else "nothing", part.self_ns // MS) for part in critical_path(spans)]


def test_the_critical_path_goes_through_the_child_that_ended_last() -> None:
    assert path_of(
        span(1, "root", end=100),
        span(2, "fast", 1, start=10, end=40),
        span(3, "slow", 1, start=10, end=90),
        span(4, "inner", 3, start=20, end=80),
    ) == [("root", 20), ("slow", 20), ("inner", 60)]


def test_the_critical_path_goes_through_one_child_after_the_other() -> None:
    assert path_of(
        span(1, "root", end=100), span(2, "first", 1, start=10, end=40), span(3, "then", 1, start=50, end=90)
    ) == [("root", 30), ("first", 30), ("then", 40)]


def test_what_outlives_its_parent_is_on_the_path() -> None:
    assert path_of(span(1, "root", end=50), span(2, "task", 1, start=40, end=100)) == [("root", 40), ("task", 60)]
    assert path_of(span(1, "root", end=50), span(2, "later", 1, start=70, end=100)) == [
        ("root", 50), ("later", 30), ("nothing", 20)
    ]  # fmt: skip


def test_spans_of_a_trace_without_a_root_are_on_the_path_too() -> None:
    assert path_of(span(1, "a", 9, end=40), span(2, "b", 8, start=50, end=100)) == [
        ("a", 40),
        ("b", 50),
        ("nothing", 10),
    ]


@given(TRACES)
def test_the_parts_of_a_critical_path_add_up_to_the_duration(spans: list[SpanRecord]) -> None:
    parts = critical_path(spans)
    start = min(s.start_time_ns for s in spans)
    end = max(max(s.start_time_ns, s.end_time_ns or 0) for s in spans)
    assert sum(part.self_ns for part in parts) == end - start
    assert all(part.self_ns >= 0 for part in parts)


@given(TRACES)
def test_every_view_shows_any_trace(spans: list[SpanRecord]) -> None:
    for write in (report.tree, report.waterfall, report.path):
        text = write(spans, PLAIN)
        assert text.startswith(f"Trace: {TRACE_ID}")
        assert ("Failed:" in text) == (write is not report.path and any(s.status == "error" for s in spans))
    assert all(len(line) <= 80 for line in render_waterfall(spans, PLAIN).splitlines())
    for cause in causes_of(spans).first:
        assert cause.path[-1] is cause.span


def test_a_critical_path_says_the_share_of_each_span() -> None:
    text = report.path([span(1, "root", end=100), span(2, "slow", 1, start=10, end=90, status="error")], PLAIN)
    assert text.splitlines()[1:] == [
        "    self  share  critical path: 2 of 2 spans",
        "    20ms    20%  ███               root",
        "    80ms    80%  █████████████       slow  ERROR",
    ]


def test_a_waterfall_shows_when_each_span_ran() -> None:
    spans = [span(1, "root", end=100), span(2, "a", 1, end=50), span(3, "b", 1, start=50, end=50, status="error")]
    lines = render_waterfall(spans, Layout(columns=40)).splitlines()[2:]
    bars = [line[5:23] for line in lines]
    assert bars == ["█" * 18, "█" * 9 + " " * 9, " " * 9 + "▏" + " " * 8]


def test_repeats_share_a_line_of_a_waterfall() -> None:
    queries = [span(n, "db.select", 1, start=n, end=n + 1) for n in range(2, 42)]
    lines = render_waterfall([span(1, "root", end=50), *queries], PLAIN).splitlines()
    assert len(lines) == 4
    assert "db.select x 40" in lines[-1]


WIDE = ["注文を作成する", "naïve", "e\u0301le\u0300ve", "🚀 launch 🚀", "한국어", "plain"]


def test_bars_stand_below_each_other_whatever_the_names() -> None:
    def columns(text: str) -> int:
        return sum(
            0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
            for char in text
        )

    spans = [span(1, "root"), *(span(n, name, 1) for n, name in enumerate(WIDE, start=2))]
    lines = render_waterfall(spans, PLAIN).splitlines()[2:]
    assert {columns(line.split("█")[0]) for line in lines} == {columns(lines[0].split("█")[0])}
    narrow = render_waterfall([span(1, "注" * 100), span(2, "a", 1)], Layout(columns=60)).splitlines()[2:]
    assert {columns(line.split("█")[0]) for line in narrow} == {columns(narrow[0].split("█")[0])}


@given(st.text() | st.text("注e\u0301🚀각\u1100\u1161한"), st.integers(0, 20))
def test_text_is_fitted_to_columns_exactly(text: str, columns: int) -> None:
    assert columns_of(fitted(text, columns)) == columns
    if columns_of(text) <= columns:
        assert fitted(text, columns).startswith(text)


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\u202eevil\u2066\x9b31m\ud800"


@pytest.mark.parametrize("write", [report.tree, report.waterfall, report.path])
@pytest.mark.parametrize("encoding", [None, "utf-8", "cp1252", "ascii"])
def test_no_text_of_a_trace_drives_a_terminal(write: report.Writer, encoding: str | None) -> None:
    stack = (
        f'Traceback (most recent call last):\n  File "{HOSTILE[:9]}.py", line 7, in {HOSTILE[:9]}\n    {HOSTILE[:9]}\n'
    )
    event = EventRecord(
        "exception", 0, {"exception.type": HOSTILE, "exception.message": HOSTILE, "exception.stacktrace": stack}
    )
    hostile = span(1, HOSTILE, status="error", description=HOSTILE, service=HOSTILE, attributes={HOSTILE: HOSTILE})
    spans = [hostile, span(2, HOSTILE, 1, status="error", service="b", events=(event,))]
    text = write(spans, Layout(encoding=encoding))
    assert all(char.isprintable() or char == "\n" for char in text)
    colors = re.compile(r"\x1b\[(?:[\d;]*)m")
    painted = write(spans, Layout(encoding=encoding, color=True))
    assert {*colors.findall(painted)} <= {f"\x1b[{code}m" for code in ("0", "1", "2", "1;31", "34", "36", "32")}
    assert colors.sub("", painted) == text
    text.encode(encoding or "utf-8")


def test_summaries_do_not_drive_a_terminal_either() -> None:
    summary = Summary(Selection())
    summary.add([span(1, HOSTILE, service=HOSTILE), span(2, "b", 1, service="b")])
    text = render_summary(summary, Layout(encoding="cp1252"))
    assert all(char.isprintable() or char == "\n" for char in text)


def test_a_summary_adds_up_calls_errors_and_time_by_operation() -> None:
    summary = Summary(Selection())
    for size in range(1, 101):
        summary.add(
            [
                span(1, "root", end=size + 10),
                span(2, "work", 1, start=5, end=5 + size, status="error" if size < 26 else "ok"),
            ]
        )
    rows = {line.split()[0]: line.split()[1:] for line in render_summary(summary, PLAIN).splitlines()}
    assert rows["100"] == ["traces,", "200", "spans,", "2", "operations"]
    assert rows["work"] == ["100", "25.0%", "50ms", "95ms", "99ms", "5s", "5s", "83.5%"]
    assert rows["root"] == ["100", "-", "60ms", "105ms", "109ms", "6s", "1s", "16.5%"]
    assert [operation.name for operation in summary.operations()] == ["work", "root"]


def test_time_in_which_several_children_ran_is_covered_once() -> None:
    summary = Summary(Selection(name="root"))
    summary.add([span(1, "root", end=100), span(2, "a", 1, start=10, end=60), span(3, "b", 1, start=40, end=120)])
    (root,) = summary.operations()
    assert root.self_ns == 10 * MS
    assert render_summary(summary, PLAIN).startswith("1 trace, 1 span, 1 operation\n")


def test_operations_past_a_bound_share_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracekit.view.summary._MAX_OPERATIONS", 3)
    summary = Summary(Selection())
    summary.add([span(n, f"GET /orders/{n}") for n in range(1, 11)])
    assert next((each.name, each.calls) for each in summary.operations()) == ("(others)", 7)


def raised_in(code: str, file: str) -> str:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # any will do
        exec(compile(code, file, "exec"), {})
    return "".join(traceback.format_exception(raised.value))


def test_the_last_frame_of_own_code_is_found() -> None:
    stack = raised_in("import json\ndef load():\n    json.loads('{')\nload()", "/shop/orders.py")
    frame = last_own_frame(stack)
    assert frame is not None
    assert (frame.place, frame.function) == ("/shop/orders.py:3", "load")


FRAME = '  File "{}", line 7, in f\n    call()\n    ^^^^^^\n'
LIBRARIES = ["/usr/lib/python3.11/json/__init__.py", "/v/lib/python3.11/site-packages/x/y.py", "<frozen runpy>"]
OWN, OTHER = FRAME.format("/shop/own.py"), FRAME.format("/shop/other.py")
RAISED = "Traceback (most recent call last):\n"


@pytest.mark.parametrize(
    ("stack", "place"),
    [
        (RAISED + FRAME.format("C:\\shop\\orders.py") + "E: m", "C:\\shop\\orders.py:7"),
        (RAISED + OWN + "".join(map(FRAME.format, LIBRARIES)) + "E: m", "/shop/own.py:7"),
        (RAISED + OTHER + "KeyError: 1\n\nDuring handling ...:\n\n" + RAISED + OWN + "E: m", "/shop/own.py:7"),
        (RAISED + FRAME.format(LIBRARIES[1]) + "E: m", LIBRARIES[1] + ":7"),
        ("Error: m\n\tat shop.create(Orders.java:7)\n\tat x.Y.z(Y.java:1)\n", "shop.create(Orders.java:7)"),
        ("  + Exception Group Traceback (most recent call last):\n" + OWN.replace("  F", "  |   F"), "/shop/own.py:7"),
    ],
)
def test_stack_traces_of_all_kinds_tell_a_place(stack: str, place: str) -> None:
    frame = last_own_frame(stack)
    assert frame is not None
    assert frame.place == place


@given(st.text())
def test_no_stack_trace_raises(stack: str) -> None:
    last_own_frame(stack)
    last_own_frame('File "' + stack + '", line 7, in f\n' + stack)


def test_a_failure_is_told_from_where_it_began() -> None:
    event = EventRecord("exception", 0, {"exception.type": "shop.CardDeclined", "exception.message": "no funds"})
    text = report.tree(
        [
            span(1, "POST /orders", status="error", service="orders"),
            span(2, "orders.create", 1, status="error", service="orders"),
            span(3, "payments.charge", 2, status="error", service="payments", events=(event,)),
            span(4, "audit", 1, service="orders"),
        ],
        PLAIN,
    )
    assert text.splitlines()[-2:] == [
        "Failed: shop.CardDeclined: no funds",
        "    in: [orders] POST /orders > orders.create > [payments] payments.charge",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", 2_000 * MS),
        ("250ms", 250 * MS),
        ("1.5s", 1_500 * MS),
        (".5", 500 * MS),
        ("10m", 600_000 * MS),
        ("3 us", 3_000),
    ],
)
def test_durations_are_read(text: str, expected: int) -> None:
    assert duration_ns(text) == expected


@pytest.mark.parametrize("text", ["", "fast", "-1", "1e3", "5 weeks", "nan", "\u0661s"])
def test_what_is_no_duration_or_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        duration_ns(text)
    with pytest.raises(ValueError, match="write"):
        time_ns(text, 0)


def test_times_are_read() -> None:
    now = 1_800_000_000_000_000_000
    assert time_ns("10m", now) == now - 600_000_000_000
    assert time_ns("2027-01-15T08:00:00Z", now) == time_ns("2027-01-15T09:00:00+01:00", now) == now
    assert time_ns("2027-01-15", now) < now + 48 * 3600 * 1_000_000_000


SELECTIONS = st.builds(
    Selection,
    trace=st.sampled_from(["", "0", "1", "01"]),
    name=st.sampled_from(["", "s1", "s[12]", "*", "x"]),
    errors=st.booleans(),
    slow_ns=st.integers(0, 40).map(lambda ms: ms * MS),
    since_ns=st.integers(0, 40).map(lambda ms: ms * MS),
)


@settings(max_examples=50)
@given(st.lists(TRACES, max_size=4), SELECTIONS, st.randoms(use_true_random=False))
def test_traces_that_are_sorted_are_those_that_are_wanted(
    traces: list[list[SpanRecord]], selection: Selection, random: object
) -> None:
    ids = ["0" * 31 + "1", "01" + "0" * 30, "1" * 32, "2" * 32]
    named = [[_in_trace(each, trace_id) for each in trace] for trace, trace_id in zip(traces, ids, strict=False)]
    mixed = [each for trace in named for each in trace]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    with SortedSpans(selection) as sorted_spans:
        sorted_spans.add(mixed)
        found = [trace.spans for trace in sorted_spans.traces()]
        newest = [trace.spans for trace in sorted_spans.traces(1)]
    wanted = sorted(
        (t for t in named if selection.wants(t)), key=lambda t: (min(s.start_time_ns for s in t), t[0].trace_id)
    )
    key = lambda s: (s.start_time_ns, s.span_id)  # noqa: E731
    assert [sorted(trace, key=key) for trace in found] == [sorted(trace, key=key) for trace in wanted]
    assert newest == found[-1:]


def _in_trace(record: SpanRecord, trace_id: str) -> SpanRecord:
    fields = {name: getattr(record, name) for name in SpanRecord.__slots__}
    return SpanRecord(**{**fields, "trace_id": trace_id})


def test_a_span_that_was_sent_twice_is_there_once() -> None:
    with SortedSpans(Selection()) as sorted_spans:
        sorted_spans.add([span(1, "a"), span(2, "b", 1), span(1, "a")])
        (trace,) = sorted_spans.traces()
    assert [s.name for s in trace.spans] == ["a", "b"]


def test_of_a_trace_that_memory_cannot_hold_the_first_spans_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracekit.view.sorting.MAX_SPANS", 10)
    with SortedSpans(Selection()) as sorted_spans:
        sorted_spans.add(span(n, "a", start=n, end=n + 1) for n in range(25))
        (trace,) = sorted_spans.traces()
    assert ([s.start_time_ns // MS for s in trace.spans], trace.left_out) == (list(range(10)), 15)
