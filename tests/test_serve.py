"""`tracekit serve`: what it takes from exporters, what it keeps, whom it refuses, how it begins and ends."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from trace_samples import HOSTILE, hostile_spans, many_spans

import tracekit
from tracekit.cli import main
from tracekit.view.grpc import GrpcServer
from tracekit.view.receiver import MalformedRequestError, Receiver
from tracekit.view.server import HttpServer
from tracekit.view.store import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.sdk.trace.export import SpanExporter

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Desk:
    """A running receiver."""

    def __init__(self, store: Store) -> None:
        self.http = HttpServer(store, "127.0.0.1", 0, max_spans=1_000)
        self.grpc = GrpcServer(store, ["127.0.0.1"], 0)
        self.endpoint = f"http://127.0.0.1:{self.http.port}"
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self._thread.join()
        self.http.server_close()
        self.grpc.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.http.port, timeout=20)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names, encode_chunked=names.get("Transfer-Encoding") == "chunked")
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def send(self, body: Any, **headers: str) -> Reply:
        return self.ask("POST", "/v1/traces", body, **{"Content_Type": JSON, **headers})

    def names(self) -> list[str]:
        return [row[3] for row in self.ask("GET", "/api/spans").json["spans"]]


@pytest.fixture
def desk() -> Iterator[Desk]:
    store = Store()
    desk = Desk(store)
    yield desk
    desk.close()
    store.close()


def request(*names: str, **more: Any) -> dict[str, Any]:
    spans = [
        {
            "traceId": f"{number:032x}",
            "spanId": f"{number:016x}",
            "name": name,
            "kind": 2,
            "startTimeUnixNano": "1763812800000000001",
            "endTimeUnixNano": "1763812800005000001",
            **more,
        }
        for number, name in enumerate(names, start=1)
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}


def official_exporters(desk: Desk) -> dict[str, SpanExporter]:
    return {
        "http": HttpExporter(f"{desk.endpoint}/v1/traces"),
        "http, gzip": HttpExporter(f"{desk.endpoint}/v1/traces", compression=Compression.Gzip),
        "http, deflate": HttpExporter(f"{desk.endpoint}/v1/traces", compression=Compression.Deflate),
        "grpc": GrpcExporter(f"127.0.0.1:{desk.grpc.port}", insecure=True),
    }


@pytest.mark.parametrize("kind", ["http", "http, gzip", "http, deflate", "grpc"])
def test_spans_of_the_official_sdk_and_exporters_arrive_whole(desk: Desk, kind: str) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "shop", "zone": "eu"}))
    provider.add_span_processor(SimpleSpanProcessor(official_exporters(desk)[kind]))
    tracer = provider.get_tracer("the.scope", "1.0")
    with tracer.start_as_current_span("orders.create", attributes={"order.id": 7, "skus": ["tea", "cup"]}) as span:
        span.add_event("paid", {"amount": 2.5})
    provider.shutdown()
    chunk = desk.ask("GET", "/api/spans").json
    ((_, (service, resource)),) = chunk["resources"]
    (row,) = chunk["spans"]
    assert (service, resource[resource.index("zone") + 1]) == ("shop", "eu")
    context = span.get_span_context()
    assert row[:4] == [f"{context.trace_id:032x}", f"{context.span_id:016x}", "", "orders.create"]
    assert row[5] * 1_000_000 + row[6] == span.start_time
    assert row[7] == span.end_time - span.start_time
    assert row[11:14] == ["the.scope 1.0", 0, ["order.id", 7, "skus", ["list", "[tea, cup]"]]]
    assert row[14][0][2:] == ["paid", ["amount", 2.5]]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_tracekit_sends_to_it(desk: Desk, protocol: Any) -> None:
    endpoint = desk.endpoint if protocol == "http/protobuf" else f"http://127.0.0.1:{desk.grpc.port}"
    with (
        tracekit.configure(service="shop", endpoint=endpoint, protocol=protocol),
        tracekit.traced_block("orders.create"),
        tracekit.traced_block("orders.save"),
    ):
        pass
    assert sorted(desk.names()) == ["orders.create", "orders.save"]


def test_json_is_taken_plain_packed_and_in_chunks(desk: Desk) -> None:
    body = json.dumps(request("a")).encode()
    assert desk.send(body).json == {}
    assert (
        desk.send(gzip.compress(json.dumps(request("b", spanId="b" * 16)).encode()), Content_Encoding="gzip").json == {}
    )
    pieces = [json.dumps(request("c", spanId="c" * 16)).encode()[i : i + 50] for i in range(0, 500, 50)]
    assert desk.send(iter(pieces), Transfer_Encoding="chunked").json == {}
    assert desk.names() == ["a", "b", "c"]


def test_spans_sent_twice_are_kept_once(desk: Desk) -> None:
    for _ in range(2):
        desk.send(json.dumps(request("a", "b")))
    assert desk.names() == ["a", "b"]


def test_spans_without_proper_ids_are_rejected_and_counted_and_cost_no_other(desk: Desk) -> None:
    body = request("good", "zeros")
    body["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["traceId"] = "0" * 32
    body["resourceSpans"][0]["scopeSpans"][0]["spans"].append({"traceId": "12", "spanId": 5})
    said = desk.send(json.dumps(body)).json["partialSuccess"]
    assert said["rejectedSpans"] == "2"
    assert said["errorMessage"]
    assert desk.names() == ["good"]


def test_partial_success_is_told_in_protobuf_too(desk: Desk) -> None:
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    spans.add(name="good", trace_id=b"t" * 16, span_id=b"s" * 8)
    spans.add(name="bad", trace_id=b"t" * 16, span_id=b"")
    reply = desk.send(message.SerializeToString(), Content_Type=PROTOBUF)
    assert (reply.status, reply.headers["Content-Type"]) == (200, PROTOBUF)
    said = ExportTraceServiceResponse.FromString(reply.body).partial_success
    assert said.rejected_spans == 1
    assert "id" in said.error_message


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"5", b'{"resourceSpans": 5}', b'{"resourceSpans": [5]}', b"\xff\xfe", b"[" * 100_000],
)
def test_a_body_that_is_no_json_request_is_answered_400_in_json(desk: Desk, body: bytes) -> None:
    reply = desk.send(body)
    assert (reply.status, reply.headers["Content-Type"]) == (400, JSON)
    assert reply.json["message"]


KEYS: Final = st.sampled_from(
    [
        *(
            "resourceSpans",
            "scopeSpans",
            "spans",
            "resource",
            "scope",
            "attributes",
            "key",
            "value",
            "traceId",
            "spanId",
        ),
        *(
            "status",
            "name",
            "events",
            "links",
            "code",
            "stringValue",
            "intValue",
            "arrayValue",
            "kvlistValue",
            "values",
        ),
    ]
)
SCALARS: Final = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("ab" * 16)


@settings(max_examples=50)
@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5)))
def test_no_json_breaks_the_receiver(tree: Any) -> None:
    store = Store()
    receiver = Receiver(store)
    span = {"traceId": "ab" * 16, "spanId": "cd" * 8, "attributes": tree, "name": tree, "events": tree, "status": tree}
    for body in (tree, {"resourceSpans": tree}, {"resourceSpans": [{"scopeSpans": [{"spans": [span, tree]}]}]}):
        try:
            receiver.take(JSON, json.dumps(body).encode())
        except MalformedRequestError:
            continue
    json.loads(store.after(0, "").to_json())
    store.close()


def test_a_body_that_is_no_protobuf_request_is_answered_400_in_protobuf(desk: Desk) -> None:
    reply = desk.send(b"\xff\xff\xff", Content_Type=PROTOBUF)
    assert (reply.status, reply.headers["Content-Type"]) == (400, PROTOBUF)
    assert Status.FromString(reply.body).message


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content_Encoding": "gzip"}, b"no gzip", 400),
        ({"Content_Encoding": "gzip"}, gzip.compress(b"{}")[:-9], 400),
        ({"Content_Encoding": "br"}, b"{}", 415),
        ({"Content_Type": "text/plain"}, b"{}", 415),
        ({"Content_Type": ""}, b"{}", 415),
        ({"Content_Length": "-1"}, b"", 411),
        ({"Content_Length": "99999999999"}, b"", 413),
        ({"Content_Encoding": "gzip"}, zlib.compress(b" " * 70_000_000), 413),
        ({"Transfer_Encoding": "chunked"}, iter([b" " * 17_000_000]), 413),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(desk: Desk, headers: dict[str, str], body: Any, status: int) -> None:
    try:
        assert desk.send(body, **headers).status == status
    except (BrokenPipeError, ConnectionResetError):
        # The answer came before all of a body that is too large.
        assert status == 413
    assert desk.names() == []
    assert desk.send(json.dumps(request("next"))).status == 200


def test_metrics_and_logs_are_taken_and_not_kept(desk: Desk) -> None:
    for path in ("/v1/metrics", "/v1/logs"):
        assert desk.ask("POST", path, b"{}", Content_Type=JSON).status == 200
    assert desk.names() == []


@pytest.mark.parametrize(("path", "status"), [("/v1/trace", 404), ("/", 405), ("/api/spans", 405)])
def test_otlp_sent_elsewhere_is_told_where_to_go(desk: Desk, path: str, status: int) -> None:
    assert desk.ask("POST", path, b"{}", Content_Type=JSON).status == status


@pytest.mark.parametrize(
    "host",
    ["evil.test", "127.0.0.1.evil.test", "localhost.evil.test", "evil.test:4318", "", "[::1", "127.0.0.1@evil.test"],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/api/spans"), ("POST", "/v1/traces")])
def test_a_name_that_may_be_somebody_elses_is_refused(desk: Desk, host: str, method: str, path: str) -> None:
    assert desk.ask(method, path, b"{}", Host=host, Content_Type=JSON).status == 421


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:4318", "127.0.0.1", "[::1]:4318", "host.docker.internal:4318"]
)
def test_names_of_this_machine_are_answered(desk: Desk, host: str) -> None:
    assert desk.ask("GET", "/", Host=host).status == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.test"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}]
)
def test_other_peoples_pages_can_neither_read_nor_write(desk: Desk, headers: dict[str, str]) -> None:
    replies = [
        desk.ask("GET", "/api/spans", **headers),
        desk.ask("DELETE", "/api/spans", **headers),
        desk.send(json.dumps(request("a")), **headers),
    ]
    assert [reply.status for reply in replies] == [403, 403, 403]
    assert not [name for reply in replies for name in reply.headers if name.lower().startswith("access-control")]
    assert desk.ask("OPTIONS", "/v1/traces", Origin="http://evil.test").status == 501
    assert desk.names() == []


def test_a_name_that_was_allowed_is_answered() -> None:
    store = Store()
    server = HttpServer(store, "127.0.0.1", 0, names=["desk.internal"], max_spans=1)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for host, status in (("desk.internal", 200), ("DESK.internal:4318", 200), ("other.internal", 421)):
        connection.request("GET", "/", headers={"Host": host})
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()
    server.shutdown()
    thread.join()
    server.server_close()
    store.close()


def test_forgetting_begins_a_new_epoch_and_numbers_are_not_used_again(desk: Desk) -> None:
    desk.send(json.dumps(request("a")))
    first = desk.ask("GET", "/api/spans").json
    assert desk.ask("DELETE", "/api/spans").status == 200
    desk.send(json.dumps(request("b")))
    second = desk.ask("GET", f"/api/spans?after={first['next']}&epoch={first['epoch']}").json
    assert second["epoch"] != first["epoch"]
    assert second["next"] > first["next"]
    assert [row[3] for row in second["spans"]] == ["b"]


@pytest.mark.parametrize("after", ["-1", "x", "9" * 30, "1;DROP"])
def test_a_place_that_is_no_number_is_refused(desk: Desk, after: str) -> None:
    assert desk.ask("GET", f"/api/spans?after={after}").status == 400


def test_chunks_join_to_all_spans_in_order() -> None:
    store = Store()
    spans = list(many_spans(4_500))
    store.add(spans)
    names, seq, epoch, more = [], 0, "", True
    while more:
        chunk = json.loads(store.after(seq, epoch).to_json())
        seq, epoch, more = chunk["next"], chunk["epoch"], chunk["more"]
        assert {row[10] for row in chunk["spans"]} <= {number for number, _ in chunk["resources"]}
        names += [row[1] for row in chunk["spans"]]
    assert names == [span.span_id for span in spans]
    store.close()


def test_the_oldest_traces_leave_whole() -> None:
    store = Store(max_spans=120)
    for span in many_spans(500, per_trace=50):
        store.add([span])
    kept = [row[0] for row in json.loads(store.after(0, "").to_json())["spans"]]
    assert kept == [f"{trace:032x}" for trace in (9, 10) for _ in range(50)]
    assert store.counts == (100, 2)
    store.close()


def test_a_trace_that_fills_the_store_loses_its_first_spans() -> None:
    store = Store(max_spans=100)
    for span in many_spans(1_000, per_trace=1_000):
        store.add([span])
    rows = json.loads(store.after(0, "").to_json())["spans"]
    assert 80 <= len(rows) <= 100
    assert rows[-1][1] == f"{1000:016x}"
    store.close()


def test_text_is_bounded_too() -> None:
    store = Store(max_bytes=100_000)
    store.add(list(many_spans(2_000)))
    assert sum(map(len, store.after(0, "").spans)) <= 100_000
    store.close()


def test_hostile_spans_are_kept() -> None:
    store = Store()
    store.add(list(hostile_spans()))
    chunk = json.loads(store.after(0, "").to_json())
    assert [row[3] for row in chunk["spans"]][: len(HOSTILE) - 1] == list(HOSTILE[:-1])
    store.close()


def test_a_file_keeps_the_spans_from_one_start_to_the_next_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    store = Store(path)
    store.add(list(many_spans(10)))
    before = json.loads(store.after(0, "").to_json())
    store.close()
    store = Store(path)
    assert json.loads(store.after(0, "").to_json()) == before
    store.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_somebody_elses_file_stays_as_it_is(tmp_path: Path) -> None:
    text, database = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("notes that are no database " * 100)
    other = sqlite3.connect(database)
    with other:
        other.execute("CREATE TABLE spans (name)")
    other.close()
    for path in (text, database):
        before = path.read_bytes()
        with pytest.raises(StoreError, match=path.name):
            Store(path)
        assert path.read_bytes() == before


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tracekit", "serve", "--port", "0", "--grpc-port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if "Ctrl-C" in line:
                break
        yield process, lines
    finally:
        process.kill()
        process.wait()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_command_says_where_to_send_takes_it_and_ends_clean(number: signal.Signals, tmp_path: Path) -> None:
    with serving("--db", str(tmp_path / "t.db")) as (process, lines):
        (export,) = [line for line in lines if "OTEL_EXPORTER_OTLP_ENDPOINT" in line]
        assert any("OTLP/gRPC" in line and "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in line for line in lines)
        with (
            tracekit.configure(service="shop", endpoint=export.partition("=")[2], protocol="http/protobuf"),
            tracekit.traced_block("orders.create"),
        ):
            pass
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "1 span of 1 trace" in out
    store = Store(tmp_path / "t.db")
    assert store.counts == (1, 1)
    store.close()


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with serving("--db", str(path), "--no-grpc") as (process, lines):
        port = int(lines[0].rpartition(":")[2].strip("/"))
        statuses = []

        def send(sender: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            for number in range(20):
                body = json.dumps(request("a", "b", traceId=f"{sender + 1:016x}{number:016x}"))
                connection.request("POST", "/v1/traces", body, {"Content-Type": JSON})
                response = connection.getresponse()
                response.read()
                statuses.append(response.status)
            connection.close()

        senders = [threading.Thread(target=send, args=(sender,)) for sender in range(8)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        process.kill()
        process.wait()
    assert statuses == [200] * 160
    store = Store(path)
    assert store.counts == (320, 160)
    store.close()


@pytest.mark.slow
def test_localhost_is_answered_over_ipv6_too() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving() as (process, lines):
        ports = [int(line.rpartition(":")[2].split()[0].strip("/")) for line in lines[:3]]
        connection = http.client.HTTPConnection("::1", ports[0], timeout=20)
        connection.request("GET", "/api/spans")
        assert connection.getresponse().status == 200
        connection.close()
        exporter = GrpcExporter(f"[::1]:{ports[2]}", insecure=True)
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        provider.get_tracer("t").start_span("over IPv6").end()
        provider.shutdown()
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert "1 span of 1 trace" in out


@pytest.mark.slow
def test_a_host_that_others_can_reach_is_warned_of() -> None:
    with serving("--host", "0.0.0.0", "--no-grpc") as (process, _):
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert "warning: whoever can reach 0.0.0.0" in err


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_a_port_that_is_taken_is_said_in_a_line(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", "0", "--grpc-port", "0", option, port]) == 2
    said = capsys.readouterr().err
    assert f"port {port}" in said
    assert f"{option} 0" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--port", "70000"], ["--max-spans", "0"], ["--db", "/no/such/directory/t.db"]])
def test_a_wrong_argument_is_said_in_a_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", "--grpc-port", "0", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_missing_extra_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "grpc.py").write_text("raise ImportError", encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "tracekit", "serve", "--port", "0"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == "tracekit serve: pip install 'tracekit[otlp]' first (missing: grpc)\n"
