"""The receiver: where it is, whether it can be reached, and whether it speaks what it will be spoken to in."""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, final
from urllib.parse import urlsplit

from tracekit.errors import ConfigurationError
from tracekit.export.endpoint import GRPC

if TYPE_CHECKING:
    from tracekit.diagnosis.report import Report
    from tracekit.export.connection import Connection

TIMEOUT_S: Final = 5.0
# What a client of HTTP/2 says first: the preface of RFC 9113 and an empty SETTINGS frame.
_HTTP2_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_FRAME_HEADER: Final = 9
_SETTINGS: Final = 4
_TLS_ALERT: Final = b"\x15\x03"
_EXPIRES_SOON_S: Final = 14 * 24 * 3600
_CLIENT_ADVICE: Final = (
    "Does it want to know who sends? OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and ..._CLIENT_KEY name the files"
)
_OTHER_PORT: Final = {4317: 4318, 4318: 4317}

_Spoken: TypeAlias = Literal["HTTP/1", "HTTP/2", "TLS", "nothing"]


@final
class _Place(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_receiver(report: Report, connection: Connection) -> None:
    """Add what becomes of a connection to the receiver; nothing is sent to it that it would keep."""
    endpoint = connection.endpoint
    tls = "without TLS" if endpoint.insecure else "with TLS"
    shown = endpoint.url.partition("?")[0]
    report.add(
        "receiver",
        "endpoint",
        "ok",
        f"spans go to {shown} over {endpoint.protocol}, {tls}",
        url=shown,
        protocol=endpoint.protocol,
        tls=not endpoint.insecure,
    )
    parts = urlsplit(endpoint.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        report.add("receiver", "connection", "info", "a target of gRPC's own, not looked at: --send tries it")
        return
    place = _Place(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    if connection.proxy is not None:
        _check_proxy(report, connection.proxy.url, place)
        return
    if not _check_connection(report, place, endpoint.protocol):
        return
    if endpoint.insecure:
        _check_plain(report, connection, place)
    else:
        _check_tls(report, connection, place)


def _check_proxy(report: Report, url: str, place: _Place) -> None:
    parts = urlsplit(url)
    proxy = _Place(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    advice = f"If it should not: NO_PROXY={place.host}"
    try:
        socket.create_connection(proxy, TIMEOUT_S).close()
    except OSError as error:
        report.add(
            "receiver", "proxy", "fail", f"requests go through the proxy {url}: {_why(error)}", advice, proxy=url
        )
    else:
        message = f"requests go through the proxy {url}, which answers; what is behind it only --send shows"
        report.add("receiver", "proxy", "warn", message, advice, proxy=url)


def _check_connection(report: Report, place: _Place, protocol: str) -> bool:
    try:
        found = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        message = f"the name {place.host} does not resolve: {_why(error)}"
        report.add("receiver", "name", "fail", message, "Check the spelling and the network", host=place.host)
        return False
    addresses = list(dict.fromkeys(str(address[4][0]) for address in found))
    if addresses != [place.host]:
        report.add("receiver", "name", "ok", f"{place.host} is {', '.join(addresses)}", addresses=addresses)
    started_s = time.monotonic()
    try:
        socket.create_connection(place, TIMEOUT_S).close()
    except OSError as error:
        report.add(
            "receiver", "connection", "fail", f"no connection to {place}: {_why(error)}", _reach(place, protocol)
        )
        return False
    took_ms = (time.monotonic() - started_s) * 1000
    report.add("receiver", "connection", "ok", f"connected to {place} in {took_ms:.0f} ms", milliseconds=round(took_ms))
    return True


def _reach(place: _Place, protocol: str) -> str:
    """Say what to do about a receiver that cannot be reached."""
    other = _OTHER_PORT.get(place.port)
    if other is not None:
        try:
            socket.create_connection((place.host, other), 1.0).close()
        except OSError:
            pass
        else:
            meant = "http/protobuf" if protocol == GRPC else "grpc"
            return f"Something listens on port {other}: protocol {meant} at http://{_Place(place.host, other)}"
    return "Is the receiver running? 4317 is the port of gRPC, 4318 that of HTTP. In a container, localhost is itself"


def _check_plain(report: Report, connection: Connection, place: _Place) -> None:
    is_grpc = connection.endpoint.protocol == GRPC
    spoken = _spoken(place, connection, is_grpc=is_grpc)
    if spoken == "nothing" and _speaks_tls(place):
        spoken = "TLS"
    if spoken == "TLS":
        message = f"{place} speaks TLS, and will be spoken to without"
        advice = f'Write https: endpoint="https://{place}", or insecure=False'
        report.add("receiver", "protocol", "fail", message, advice, spoken=spoken)
        return
    _judge(report, place, spoken, is_grpc=is_grpc)


def _check_tls(report: Report, connection: Connection, place: _Place) -> None:
    is_grpc = connection.endpoint.protocol == GRPC
    try:
        context = connection.tls_context()
    except ConfigurationError as error:
        report.add("receiver", "tls", "fail", str(error))
        return
    if context is None:
        return
    context.set_alpn_protocols(["h2"] if is_grpc else ["http/1.1"])
    if is_grpc:
        # gRPC has a TLS of its own, which forgives what CPython does not since 3.13.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    greeting = _HTTP2_HELLO if is_grpc else _http1_hello(place, connection)
    try:
        with (
            socket.create_connection(place, TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=place.host) as secure,
        ):
            certificate, version = secure.getpeercert() or {}, secure.version()
            # A receiver that wants a certificate of ours says so after the handshake, since TLS 1.3.
            spoken = _language(_greet(secure, greeting))
    except ssl.SSLCertVerificationError as error:
        message = f"the certificate of {place} is not trusted: {error.verify_message}"
        advice = "OTEL_EXPORTER_OTLP_CERTIFICATE names a file with the certificate of its authority"
        report.add("receiver", "tls", "fail", message, advice)
        return
    except OSError as error:  # SSLError is one
        spoken = _spoken(place, connection, is_grpc=is_grpc)
        if spoken in ("HTTP/1", "HTTP/2"):
            message = f"{place} speaks plain text, and will be spoken to with TLS"
            advice = f'Write http: endpoint="http://{place}", or insecure=True'
        else:
            message = f"no TLS with {place}: {_why(error)}"
            advice = _CLIENT_ADVICE
        report.add("receiver", "tls", "fail", message, advice, spoken=spoken)
        return
    until = certificate.get("notAfter")
    is_old = isinstance(until, str) and ssl.cert_time_to_seconds(until) - time.time() < _EXPIRES_SOON_S
    report.add(
        "receiver",
        "tls",
        "warn" if is_old else "ok",
        f"{version} with a trusted certificate, valid until {until or 'an unknown time'}",
        "It is about to expire" if is_old else "",
        version=version,
        until=until,
    )
    _judge(report, place, spoken, is_grpc=is_grpc, if_silent=_CLIENT_ADVICE)


def _judge(
    report: Report, place: _Place, spoken: _Spoken, *, is_grpc: bool, if_silent: str = "Is it the right port?"
) -> None:
    wanted = "HTTP/2" if is_grpc else "HTTP/1"
    if spoken == wanted:
        what = "HTTP/2, as gRPC does" if is_grpc else "HTTP"
        report.add("receiver", "protocol", "ok", f"{place} speaks {what}", spoken=spoken)
    elif spoken == "nothing":
        message = f"{place} takes connections, but answers neither HTTP nor gRPC"
        report.add("receiver", "protocol", "fail", message, if_silent, spoken=spoken)
    else:
        has, said = ("HTTP", "gRPC") if is_grpc else ("gRPC", "HTTP")
        protocol = "http/protobuf" if is_grpc else "grpc"
        other = _OTHER_PORT.get(place.port)
        advice = f'Write protocol="{protocol}"' + (
            f", or the port of {said}" if other is None else f", or port {other}"
        )
        message = f"{place} speaks {has}, and will be spoken to in {said}"
        report.add("receiver", "protocol", "fail", message, advice, spoken=spoken)


def _spoken(place: _Place, connection: Connection, *, is_grpc: bool) -> _Spoken:
    """Return what the port answers to a greeting in HTTP, in the version that is wanted first."""
    greetings = (_http1_hello(place, connection), _HTTP2_HELLO)
    for greeting in reversed(greetings) if is_grpc else greetings:
        try:
            with socket.create_connection(place, TIMEOUT_S) as plain:
                spoken = _language(_greet(plain, greeting))
        except OSError:
            continue
        if spoken != "nothing":
            return spoken
    return "nothing"


def _http1_hello(place: _Place, connection: Connection) -> bytes:
    path = urlsplit(connection.endpoint.url).path or "/"
    return f"GET {path} HTTP/1.1\r\nhost: {place}\r\nconnection: close\r\n\r\n".encode("ascii", "replace")


def _greet(connection: socket.socket, greeting: bytes) -> bytes:
    """Return the beginning of what is answered to *greeting*."""
    connection.settimeout(TIMEOUT_S)
    connection.sendall(greeting)
    answer = b""
    while len(answer) < _FRAME_HEADER and (more := connection.recv(1024)):
        answer += more
    return answer


def _language(answer: bytes) -> _Spoken:
    if answer.startswith(b"HTTP/1"):
        return "HTTP/1"
    if answer.startswith(_TLS_ALERT):
        return "TLS"
    return "HTTP/2" if len(answer) >= _FRAME_HEADER and answer[3] == _SETTINGS else "nothing"


def _speaks_tls(place: _Place) -> bool:
    context = ssl.create_default_context()
    # Whose certificate it is does not matter here, nothing is sent.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection(place, TIMEOUT_S) as plain, context.wrap_socket(plain):
            return True
    except ssl.SSLError as error:
        # One that asks for a certificate of ours speaks TLS too.
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "error").replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
