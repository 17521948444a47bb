"""
The HTTP side of `tracekit serve`: OTLP comes in, the live page and its spans go out.

For a developer's desk, where web pages of other people are open in the same browser: no answer goes to another origin,
none to a name that is not this machine's (DNS rebinding), and what comes in is bounded.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import sqlite3
import sys
import threading
import zlib
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, cast, final
from urllib.parse import parse_qs, urlsplit

from tracekit.view.page import content_security_policy, live_page
from tracekit.view.receiver import (
    INVALID_ARGUMENT,
    JSON,
    PROTOBUF,
    UNAVAILABLE,
    Answer,
    MalformedRequestError,
    Receiver,
    failure,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from tracekit.view.store import Store

_MAX_BODY: Final = 16 * 1024 * 1024
_MAX_UNPACKED: Final = 64 * 1024 * 1024
_MAX_CONNECTIONS: Final = 128
# Between two requests of a connection too: exporters keep theirs.
_TIMEOUT_S: Final = 120
_SIGNALS: Final = ("/v1/traces", "/v1/metrics", "/v1/logs")
_ALSO_THIS_MACHINE: Final = ("localhost", "host.docker.internal")
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class _RefusedError(Exception):
    """A request that gets an answer of failure."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@final
class HttpServer(ThreadingHTTPServer):
    """
    Serves *store* on *host* and *port*.

    Args:
        store: The spans.
        host: The address to listen on.
        port: The port; 0 for a free one.
        names: Names of this machine besides `localhost`: what clients may call it.
        max_spans: How many spans the page keeps.

    Raises:
        OSError: The port is taken.
    """

    daemon_threads = True
    # At exit nobody waits for a connection that an exporter keeps open.
    block_on_close = False
    request_queue_size = 64

    def __init__(self, store: Store, host: str, port: int, *, names: Collection[str] = (), max_spans: int) -> None:
        self.store = store
        self.receiver = Receiver(store)
        self.names = frozenset(name.lower() for name in (*names, *_ALSO_THIS_MACHINE))
        self.max_spans = max_spans
        self.host = host
        self.is_closed = False
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self.address_family = _family(host)
        super().__init__((host, port), _Handler)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def server_bind(self) -> None:
        """Bind without looking up the machine's name, which may take seconds."""
        # The port may be used again at once; to Windows the option means that two may use it.
        if sys.platform != "win32":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on a thread of its own, if one is free."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def server_close(self) -> None:
        """Listen no more; a connection that is open is answered once more."""
        self.is_closed = True
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients go away when they like."""


@final
class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "tracekit"
    sys_version = ""
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"
    timeout = _TIMEOUT_S
    # Answers of several writes wait for no acknowledgement.
    disable_nagle_algorithm = True

    @property
    def _desk(self) -> HttpServer:
        return cast("HttpServer", self.server)

    def do_GET(self) -> None:
        """Answer with the page or with spans."""
        self._handle(self._get)

    def do_POST(self) -> None:
        """Take an OTLP request."""
        self._handle(self._post)

    def do_DELETE(self) -> None:
        """Forget all spans."""
        self._handle(self._delete)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        """Say nothing: a line a request would bury the terminal."""

    def _handle(self, action: Any) -> None:
        if self._desk.is_closed:
            self.close_connection = True
        try:
            self._check_sender()
            action()
        except sqlite3.Error as error:
            # A full disk, or a database that was closed meanwhile: worth another try.
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, f"cannot keep spans: {error}")
        except _RefusedError as error:
            self._refuse(error.status, INVALID_ARGUMENT, error.message)

    def _refuse(self, status: HTTPStatus, code: int, message: str) -> None:
        # What is left of the body is not worth reading.
        self.close_connection = True
        content_type = PROTOBUF if self._content_type == PROTOBUF else JSON
        self._send(status, failure(content_type, code, message))

    def _get(self) -> None:
        target = urlsplit(self.path)
        if target.path == "/":
            policy = content_security_policy(connect="'self'") + "; frame-ancestors 'none'"
            body = live_page(endpoint=self._endpoint, maxSpans=self._desk.max_spans)
            self._send(HTTPStatus.OK, Answer("text/html; charset=utf-8", body), {"Content-Security-Policy": policy})
        elif target.path == "/api/spans":
            asked = parse_qs(target.query)
            after, epoch = asked.get("after", ["0"])[0], asked.get("epoch", [""])[0]
            if not re.fullmatch("[0-9]{1,15}", after):
                raise _RefusedError(HTTPStatus.BAD_REQUEST, "after is no number")
            self._send(HTTPStatus.OK, Answer(JSON, self._desk.store.after(int(after), epoch).to_json()))
        else:
            self._refuse_path(target.path)

    def _post(self) -> None:
        path = urlsplit(self.path).path
        if path not in _SIGNALS:
            self._refuse_path(path)
        content_type = self._content_type
        if content_type not in {JSON, PROTOBUF}:
            raise _RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the content type is {content_type!r}; send {PROTOBUF} or {JSON}"
            )
        body = self._body()
        if path != "/v1/traces":
            # Metrics and logs are not kept; exporters that send them too should not be told of an error all the time.
            self._send(HTTPStatus.OK, Answer(content_type, b"{}" if content_type == JSON else b""))
            return
        try:
            answer = self._desk.receiver.take(content_type, body)
        except MalformedRequestError as error:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        self._send(HTTPStatus.OK, answer)

    def _delete(self) -> None:
        if self.path != "/api/spans":
            self._refuse_path(self.path)
        self._desk.store.clear()
        self._send(HTTPStatus.OK, Answer(JSON, b"{}"))

    def _refuse_path(self, path: str) -> None:
        if path in {*_SIGNALS, "/", "/api/spans"}:
            raise _RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, f"{self.command} is not for {path}")
        raise _RefusedError(HTTPStatus.NOT_FOUND, f"nothing here; OTLP goes to {_SIGNALS[0]}")

    @property
    def _content_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def _endpoint(self) -> str:
        return f"http://{self.headers['Host']}"

    def _check_sender(self) -> None:
        """Refuse what a web page of somebody else, or a name that is not ours, has made a browser send."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _is_ours(hosts[0], self._desk.names):
            raise _RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "this is not the host you look for")
        origin = self.headers.get("Origin")
        if origin is not None and origin != self._endpoint:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "no requests from other origins")
        site = self.headers.get("Sec-Fetch-Site", "none")
        if site not in {"none", "same-origin"} and (self.command, urlsplit(self.path).path) != ("GET", "/"):
            raise _RefusedError(HTTPStatus.FORBIDDEN, "no requests from other sites")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").strip().lower() == "chunked":
            packed = self._chunks()
        else:
            length = self.headers.get("Content-Length", "")
            if not re.fullmatch("[0-9]{1,15}", length):
                raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "the request has no Content-Length")
            packed = self._read(int(length), taken=0)
        return self._unpacked(packed)

    def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            size = self.rfile.readline(64).partition(b";")[0].strip()
            if not re.fullmatch(b"[0-9a-fA-F]{1,12}", size):
                raise _RefusedError(HTTPStatus.BAD_REQUEST, "a chunk without its size")
            if not int(size, 16):
                break
            body += self._read(int(size, 16), taken=len(body))
            if self.rfile.readline(3) != b"\r\n":
                raise _RefusedError(HTTPStatus.BAD_REQUEST, "a chunk without its end")
        # Trailers, up to the empty line.
        while self.rfile.readline(1024).strip():
            pass
        return bytes(body)

    def _read(self, length: int, *, taken: int) -> bytes:
        if taken + length > _MAX_BODY:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {_MAX_BODY:,} bytes")
        body = self.rfile.read(length)
        if len(body) < length:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "the body ends early")
        return body

    def _unpacked(self, packed: bytes) -> bytes:
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in {"", "identity"}:
            return packed
        if encoding not in {"gzip", "deflate"}:
            raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"cannot unpack {encoding}; send gzip, or plain")
        # 32: the header tells which of both it is.
        unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            body = unpacking.decompress(packed, _MAX_UNPACKED)
        except zlib.error as error:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, f"the body is no {encoding}: {error}") from error
        if unpacking.unconsumed_tail:
            raise _RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {_MAX_UNPACKED:,} bytes once unpacked"
            )
        if not unpacking.eof:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "the body ends early")
        return body

    def _send(self, status: HTTPStatus, answer: Answer, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)


def is_loopback(host: str) -> bool:
    """Tell whether *host* is an address, or the name, of this machine that no other machine can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ours(host: str, names: Collection[str]) -> bool:
    """
    Tell whether the Host header *host* can only mean us.

    A page elsewhere can have its own name point here, but not an address.
    """
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?", host)
    if found is None:
        return False
    name = found[1].strip("[]").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names or name.endswith(".localhost")
    return True


def _family(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
