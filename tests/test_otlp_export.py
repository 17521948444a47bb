"""Spans over real OTLP servers: what arrives is what was made."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context
from otlp_receiver import Answer, GrpcReceiver, HttpReceiver, Receiver, Wire

from tracekit._environment import Environment
from tracekit._stats import Counters
from tracekit.errors import ConfigurationError
from tracekit.export.batch import BatchProcessor
from tracekit.export.sending import OtlpExporter, otlp_exporter


@contextmanager
def exporting(exporter: OtlpExporter, **options: Any) -> Iterator[tuple[TracerProvider, BatchProcessor, Counters]]:
    counters = Counters()
    processor = BatchProcessor(exporter, counters, **options)
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    yield provider, processor, counters
    processor.shutdown()


def test_a_span_arrives_as_it_was_made(otlp: Receiver) -> None:
    with exporting(otlp_exporter(endpoint=otlp.endpoint, protocol=protocol_of(otlp))) as (
        provider,
        processor,
        counters,
    ):
        tracer = provider.get_tracer("shop.orders", "1.2")
        parent = tracer.start_span("orders.create", kind=SpanKind.SERVER)
        child = tracer.start_span(
            "payments.charge",
            context=set_span_in_context(parent),
            attributes={"order.id": 7, "paid": True, "tags": ("a", "b"), "ratio": 0.5},
            links=[Link(parent.get_span_context(), {"why": "test"})],
        )
        child.add_event("payment_started", {"attempt": 1}, timestamp=12345)
        child.set_status(Status(StatusCode.ERROR, "declined"))
        child.end()
        parent.end()
        assert processor.force_flush()
        assert counters.snapshot().exported == 2
    sent, root = otlp.one("payments.charge"), otlp.one("orders.create")
    assert sent.trace_id == root.trace_id == format(parent.get_span_context().trace_id, "032x")
    assert (sent.parent_id, root.parent_id) == (root.span_id, None)
    assert (sent.kind, root.kind) == ("internal", "server")
    assert sent.attributes == {"order.id": 7, "paid": True, "tags": ["a", "b"], "ratio": 0.5}
    assert [(event.name, event.attributes, event.time_ns) for event in sent.events] == [
        ("payment_started", {"attempt": 1}, 12345)
    ]
    assert [(link.span_id, link.attributes) for link in sent.links] == [(root.span_id, {"why": "test"})]
    assert (sent.status, sent.status_description, root.status) == ("error", "declined", "unset")
    assert sent.resource["service.name"] == "shop"
    assert (sent.scope, sent.scope_version) == ("shop.orders", "1.2")
    assert sent.start_time_ns <= sent.end_time_ns


def test_headers_of_argument_url_and_environment_arrive(otlp: Receiver) -> None:
    variables = Environment({"OTEL_EXPORTER_OTLP_HEADERS": "X-Env=one%2Ctwo,x-both=env"})
    endpoint = otlp.endpoint.replace("http://", "http://ada:love@")
    exporter = otlp_exporter(
        endpoint=endpoint, protocol=protocol_of(otlp), headers={"X-Both": "argument"}, variables=variables
    )
    send_one(exporter)
    headers = otlp.wait_for_requests(1)[0].headers
    assert (headers["x-env"], headers["x-both"]) == ("one,two", "argument")
    assert headers["authorization"] == "Basic YWRhOmxvdmU="


def test_a_header_that_is_binary_to_grpc_arrives_like_any_other(otlp: Receiver) -> None:
    send_one(otlp_exporter(endpoint=otlp.endpoint, protocol=protocol_of(otlp), headers={"x-tenant-bin": "seven"}))
    # The receiver shows the bytes of gRPC as Python does.
    assert otlp.wait_for_requests(1)[0].headers["x-tenant-bin"] in ("seven", "b'seven'")


def test_requests_are_compressed_as_asked(otlp: Receiver) -> None:
    sent_bytes: dict[str | None, int] = {}
    for compression in (None, "none", "gzip"):
        wire = Wire(otlp)
        exporter = otlp_exporter(endpoint=wire.endpoint, protocol=protocol_of(otlp), compression=compression)
        send_one(exporter, name="long" * 10_000)
        sent_bytes[compression] = wire.sent_bytes
        wire.close()
    assert sent_bytes["gzip"] < 10_000
    assert sent_bytes["none"] > 40_000
    assert sent_bytes[None] > 40_000
    assert len(otlp.spans) == 3


def test_http_requests_go_to_the_path_of_the_endpoint(otlp_http: HttpReceiver) -> None:
    send_one(otlp_exporter(endpoint=f"{otlp_http.endpoint}/tenant"))
    assert otlp_http.wait_for_requests(1)[0].path == "/tenant/v1/traces"


def test_all_comes_from_the_environment_where_nothing_is_given(otlp: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol_of(otlp))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "20000")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=value")
    send_one(otlp_exporter())
    assert otlp.wait_for_requests(1)[0].headers["x-key"] == "value"


def test_a_timeout_in_the_environment_is_in_milliseconds(otlp: Receiver) -> None:
    otlp.answer_always(Answer(hold=True))
    # 300 seconds, as the official exporters read it, would outlast this test.
    variables = Environment({"OTEL_EXPORTER_OTLP_TIMEOUT": "300"})
    exporter = otlp_exporter(endpoint=otlp.endpoint, protocol=protocol_of(otlp), variables=variables)
    with exporting(exporter) as (provider, processor, counters):
        provider.get_tracer("t").start_span("lost").end()
        # The first attempt is given up, and the second is under way.
        otlp.wait_for_requests(2)
        assert counters.snapshot().queued == 1
        processor.shutdown(0)
    assert dict(counters.snapshot().dropped) == {"shutdown": 1}


@pytest.mark.parametrize(
    ("http", "grpc"),
    [
        (400, "INVALID_ARGUMENT"),
        (404, "UNIMPLEMENTED"),
        pytest.param(
            *(500, "INTERNAL"),
            marks=pytest.mark.skipif(
                version("opentelemetry-exporter-otlp-proto-http") < "1.45", reason="it sent again after a 500 then"
            ),
        ),
    ],
)
def test_a_refused_batch_is_counted_as_lost(otlp: Receiver, http: int, grpc: str) -> None:
    otlp.answer(Answer(http=http, grpc=grpc))
    with exporting(otlp_exporter(endpoint=otlp.endpoint, protocol=protocol_of(otlp))) as (
        provider,
        processor,
        counters,
    ):
        tracer = provider.get_tracer("t")
        tracer.start_span("lost").end()
        assert not processor.force_flush()
        tracer.start_span("kept").end()
        assert processor.force_flush()
        stats = counters.snapshot()
    assert (stats.exported, stats.queued, dict(stats.dropped)) == (1, 0, {"export_failed": 1})
    assert [span.name for span in otlp.spans] == ["kept"]


def test_a_receiver_that_comes_back_gets_the_batch(otlp: Receiver) -> None:
    otlp.answer(Answer(http=503, grpc="UNAVAILABLE", headers={"retry-after": "0"}))
    with exporting(otlp_exporter(endpoint=otlp.endpoint, protocol=protocol_of(otlp))) as (provider, processor, _):
        provider.get_tracer("t").start_span("kept").end()
        assert processor.force_flush()
    assert [request.accepted for request in otlp.requests] == [False, True]


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_burst_of_spans_arrives_complete(otlp: Receiver, count: int) -> None:
    with exporting(otlp_exporter(endpoint=otlp.endpoint, protocol=protocol_of(otlp))) as (
        provider,
        processor,
        counters,
    ):
        tracer = provider.get_tracer("t")
        for _ in range(count):
            tracer.start_span("burst").end()
        assert processor.force_flush(50_000)
        stats = counters.snapshot()
    assert (stats.exported, stats.queued, dict(stats.dropped)) == (count, 0, {})
    assert len({span.span_id for span in otlp.spans}) == len(otlp.spans) == count


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compression": "zstd"}, 'compression=.*"gzip" or "none"'),
        ({"timeout_s": 0}, "timeout_s=0: expected seconds"),
        ({"timeout_s": "10"}, "timeout_s='10'"),
        ({"headers": "a=b"}, "headers of type str"),
        ({"headers": {"x-key": "secret\n"}}, r"headers\['x-key'\]"),
        ({"headers": {"x key": "secret"}}, r"headers\['x key'\]"),
        ({"headers": {"x-key": 7}}, r"headers\['x-key'\]"),
        ({"env": {"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}}, "OTEL_EXPORTER_OTLP_TIMEOUT='10s'"),
        ({"env": {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "-1"}}, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"),
        ({"env": {"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}}, "OTEL_EXPORTER_OTLP_COMPRESSION"),
        ({"env": {"OTEL_EXPORTER_OTLP_HEADERS": "secret"}}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"env": {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=b%0Asecret"}}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
        (
            {"endpoint": "https://x", "env": {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such.pem"}},
            "OTEL_EXPORTER_OTLP_CERTIFICATE='/no/such.pem'",
        ),
    ],
)
def test_a_wrong_setting_is_refused_by_name_and_without_secrets(options: dict[str, Any], said: str) -> None:
    variables = Environment(options.pop("env", {}))
    with pytest.raises(ConfigurationError, match=said) as refused:
        otlp_exporter(variables=variables, **options)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_missing_extra_says_what_to_install(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"tracekit.export.{protocol.partition('/')[0]}", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'tracekit\[otlp\]'"):
        otlp_exporter(protocol=protocol)


def test_a_closed_exporter_takes_nothing(otlp_http: HttpReceiver) -> None:
    exporter = otlp_exporter(endpoint=otlp_http.endpoint)
    exporter.shutdown()
    assert exporter.export(()) is SpanExportResult.FAILURE
    assert repr(exporter) == f"OtlpExporter('{otlp_http.endpoint}/v1/traces', 'http/protobuf')"


PROGRAM = """
import sys, warnings
from opentelemetry.sdk.trace import TracerProvider
from tracekit._stats import Counters
from tracekit.export.batch import BatchProcessor
from tracekit.export.sending import otlp_exporter

endpoint, protocol, timeout_ms = sys.argv[1], sys.argv[2], float(sys.argv[3])
counters = Counters()
processor = BatchProcessor(otlp_exporter(endpoint=endpoint, protocol=protocol), counters)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(processor)
for _ in range(2_000):
    provider.get_tracer("t").start_span("s").end()
processor.shutdown(timeout_ms)
stats = counters.snapshot()
print(stats.exported, stats.queued, sum(stats.dropped.values()), sorted(stats.dropped))
"""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("is_listening", [False, True], ids=["refused", "black hole"])
def test_a_dead_receiver_holds_nobody_up_and_every_span_is_accounted_for(protocol: str, is_listening: bool) -> None:
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        if is_listening:
            dead.listen(16)  # takes connections and never says a word
        program = subprocess.run(
            [
                sys.executable,
                "-W",
                "error",
                "-c",
                PROGRAM,
                f"http://127.0.0.1:{dead.getsockname()[1]}",
                protocol,
                "500",
            ],
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
    exported, queued, dropped, reasons = program.stdout.split(maxsplit=3)
    assert (exported, queued, dropped) == ("0", "0", "2000"), program.stderr
    assert "shutdown" in reasons
    # At once, or the last of several lines.
    assert re.search(r"dropped: 2000 \(|, 2000 so far", program.stderr)
    assert "Traceback" not in program.stderr


FORKING = """
import os, sys
from opentelemetry.sdk.trace import TracerProvider
from tracekit._stats import Counters
from tracekit.export.batch import BatchProcessor
from tracekit.export.sending import otlp_exporter

processor = BatchProcessor(otlp_exporter(endpoint=sys.argv[1], protocol=sys.argv[2]), counters := Counters())
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(processor)
span = lambda name: provider.get_tracer("t").start_span(name).end()
span("parent.before")
assert processor.force_flush()
span("parent.queued")
children = []
for number in range(3):
    child = os.fork()
    if not child:
        span(f"child.{number}")
        processor.shutdown(20_000)
        stats = counters.snapshot()
        os._exit((stats.exported, stats.queued, dict(stats.dropped)) != (1, 0, {}))
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
processor.shutdown(20_000)
assert counters.snapshot().exported == 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_children_send_their_own_spans_and_only_these(otlp: Receiver) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING, otlp.endpoint, protocol_of(otlp)], timeout=50, check=True
    )
    assert sorted(span.name for span in otlp.spans) == [
        "child.0",
        "child.1",
        "child.2",
        "parent.before",
        "parent.queued",
    ]


def protocol_of(receiver: Receiver) -> str:
    return "grpc" if isinstance(receiver, GrpcReceiver) else "http/protobuf"


def send_one(exporter: OtlpExporter, name: str = "one") -> None:
    with exporting(exporter) as (provider, processor, _):
        provider.get_tracer("t").start_span(name).end()
        assert processor.force_flush()
