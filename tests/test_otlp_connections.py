"""The way to a receiver: TLS with certificates of one's own, and proxies."""

from __future__ import annotations

import re
import socket
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from otlp_receiver import Certificates, GrpcReceiver, HttpReceiver, Receiver

import tracekit
from tracekit.configuration import Tracing
from tracekit.errors import ConfigurationError


@pytest.fixture(params=["grpc", "http/protobuf"])
def secure(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Receiver]:
    """A receiver of each protocol that wants TLS and a certificate."""
    kind = GrpcReceiver if request.param == "grpc" else HttpReceiver
    receiver = kind(tls=certificates)
    yield receiver
    receiver.close()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def tracing_to(receiver: Receiver) -> Tracing:
    protocol: Any = "grpc" if isinstance(receiver, GrpcReceiver) else "http/protobuf"
    return tracekit.configure(endpoint=receiver.endpoint, protocol=protocol, timeout_s=5)


def is_sent(tracing: Tracing, timeout_s: float = 20) -> bool:
    with tracekit.traced_block("shop.order"):
        pass
    return tracing.flush(timeout_s)


def test_certificates_of_ones_own_are_checked_and_shown(
    secure: Receiver, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", certificates.authority)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", certificates.client)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", certificates.client_key)
    assert is_sent(tracing_to(secure))
    assert secure.one("shop.order")


def test_port_of_the_other_protocol_is_told_with_what_to_write(
    otlp: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    wrong: Any = "http/protobuf" if isinstance(otlp, GrpcReceiver) else "grpc"
    right = "grpc" if isinstance(otlp, GrpcReceiver) else "http/protobuf"
    assert not is_sent(tracekit.configure(endpoint=otlp.endpoint, protocol=wrong, timeout_s=3), timeout_s=3)
    assert f'write protocol="{right}"' in caplog.text


@pytest.mark.parametrize("missing", ["CERTIFICATE", "CLIENT_(CERTIFICATE|KEY)"])
def test_nothing_goes_to_who_cannot_be_trusted_nor_from_who_shows_nothing(
    secure: Receiver, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    files = certificates.authority, certificates.client, certificates.client_key
    for what, path in zip(("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"), files, strict=True):
        if not re.fullmatch(missing, what):
            monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{what}", path)
    tracing = tracing_to(secure)
    assert not is_sent(tracing, 0.5)
    assert tracing.stats.queued == 1
    assert secure.spans == []
    tracing.shutdown(0)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_file_that_holds_no_certificate_is_refused_at_once(
    protocol: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "authority.pem"
    file.write_text("no certificate")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(file))
    with pytest.raises(ConfigurationError, match="expected PEM files"):
        tracekit.configure(endpoint="https://localhost:9", protocol=protocol)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_key_without_its_certificate_is_refused_at_once(
    protocol: Any, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", certificates.client_key)
    with pytest.raises(ConfigurationError, match="CLIENT_CERTIFICATE"):
        tracekit.configure(endpoint="https://localhost:9", protocol=protocol)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nx-drip: ", b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"])
def test_an_answer_that_drips_in_without_end_is_none(head: bytes) -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def relay(connection: socket.socket, is_first: bool) -> None:
            with connection, suppress(OSError):
                connection.recv(65_536)
                if is_first:
                    connection.sendall(head)
                    while not stop.wait(0.02):
                        connection.sendall(b"x")
                else:
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

        def accept() -> None:
            for number in range(2):
                connection, _ = server.accept()
                threading.Thread(target=relay, args=(connection, number == 0)).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        port = server.getsockname()[1]
        tracing = tracekit.configure(endpoint=f"http://127.0.0.1:{port}", protocol="http/protobuf", timeout_s=0.3)
        try:
            assert is_sent(tracing)
        finally:
            stop.set()
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
            accepting.join(20)
    assert tracing.stats.exported == 1


class HttpProxy:
    """A proxy that tunnels (CONNECT) and passes requests on, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.authorizations: set[str] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

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
            self._open.append(client)
            self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        head = b""
        with suppress(OSError):
            while b"\r\n\r\n" not in head:
                head += client.recv(65_536) or b"\r\n\r\n"
        request, _, rest = head.partition(b"\r\n\r\n")
        line, *headers = request.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        self.asked.append(f"{method} {target}")
        for header in headers:
            name, _, value = header.partition(": ")
            if name.lower() == "proxy-authorization":
                self.authorizations.add(b64decode(value.removeprefix("Basic ")).decode())
        place = urlsplit(f"//{target}" if method == "CONNECT" else target)
        server = socket.create_connection((place.hostname, place.port))
        self._open.append(server)
        if method == "CONNECT":
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            server.sendall(head)
            rest = b""
        if rest:
            server.sendall(rest)
        self._run(self._forward, client, server)
        self._forward(server, client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _run(self, job: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=job, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()


@pytest.fixture
def proxy() -> Iterator[HttpProxy]:
    running = HttpProxy()
    yield running
    running.close()


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_requests_go_through_the_proxy_of_the_environment(
    otlp: Receiver, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://ada:lo%3Ave@{proxy.address}")
    assert is_sent(tracing_to(otlp))
    assert otlp.one("shop.order")
    method = "CONNECT 127.0.0.1:" if isinstance(otlp, GrpcReceiver) else "POST http://127.0.0.1:"
    assert [asked.startswith(method) for asked in proxy.asked] == [True]
    assert proxy.authorizations == {"ada:lo:ve"}


def test_tls_goes_through_a_tunnel(
    secure: Receiver, certificates: Certificates, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", certificates.authority)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificates.client)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", certificates.client_key)
    assert is_sent(tracing_to(secure))
    assert secure.one("shop.order")
    assert proxy.asked == [f"CONNECT 127.0.0.1:{secure.port}"]


@pytest.mark.parametrize("excepted", ["127.0.0.1", "localhost,127.0.0.1:{port}", "*"])
def test_no_proxy_is_honoured(otlp: Receiver, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch, excepted: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv("NO_PROXY", excepted.format(port=otlp.port))
    assert is_sent(tracing_to(otlp))
    assert proxy.asked == []


@pytest.mark.parametrize("url", ["socks5://ada:secret@localhost:1080", "http://ada:secret@localhost:99999"])
def test_a_proxy_that_cannot_be_used_is_refused_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    with pytest.raises(ConfigurationError, match="expected http://host:port") as refused:
        tracekit.configure(endpoint="http://localhost:4318")
    assert "secret" not in str(refused.value)
