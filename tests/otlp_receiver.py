"""
An OTLP receiver for tests: real servers on the official messages, whose answers a test can script.

As a program it prints each span it receives as a line of JSON:

    python -m tests.otlp_receiver --http 4318 --grpc 4317
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, cast

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

WAIT_S: Final = 20.0


@dataclass(frozen=True)
class Answer:
    """
    What the receiver does with one request; the default accepts it.

    Args:
        http: Status of the HTTP answer; not 200: the request is not accepted.
        grpc: Name of the gRPC status ("UNAVAILABLE"); not "OK": the request is not accepted.
        headers: Headers of the HTTP answer, or trailing metadata of the gRPC answer (bytes under a name with "-bin").
        details: What the gRPC status says besides its name.
        body: Body of the HTTP answer instead of the protobuf response; the request is not accepted.
        truncated: Promise more of the HTTP answer than comes.
        rejected: Spans that a partial success says were rejected.
        delay_s: Answer so much later, or as soon as the receiver closes.
        hold: Do not answer until the receiver closes.
        close: Close the connection instead of answering (HTTP), abort (gRPC).
    """

    http: int = 200
    grpc: str = "OK"
    headers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    details: str = "scripted"
    body: bytes | None = None
    truncated: bool = False
    rejected: int = 0
    delay_s: float = 0.0
    hold: bool = False
    close: bool = False

    @classmethod
    def failure(cls, http: int, grpc: str, **more: Any) -> Answer:
        """Return the answer that fails with *http* over HTTP and with *grpc* over gRPC."""
        return cls(http=http, grpc=grpc, **more)

    def response(self) -> ExportTraceServiceResponse:
        if not self.rejected:
            return ExportTraceServiceResponse()
        return ExportTraceServiceResponse(
            partial_success=ExportTracePartialSuccess(rejected_spans=self.rejected, error_message="scripted")
        )


ACCEPT: Final = Answer()
TOO_LARGE: Final = Answer(413, "RESOURCE_EXHAUSTED", details="Received message larger than max (9 vs. 8)")


@dataclass(frozen=True)
class Certificates:
    """PEM files of an authority, a server and a client, which trust nobody else."""

    authority: str
    server: str
    server_key: str
    client: str
    client_key: str


@dataclass(frozen=True)
class Event:
    name: str
    attributes: dict[str, Any]
    time_ns: int


@dataclass(frozen=True)
class Link:
    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it came over the wire; ids in hex, *parent_id* None for a root."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    kind: str
    start_time_ns: int
    end_time_ns: int
    attributes: dict[str, Any]
    events: tuple[Event, ...]
    links: tuple[Link, ...]
    status: str
    status_description: str
    resource: dict[str, Any]
    scope: str
    scope_version: str


@dataclass(frozen=True)
class Request:
    """
    One export request.

    Args:
        message: What was sent.
        headers: HTTP headers or gRPC metadata, names in lower case.
        path: Path of the URL (HTTP).
        encoding: How the body was compressed (HTTP; gRPC does not tell).
        accepted: Whether the answer took it.
        peer: The other end of the connection.
        at_s: When it came, by the monotonic clock.
    """

    message: ExportTraceServiceRequest
    headers: dict[str, str]
    path: str
    encoding: str
    accepted: bool
    peer: str
    at_s: float


@dataclass(frozen=True)
class MetricsRequest:
    """One export of metrics."""

    message: ExportMetricsServiceRequest
    headers: Mapping[str, str]

    def points(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """The values by metric and attributes' values: counts of histograms, values of counters."""
        return {
            (metric.name, tuple(_attributes(point.attributes).values())): (
                point.count if metric.HasField("histogram") else point.as_int
            )
            for resource in self.message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in (metric.histogram.data_points or metric.sum.data_points)
        }

    @property
    def resource(self) -> dict[str, Any]:
        return _attributes(self.message.resource_metrics[0].resource.attributes)


class Receiver(ABC):
    """What both servers share: what came, what to answer, and waiting for it."""

    def __init__(self, *, on_span: Callable[[ReceivedSpan], None] | None = None) -> None:
        self.closing = threading.Event()
        # Requests with more spans are too large.
        self.max_spans: int | None = None
        self._on_span = on_span
        self._changed = threading.Condition()
        self._script: deque[Answer] = deque()
        self._always = ACCEPT
        self._requests: list[Request] = []
        self._spans: list[ReceivedSpan] = []
        self._metrics: list[MetricsRequest] = []

    @property
    @abstractmethod
    def endpoint(self) -> str:
        """Scheme, host and port."""

    @abstractmethod
    def close(self) -> None:
        """Stop serving and let go of held requests."""

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    @property
    def requests(self) -> list[Request]:
        """Every request, accepted or not."""
        with self._changed:
            return list(self._requests)

    @property
    def spans(self) -> list[ReceivedSpan]:
        """The spans of accepted requests."""
        with self._changed:
            return list(self._spans)

    @property
    def metrics(self) -> list[MetricsRequest]:
        """Every request with metrics; all are accepted."""
        with self._changed:
            return list(self._metrics)

    def forget(self) -> None:
        """Begin anew."""
        with self._changed:
            self._script.clear()
            self._always = ACCEPT
            self._requests.clear()
            self._spans.clear()

    def answer(self, *answers: Answer) -> None:
        """Give the next requests these *answers*, one each."""
        with self._changed:
            self._script.extend(answers)

    def answer_always(self, answer: Answer) -> None:
        """Give *answer* to every request that `answer` says nothing about."""
        with self._changed:
            self._always = answer

    def wait_for_spans(self, count: int, timeout_s: float = WAIT_S) -> list[ReceivedSpan]:
        """Return the spans once there are *count* of them; fails after *timeout_s*."""
        self._wait(lambda: len(self._spans) >= count, timeout_s)
        spans = self.spans
        assert len(spans) >= count, f"{len(spans)} of {count} spans came within {timeout_s} s"
        return spans

    def wait_for_requests(self, count: int, timeout_s: float = WAIT_S) -> list[Request]:
        """Return the requests once there are *count* of them; fails after *timeout_s*."""
        self._wait(lambda: len(self._requests) >= count, timeout_s)
        requests = self.requests
        assert len(requests) >= count, f"{len(requests)} of {count} requests came within {timeout_s} s"
        return requests

    def take_metrics(self, message: ExportMetricsServiceRequest, headers: Mapping[str, str]) -> None:
        """Record a request that has come."""
        with self._changed:
            self._metrics.append(MetricsRequest(message, {key.lower(): value for key, value in headers.items()}))

    def one(self, name: str) -> ReceivedSpan:
        """Return the one span called *name*."""
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, f"{len(found)} spans are called {name!r}: {[span.name for span in self.spans]}"
        return found[0]

    def _wait(self, reached: Callable[[], bool], timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(reached, timeout_s)

    def take(
        self, message: ExportTraceServiceRequest, headers: Mapping[str, str], *, path: str, encoding: str, peer: str
    ) -> Answer:
        """Record a request that has come and return what to answer; blocks for a delayed answer."""
        with self._changed:
            answer = self._script.popleft() if self._script else self._always
            if self.max_spans is not None and sum(1 for _ in spans_of(message)) > self.max_spans:
                answer = TOO_LARGE
            is_success = answer.http == 200 and answer.grpc == "OK" and answer.body is None
            accepted = is_success and not answer.close and not answer.hold
            lowered = {key.lower(): value for key, value in headers.items()}
            self._requests.append(Request(message, lowered, path, encoding, accepted, peer, time.monotonic()))
            spans = list(spans_of(message)) if accepted else []
            self._spans.extend(spans)
            self._changed.notify_all()
        for span in spans:
            if self._on_span is not None:
                self._on_span(span)
        if answer.hold or answer.delay_s:
            self.closing.wait(None if answer.hold else answer.delay_s)
        return answer


class HttpReceiver(Receiver):
    """OTLP/HTTP with protobuf, on loopback."""

    def __init__(
        self,
        port: int = 0,
        *,
        on_span: Callable[[ReceivedSpan], None] | None = None,
        tls: Certificates | None = None,
    ) -> None:
        super().__init__(on_span=on_span)
        self._scheme = "http" if tls is None else "https"
        self._server = _HttpServer(("127.0.0.1", port), _HttpHandler)
        self._server.receiver = self
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.authority)
            context.load_cert_chain(tls.server, tls.server_key)
            context.verify_mode = ssl.CERT_REQUIRED
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()
        self._thread.join()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    receiver: HttpReceiver

    def __init__(self, *args: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        # A client's pool keeps connections open, and their threads wait for its next request.
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections broken on purpose are part of the tests."""


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        encoding = self.headers.get("content-encoding", "identity")
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding == "deflate":
            body = zlib.decompress(body)
        if self.path == "/v1/metrics":
            receiver = cast("_HttpServer", self.server).receiver
            receiver.take_metrics(ExportMetricsServiceRequest.FromString(body), dict(self.headers.items()))
            self._send(200, b"", {"content-type": "application/x-protobuf"})
            return
        if self.path != "/v1/traces" and not self.path.endswith("/v1/traces"):
            self._send(404, b"no such path", {})
            return
        message = ExportTraceServiceRequest.FromString(body)
        receiver = cast("_HttpServer", self.server).receiver
        answer = receiver.take(
            message, dict(self.headers.items()), path=self.path, encoding=encoding, peer=str(self.client_address)
        )
        if answer.close or answer.hold:
            self.close_connection = True
            return
        response = answer.response().SerializeToString() if answer.body is None else answer.body
        self.close_connection |= answer.truncated
        missing = 10 if answer.truncated else 0
        self._send(answer.http, response, {"content-type": "application/x-protobuf", **answer.headers}, missing)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], missing: int = 0) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        """Say nothing."""


class GrpcReceiver(Receiver):
    """OTLP/gRPC, on loopback."""

    def __init__(
        self,
        port: int = 0,
        *,
        on_span: Callable[[ReceivedSpan], None] | None = None,
        tls: Certificates | None = None,
    ) -> None:
        super().__init__(on_span=on_span)
        self._scheme = "http" if tls is None else "https"
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool)
        add_TraceServiceServicer_to_server(_TraceService(self), self._server)
        add_MetricsServiceServicer_to_server(_MetricsService(self), self._server)
        address = f"127.0.0.1:{port}"
        if tls is None:
            self._port = self._server.add_insecure_port(address)
        else:
            pair = Path(tls.server_key).read_bytes(), Path(tls.server).read_bytes()
            credentials = grpc.ssl_server_credentials(
                [pair], root_certificates=Path(tls.authority).read_bytes(), require_client_auth=True
            )
            self._port = self._server.add_secure_port(address, credentials)
        self._server.start()

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._port}"

    def close(self) -> None:
        self.closing.set()
        self._server.stop(0).wait()
        self._pool.shutdown()


class _TraceService(TraceServiceServicer):
    def __init__(self, receiver: GrpcReceiver) -> None:
        self._receiver = receiver

    def Export(  # noqa: N802  # the service's own name
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        answer = self._receiver.take(request, metadata, path="", encoding="", peer=str(context.peer()))
        if answer.headers:
            context.set_trailing_metadata(tuple(answer.headers.items()))
        if answer.close or answer.hold:
            context.abort(grpc.StatusCode.UNAVAILABLE, "closed")
        if answer.grpc != "OK":
            context.abort(grpc.StatusCode[answer.grpc], answer.details)
        return answer.response()


class _MetricsService(MetricsServiceServicer):
    def __init__(self, receiver: GrpcReceiver) -> None:
        self._receiver = receiver

    def Export(  # noqa: N802  # the service's own name
        self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> ExportMetricsServiceResponse:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self._receiver.take_metrics(request, metadata)
        return ExportMetricsServiceResponse()


class Wire:
    """A TCP connection's path to a receiver, which counts what goes there."""

    def __init__(self, receiver: Receiver) -> None:
        self.sent_bytes = 0
        self._receiver = receiver
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._open:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._receiver.port))
            self._open += [client, server]
            self._run(self._forward, client, server)
            self._run(self._forward, server, client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if target.getpeername()[1] == self._receiver.port:
                    self.sent_bytes += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _run(self, job: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=job, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()


def spans_of(message: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    """Yield the spans of *message*."""
    for resource_spans in message.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield ReceivedSpan(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex() or None,
                    kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    start_time_ns=span.start_time_unix_nano,
                    end_time_ns=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    events=tuple(
                        Event(event.name, _attributes(event.attributes), event.time_unix_nano) for event in span.events
                    ),
                    links=tuple(
                        Link(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes))
                        for link in span.links
                    ),
                    status=("unset", "ok", "error")[span.status.code],
                    status_description=span.status.message,
                    resource=resource,
                    scope=scope_spans.scope.name,
                    scope_version=scope_spans.scope.version,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in cast("list[KeyValue]", pairs)}


def _value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [_value(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, which)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for 127.0.0.1, made by the OpenSSL of this machine."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    directory = tmp_path_factory.mktemp("tls")

    def make(name: str, *options: str) -> str:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]
        command = ["openssl", "req", "-x509", *key, "-out", f"{name}.pem", "-days", "2", "-subj", f"/CN={name}"]
        subprocess.run([*command, *options], cwd=directory, check=True, capture_output=True)
        return str(directory / f"{name}.pem")

    # What CPython 3.13 asks of an authority.
    authority = make("authority", "-addext", "keyUsage=critical,keyCertSign")
    signed = ["-CA", "authority.pem", "-CAkey", "authority.key", "-addext", "subjectAltName=IP:127.0.0.1"]
    end = [*signed, "-addext", "basicConstraints=critical,CA:FALSE"]
    server, client = make("server", *end), make("client", *end)
    return Certificates(authority, server, str(directory / "server.key"), client, str(directory / "client.key"))


@pytest.fixture
def otlp_http() -> Iterator[HttpReceiver]:
    """An OTLP/HTTP receiver on a free loopback port."""
    receiver = HttpReceiver()
    yield receiver
    receiver.close()


@pytest.fixture
def otlp_grpc() -> Iterator[GrpcReceiver]:
    """An OTLP/gRPC receiver on a free loopback port."""
    receiver = GrpcReceiver()
    yield receiver
    receiver.close()


@pytest.fixture(params=["grpc", "http/protobuf"])
def otlp(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    """A receiver of each protocol in turn."""
    receiver = GrpcReceiver() if request.param == "grpc" else HttpReceiver()
    yield receiver
    receiver.close()


def main() -> None:
    """Receive until interrupted; print what is listened on, then a line for each span."""
    parser = argparse.ArgumentParser(description="Receive OTLP and print each span as a line of JSON.")
    parser.add_argument("--http", type=int, metavar="PORT", help="serve OTLP/HTTP (0: a free port)")
    parser.add_argument("--grpc", type=int, metavar="PORT", help="serve OTLP/gRPC (0: a free port)")
    parser.add_argument("--count", action="store_true", help="print only how many have come, once a second")
    options = parser.parse_args()
    if options.http is None and options.grpc is None:
        parser.error("nothing to serve: give --http PORT, --grpc PORT or both")
    printing = threading.Lock()

    def show(line: Mapping[str, Any]) -> None:
        with printing:
            sys.stdout.write(json.dumps(line, default=str) + "\n")
            sys.stdout.flush()

    def show_span(span: ReceivedSpan) -> None:
        show(asdict(span))

    on_span = None if options.count else show_span
    receivers: list[Receiver] = []
    if options.http is not None:
        receivers.append(HttpReceiver(options.http, on_span=on_span))
    if options.grpc is not None:
        receivers.append(GrpcReceiver(options.grpc, on_span=on_span))
    show({"endpoints": [receiver.endpoint for receiver in receivers]})
    try:
        while True:
            time.sleep(1.0)
            if options.count:
                show({"received": sum(len(receiver.spans) for receiver in receivers)})
    except KeyboardInterrupt:
        for receiver in receivers:
            receiver.close()


if __name__ == "__main__":
    main()
