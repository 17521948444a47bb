"""Trace files are read back as they were written; what is no trace file is counted, whatever it holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import StatusCode

import tracekit
from tracekit.export import SpanRecord
from tracekit.view.reading import TraceFile, read_trace_file

if TYPE_CHECKING:
    from pathlib import Path

TRACEPARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
SPAN = {"traceId": "0AF7651916CD43DD8448EB211C80319C", "spanId": "b7ad6b7169203331", "name": "orders.create"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def line_of(**fields: object) -> str:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{**SPAN, **fields}]}]}]})


def read(path: Path, *lines: str) -> TraceFile:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return read_trace_file(path)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    values = {"text": "thé", "int": -(2**63), "float": 0.1, "bool": True, "list": ["a", "b"], "none": None}
    with tracekit.configure(service="orders", exporter=["memory", f"file:{path}"]) as tracing:
        with tracekit.remote_parent(TRACEPARENT), tracekit.traced_block("orders.create", values) as span:
            tracekit.add_event("payment_started", values)
            tracekit.add_link(TRACEPARENT, {"why": "retry"})
            with tracekit.traced_block("payments.charge"):
                pass
            span.set_status(StatusCode.ERROR, "CardDeclined: no")
        with tracekit.traced_block("orders.export"):
            pass
        written = [SpanRecord.of(span) for span in tracing.spans]
    assert len(written) == 3
    assert read_trace_file(path) == TraceFile(tuple(written), malformed_lines=0)


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ({"doubleValue": "-Infinity"}, float("-inf")),
        ({"intValue": 7}, 7),
        ({"bytesValue": "AP8="}, b"\x00\xff"),
        ({"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "two"}, {}]}}, (1, "two", None)),
        ({"kvlistValue": {"values": [{"key": "deep", "value": {"boolValue": True}}]}}, {"deep": True}),
        ({"arrayValue": {}}, ()),
        ({}, None),
    ],
)
def test_values_of_other_writers_are_read_too(tmp_path: Path, encoded: object, value: object) -> None:
    found = read(tmp_path / "f", line_of(attributes=[{"key": "value", "value": encoded}]))
    assert found.spans[0].attributes == {"value": value}


def test_ids_are_lower_case_and_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    assert read(tmp_path / "f", line_of()).spans == (
        SpanRecord("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "orders.create", end_time_ns=0),
    )


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        '{"resourceSpans": [{"scopeSp',
        '{"resourceMetrics": []}',
        "[" * 100_000,
        line_of(traceId="short"),
        line_of(spanId=7),
        line_of(name=7),
        line_of(startTimeUnixNano="soon"),
        line_of(startTimeUnixNano=float("inf")),
        line_of(attributes=7),
        line_of(events=[{"name": "e", "attributes": [{}]}]),
    ],
)
def test_a_malformed_line_costs_no_other(tmp_path: Path, line: str) -> None:
    found = read(tmp_path / "f", line_of(), line, "", line_of())
    assert (len(found.spans), found.malformed_lines) == (2, 1)


@given(JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_of_any_shape_is_read_or_counted(tmp_path: Path, value: object) -> None:
    for line in (json.dumps(value), json.dumps({"resourceSpans": value}), line_of(attributes=value, events=value)):
        found = read(tmp_path / "f", line)
        assert found.malformed_lines == 1 or all(isinstance(span, SpanRecord) for span in found.spans)


def test_traces_are_in_the_order_they_began(tmp_path: Path) -> None:
    first, second = "1" * 32, "2" * 32
    found = read(
        tmp_path / "f",
        line_of(traceId=second, startTimeUnixNano="30"),
        line_of(traceId=first, startTimeUnixNano="20"),
        line_of(traceId=first, startTimeUnixNano="10"),
        line_of(traceId=second, startTimeUnixNano="15"),
    )
    assert [[(span.trace_id[0], span.start_time_ns) for span in trace] for trace in found.traces()] == [
        [("1", 10), ("1", 20)],
        [("2", 15), ("2", 30)],
    ]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_trace_file(tmp_path / "nothing")
