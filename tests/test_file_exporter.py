"""Spans in a file: OTLP/JSON that the official messages read back, one line a batch, whatever the spans hold."""

from __future__ import annotations

import base64
import json
import math
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from tracekit.errors import ConfigurationError
from tracekit.export import FileExporter
from tracekit.export.otlp_json import spans_to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REMOTE = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "x")]))
IDS = {"traceId", "spanId", "parentSpanId"}


def read_back(line: str | bytes) -> ExportTraceServiceRequest:
    """Parse OTLP/JSON by the official messages, whose ids are base64 where OTLP has hex."""

    def ids_in_base64(found: dict[str, Any]) -> dict[str, Any]:
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode() if key in IDS else value
            for key, value in found.items()
        }

    message = json.loads(line, object_hook=ids_in_base64)
    return json_format.ParseDict(message, ExportTraceServiceRequest(), max_recursion_depth=100)


def spans_of(attributes: Any = None, *, limits: SpanLimits | None = None) -> Sequence[ReadableSpan]:
    """Spans that use every field there is."""
    memory = InMemorySpanExporter()
    resource = Resource({"service.name": "orders", "process.pid": 7, "tags": ["a", "b"]}, "https://schema/resource")
    provider = TracerProvider(resource=resource, span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("shop", "1.2.3", "https://schema/scope", {"scope.key": True})
    parent = set_span_in_context(NonRecordingSpan(REMOTE))
    link = Link(SpanContext(1, 2, is_remote=False), {"why": "retry"})
    with tracer.start_as_current_span(
        "POST /orders", parent, SpanKind.SERVER, attributes, [link], record_exception=False
    ) as span:
        span.add_event("payment_started", attributes, timestamp=123)
        span.set_status(Status(StatusCode.ERROR, "CardDeclined: no"))
        with tracer.start_as_current_span("child", kind=SpanKind.CLIENT) as child:
            child.set_status(StatusCode.OK)
    with provider.get_tracer("other").start_as_current_span("root", kind=SpanKind.PRODUCER):
        pass
    return memory.get_finished_spans()


ATTRIBUTES: dict[str, Any] = {
    "bool": True,
    "int": -7,
    "int64": 2**63 - 1,
    "float": 0.1,
    "whole": 3.0,
    "infinite": -math.inf,
    "str": "Åsa 🎉 \u2028 \x1b",
    "bytes": b"\x00\xff",
    "list": ["a", "b"],
    "mixed": [1, "a", None, [True]],
    "mapping": {"a": {"b": 1.5}},
    "none": None,
    "empty": [],
    "zero": 0,
    "no": False,
    "blank": "",
}


def test_a_line_is_what_the_official_encoder_says(tmp_path: Path) -> None:
    spans = spans_of(ATTRIBUTES)
    exporter = FileExporter(tmp_path / "traces.jsonl")
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    (line,) = (tmp_path / "traces.jsonl").read_bytes().splitlines()
    assert read_back(line) == encode_spans(spans)


def test_ids_and_numbers_are_written_as_otlp_json_has_them() -> None:
    (resource_spans,) = spans_to_json(spans_of({"big": 2**40, "nan": math.nan}))["resourceSpans"]
    assert resource_spans["schemaUrl"] == "https://schema/resource"
    scope_spans, other = resource_spans["scopeSpans"]
    child, span = scope_spans["spans"]
    assert scope_spans["scope"]["name"] == "shop"
    assert scope_spans["schemaUrl"] == "https://schema/scope"
    assert span["traceId"] == "00000000000000000000000000000abc"
    assert span["parentSpanId"] == "0000000000000def"
    assert child["parentSpanId"] == span["spanId"]
    assert span["kind"] == 2
    assert span["traceState"] == "vendor=x"
    assert span["flags"] == 0x300
    assert child["flags"] == 0x100
    assert span["events"][0]["timeUnixNano"] == "123"
    assert span["status"] == {"code": 2, "message": "CardDeclined: no"}
    assert span["attributes"] == [
        {"key": "big", "value": {"intValue": "1099511627776"}},
        {"key": "nan", "value": {"doubleValue": "NaN"}},
    ]
    assert "parentSpanId" not in other["spans"][0]


def test_trace_state_of_links_is_kept() -> None:
    span = spans_of()[1]
    linked = ReadableSpan("a", span.context, links=[Link(REMOTE)])
    (link,) = spans_to_json([linked])["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["links"]
    assert (link["traceState"], link["flags"]) == ("vendor=x", 0x300)


def test_what_limits_dropped_is_counted() -> None:
    spans = spans_of(
        {f"key{i}": i for i in range(9)}, limits=SpanLimits(max_span_attributes=2, max_event_attributes=3, max_links=0)
    )
    assert read_back(json.dumps(spans_to_json(spans))) == encode_spans(spans)
    span = spans_to_json(spans)["resourceSpans"][0]["scopeSpans"][0]["spans"][1]
    assert span["droppedAttributesCount"] == 7
    assert span["events"][0]["droppedAttributesCount"] == 6


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LEGAL = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)  # equal to nothing, itself included
    | st.binary()
    | TEXT,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(TEXT.filter(bool), values, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(TEXT.filter(bool), LEGAL, max_size=5))
def test_any_attributes_are_what_the_official_encoder_says(attributes: dict[str, Any]) -> None:
    spans = spans_of(attributes)
    assert read_back(json.dumps(spans_to_json(spans), allow_nan=False)) == encode_spans(spans)


HOSTILE_TEXT = st.text(st.characters() | st.sampled_from("\ud800\udfff\x00\x1b\n\u2028"))
HOSTILE = st.recursive(
    st.integers() | st.floats() | HOSTILE_TEXT | st.binary(),
    lambda values: st.lists(values) | st.dictionaries(HOSTILE_TEXT.filter(bool), values),
    max_leaves=10,
)


@given(HOSTILE_TEXT, st.dictionaries(HOSTILE_TEXT.filter(bool), HOSTILE, max_size=5))
def test_hostile_values_cost_no_span_and_no_line(
    tmp_path_factory: pytest.TempPathFactory, text: str, attributes: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("hostile") / "traces.jsonl"
    spans = spans_of(attributes)
    hostile = ReadableSpan(text, spans[0].context, attributes=attributes, status=Status(StatusCode.ERROR, text))
    assert FileExporter(path).export([*spans, hostile]) is SpanExportResult.SUCCESS
    (line,) = path.read_text("ascii").splitlines()
    read = read_back(line)
    assert sum(len(scope.spans) for found in read.resource_spans for scope in found.scope_spans) == 4


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


@pytest.mark.parametrize(
    "value", [2**63, -(10**400), 1 << 50_000, nested(40), object(), "\ud800"], ids=lambda value: type(value).__name__
)
def test_values_otlp_has_no_form_for_become_text_that_receivers_decode(value: Any) -> None:
    span = ReadableSpan("a", SpanContext(1, 2, is_remote=False), attributes={"value": value, "other": 1})
    request = read_back(json.dumps(spans_to_json([span])))
    received = ExportTraceServiceRequest.FromString(request.SerializeToString())
    (scope_spans,) = received.resource_spans[0].scope_spans
    assert [attribute.key for attribute in scope_spans.spans[0].attributes] == ["value", "other"]


def test_fields_of_wrong_types_do_not_cost_the_batch() -> None:
    wrong: list[Any] = [
        ReadableSpan(7, SpanContext(1, 2, is_remote=False), kind=None, start_time="now", end_time=-1),  # type: ignore[arg-type]
        ReadableSpan("no context", None),
        ReadableSpan("times", SpanContext(1, 3, is_remote=False), start_time=1.5, end_time=math.nan),  # type: ignore[arg-type]
    ]
    (resource_spans,) = read_back(json.dumps(spans_to_json([*wrong, *spans_of()[:1]]))).resource_spans[:1]
    names = [span.name for found in [resource_spans] for scope in found.scope_spans for span in scope.spans]
    assert names == ["<int>"]
    everything = read_back(json.dumps(spans_to_json([*wrong, *spans_of()]))).resource_spans
    assert sum(len(scope.spans) for found in everything for scope in found.scope_spans) == 5


# ---------------------------------------------------------------- the file


def test_batches_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text('{"resourceSpans":[]}\n')
    for _ in range(2):
        exporter = FileExporter(str(path))
        exporter.export(spans_of())
        assert exporter.force_flush()
        exporter.shutdown()
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.skipif(os.name != "posix", reason="no modes")
def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        FileExporter(tmp_path / "traces.jsonl")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "traces.jsonl").stat().st_mode) == 0o600


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    FileExporter("~/traces.jsonl").export(spans_of())
    assert (tmp_path / "traces.jsonl").read_bytes()


def test_file_stays_the_same_when_the_program_changes_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exporter = FileExporter("traces.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    exporter.export(spans_of())
    assert (tmp_path / "traces.jsonl").read_bytes()


def test_a_file_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    exporter = FileExporter(path)
    exporter.export(spans_of())
    path.rename(tmp_path / "old.jsonl")
    exporter.export(spans_of())
    assert len(path.read_text().splitlines()) == len((tmp_path / "old.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("path", ["missing/traces.jsonl", ".", "", "nul\0", 7, "~no_such_user_here/x"])
def test_path_that_cannot_be_written_is_refused_with_advice(
    path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="expected the path of a file in a directory that exists") as caught:
        FileExporter(path)
    assert repr(path) in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_named_pipe_without_reader_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError):
        FileExporter(tmp_path / "pipe")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110  # in a decorator
def test_full_disk_fails_the_batch_without_raising() -> None:
    exporter = FileExporter("/dev/full")
    assert exporter.export(spans_of()) is SpanExportResult.FAILURE


def test_file_that_vanished_with_its_directory_fails_the_batch_without_raising(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    exporter = FileExporter(directory / "traces.jsonl")
    (directory / "traces.jsonl").unlink()
    directory.rmdir()
    assert exporter.export(spans_of()) is SpanExportResult.FAILURE


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_line_cut_short_by_a_full_disk_does_not_spoil_the_next(tmp_path: Path) -> None:
    # A file size limit is a disk that is full at a known byte; it concerns the whole process.
    code = """
import resource, signal, sys
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext
from tracekit.export import FileExporter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
exporter = FileExporter(sys.argv[1])
spans = [ReadableSpan("a" * 500, SpanContext(1, 2, is_remote=False))]
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
print(exporter.export(spans).name)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(exporter.export(spans).name)
"""
    path = tmp_path / "traces.jsonl"
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=50)
    assert run.stdout.split() == ["FAILURE", "SUCCESS"]
    torn, whole = path.read_text().splitlines()
    assert len(torn) == 100
    assert read_back(whole).resource_spans


def test_nothing_is_written_after_shutdown(tmp_path: Path) -> None:
    exporter = FileExporter(tmp_path / "traces.jsonl")
    exporter.shutdown()
    assert exporter.export(spans_of()) is SpanExportResult.FAILURE
    assert not (tmp_path / "traces.jsonl").read_bytes()


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    code = """
import sys
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext
from tracekit.export import FileExporter
exporter = FileExporter(sys.argv[1])
spans = [ReadableSpan(sys.argv[2] * 20_000, SpanContext(1, 2, is_remote=False))]
sys.stdin.read()
for _ in range(100):
    exporter.export(spans)
"""
    path = tmp_path / "traces.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", code, path, letter], stdin=subprocess.PIPE) for letter in "abc"]
    for writer in writers:
        writer.communicate(timeout=50)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    names = [read_back(line).resource_spans[0].scope_spans[0].spans[0].name for line in path.read_bytes().splitlines()]
    assert sorted(names) == sorted(letter * 20_000 for letter in "abc" for _ in range(100))


def test_file_module_needs_no_protobuf() -> None:
    code = "import sys, tracekit.export.file; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "tracekit.export.otlp_json" in modules
    assert "google.protobuf" not in modules
