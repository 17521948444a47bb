"""
An OTLP/HTTP receiver in a process of its own, which counts spans and keeps none: `python -m benchmarks.receiver`.

It prints its port, and ends when its standard input does. `GET /` answers how many spans have come.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, final
from urllib.request import urlopen

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Generator


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    spans = 0
    counting = threading.Lock()

    def do_POST(self) -> None:  # the base's name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        received = sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        with _Handler.counting:
            _Handler.spans += received
        self._answer(b"", "application/x-protobuf")

    def do_GET(self) -> None:  # the base's name
        self._answer(str(_Handler.spans).encode(), "text/plain")

    def _answer(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's signature
        pass


@final
class Receiver:
    """A receiver that runs: its *endpoint*, and how many spans have come."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def spans(self) -> int:
        """Return how many spans have come."""
        with urlopen(self.endpoint) as answer:  # noqa: S310  # our own
            return int(answer.read())


@contextmanager
def program(*command: str) -> Generator[str]:
    """Run `python -m` *command* in here; gives the first line it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None  # noqa: S101  # for the type checker
    assert process.stdout is not None  # noqa: S101  # as above
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


@contextmanager
def receiver() -> Generator[Receiver]:
    """Run a receiver in here."""
    with program("benchmarks.receiver") as port:
        yield Receiver(f"http://127.0.0.1:{port}")


def main() -> None:
    """Serve until the standard input ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
