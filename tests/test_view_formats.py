"""Trace files of other writers, packed, formatted, damaged: what can be read is read, what cannot is counted."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracekit.view import lines
from tracekit.view.reading import SpanReader, TraceFile, read_trace_file

if TYPE_CHECKING:
    from pathlib import Path

TRACE_ID, SPAN_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


def span(name: str = "orders.create", **fields: object) -> dict[str, Any]:
    return {"traceId": TRACE_ID, "spanId": SPAN_ID, "name": name, **fields}


def request(*spans: dict[str, Any]) -> dict[str, Any]:
    service = {"key": "service.name", "value": {"stringValue": "shop"}}
    return {"resourceSpans": [{"resource": {"attributes": [service]}, "scopeSpans": [{"spans": spans or [span()]}]}]}


def read(path: Path, content: str | bytes) -> TraceFile:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_trace_file(path)


@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["gzip", "plain"])
@pytest.mark.parametrize("indent", [None, 0, 2], ids=["a line", "many lines", "indented"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_document_is_read_however_it_is_written(tmp_path: Path, indent: int | None, end: str, pack: Any) -> None:
    document = json.dumps(request(), indent=indent).replace("\n", end or "\n") + end
    found = read(tmp_path / "no-telling-name", pack(document.encode()) + pack(document.encode() if end else b""))
    assert [(s.name, s.service) for s in found.spans] == [("orders.create", "shop")] * (2 if end else 1)
    assert found.malformed_lines == 0


@pytest.mark.parametrize(
    "write",
    [
        json.dumps,
        lambda requests: json.dumps(requests, indent=1),
        lambda requests: "[\n" + ",\n".join(map(json.dumps, requests)) + "\n]\n",
        lambda requests: "[" + ",\n".join(map(json.dumps, requests)) + "]",
    ],
    ids=["a line", "indented", "one a line", "one a line, brackets too"],
)
def test_a_list_of_requests_is_read(tmp_path: Path, write: Any) -> None:
    found = read(tmp_path / "f", write([request(span(f"orders.{number}")) for number in range(3)]))
    assert [s.name for s in found.spans] == ["orders.0", "orders.1", "orders.2"]
    assert found.malformed_lines == 0


def in_base64(identifier: str) -> str:
    return base64.b64encode(bytes.fromhex(identifier)).decode()


def old_collector() -> object:
    library = {"name": "shop", "version": "1"}
    scopes = [{"instrumentationLibrary": library, "spans": [span(parentSpanId=PARENT_ID)]}]
    return {"resourceSpans": [{"instrumentationLibrarySpans": scopes}]}


def tempo() -> object:
    ids = {"traceId": in_base64(TRACE_ID), "spanId": in_base64(SPAN_ID), "parentSpanId": in_base64(PARENT_ID)}
    return {"batches": [{"scopeSpans": [{"spans": [span() | ids]}]}]}


def tempo_2() -> object:
    return {"trace": {"resourceSpans": [{"scopeSpans": [{"spans": [span(parentSpanId=PARENT_ID)]}]}]}}


def protobuf_names() -> object:
    ids = {"trace_id": in_base64(TRACE_ID), "span_id": in_base64(SPAN_ID), "parent_span_id": in_base64(PARENT_ID)}
    spans = [{**ids, "name": "orders.create", "status": None, "events": None, "attributes": None}]
    return {"resource_spans": [{"resource": None, "scope_spans": [{"scope": None, "spans": spans}]}]}


@pytest.mark.parametrize("document", [old_collector(), tempo(), tempo_2(), protobuf_names()])
def test_older_and_other_spellings_are_read(tmp_path: Path, document: object) -> None:
    found = read(tmp_path / "f", json.dumps(document))
    assert [(s.trace_id, s.span_id, s.parent_id, s.name) for s in found.spans] == [
        (TRACE_ID, SPAN_ID, PARENT_ID, "orders.create")
    ]


@pytest.mark.parametrize(("code", "kind"), [(2, 3), ("STATUS_CODE_ERROR", "SPAN_KIND_CLIENT")])
@pytest.mark.parametrize("time", [5, "5"])
def test_enums_and_integers_are_read_in_both_spellings(
    tmp_path: Path, code: object, kind: object, time: object
) -> None:
    fields = {"status": {"code": code}, "kind": kind, "startTimeUnixNano": time, "endTimeUnixNano": time}
    (found,) = read(tmp_path / "f", json.dumps(request(span(**fields)))).spans
    assert (found.status, found.kind, found.start_time_ns, found.end_time_ns) == ("error", "client", 5, 5)


def test_a_parent_of_zeros_is_none(tmp_path: Path) -> None:
    (found,) = read(tmp_path / "f", json.dumps(request(span(parentSpanId="0" * 16)))).spans
    assert found.parent_id is None


@pytest.mark.parametrize("time", [-1, 2**63, "99999999999999999999"])
def test_a_time_that_cannot_be_is_unknown(tmp_path: Path, time: object) -> None:
    (found,) = read(tmp_path / "f", json.dumps(request(span(startTimeUnixNano=time)))).spans
    assert found.start_time_ns == 0


def test_a_span_that_was_open_when_it_was_written_is_open(tmp_path: Path) -> None:
    (found,) = read(tmp_path / "f", json.dumps(request(span(startTimeUnixNano="7")))).spans
    assert found.duration_ns is None


def test_a_span_that_cannot_be_read_costs_no_other_of_its_line(tmp_path: Path) -> None:
    found = read(tmp_path / "f", json.dumps(request(span("a"), span("b", spanId="x"), span("c"))))
    assert [s.name for s in found.spans] == ["a", "c"]
    assert found.malformed_lines == 1


@pytest.mark.parametrize("at", [1, 10, 40, 90, 120])
def test_half_a_line_costs_no_line_after_it(tmp_path: Path, at: int) -> None:
    line = json.dumps(request())
    found = read(tmp_path / "f", f"{line}\n{line[:at]}\n{line}\n{line}\n{line[:at]}")
    assert (len(found.spans), found.malformed_lines) == (3, 2)


def test_what_a_windows_shell_writes_is_read(tmp_path: Path) -> None:
    line = json.dumps(request(span("thé")), ensure_ascii=False)
    for encoding in ("utf-16", "utf-8-sig"):
        assert [s.name for s in read(tmp_path / encoding, f"{line}\r\n".encode(encoding)).spans] == ["thé"]


def test_a_gzip_file_that_breaks_off_is_read_up_to_there(tmp_path: Path) -> None:
    generator = random.Random(7)
    names = (generator.randbytes(16).hex() for _ in range(5_000))
    packed = gzip.compress(b"".join(json.dumps(request(span(name))).encode() + b"\n" for name in names))
    found = read(tmp_path / "f", packed[: len(packed) // 2])
    assert 100 < len(found.spans) < 5_000
    assert found.malformed_lines >= 1


def test_zstd_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="zstd"):
        read(tmp_path / "f", b"\x00\x00\x01\x00\x28\xb5\x2f\xfd....")


def test_a_line_of_any_length_takes_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 10_000)
    line = json.dumps(request())
    found = read(tmp_path / "f", f"{line}\n{'x' * 5_000_000}\n{line}\n")
    assert (len(found.spans), found.malformed_lines) == (2, 1)


GARBAGE = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([b"\n", b"{", b"}", b"[", b"]", b",", b'"', b"\x1f\x8b", b"\xff\xfe", b'{"resourceSpans":'])
    | st.just(json.dumps(request()).encode())
    | st.just(gzip.compress(json.dumps(request()).encode()))
).map(b"".join)


@given(GARBAGE)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_of_any_kind_never_raise(content: bytes) -> None:
    reader = SpanReader()
    for spans in reader.read(io.BytesIO(content)):
        assert all(s.trace_id == TRACE_ID for s in spans)
    assert reader.malformed_lines >= 0
