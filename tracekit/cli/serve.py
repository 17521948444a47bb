"""`tracekit serve`: a receiver for OTLP on this machine, with the page of its traces."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracekit.errors import ConfigurationError, TracekitError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator
    from types import FrameType

    from tracekit.view.server import HttpServer
    from tracekit.view.store import Store

_LOOPBACK: Final = "127.0.0.1"
_LOOPBACK_6: Final = "::1"
_HTTP_PORT: Final = 4318
_GRPC_PORT: Final = 4317
_MAX_SPANS: Final = 50_000
_MAX_PORT: Final = 65_535
_POLL_S: Final = 0.1

_DESCRIPTION: Final = """\
Receive traces from any OpenTelemetry SDK over OTLP (HTTP and gRPC), keep the newest in SQLite and show them, as they
come, on a page in the browser. For one developer on one machine; Jaeger and Tempo are for teams.
"""
_EPILOG: Final = """\
examples:
  tracekit serve                       ports 4318 (HTTP, and the page) and 4317 (gRPC), kept in memory
  tracekit serve --db traces.db        kept in a file, from one start to the next
  tracekit serve --port 0 --no-grpc    any free port, HTTP only

then, in another terminal:
  export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
  python app.py                        with tracekit.configure(), or any other OpenTelemetry SDK
"""
_NEEDED: Final = ("grpc", "google.rpc.status_pb2", "opentelemetry.proto.collector.trace.v1.trace_service_pb2")


class ServeError(TracekitError):
    """The receiver cannot do what the arguments ask for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command is and takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.add_argument(
        "--port", type=int, default=_HTTP_PORT, help="for OTLP/HTTP and the page (default 4318; 0: a free one)"
    )
    parser.add_argument("--grpc-port", type=int, default=_GRPC_PORT, help="for OTLP/gRPC (default 4317; 0: a free one)")
    parser.add_argument("--no-grpc", action="store_true", help="OTLP/HTTP only")
    parser.add_argument(
        "--db", metavar="FILE", type=Path, help="keep the spans in this SQLite file (default: in memory)"
    )
    parser.add_argument(
        "--max-spans",
        metavar="N",
        type=int,
        default=_MAX_SPANS,
        help="keep so many; the oldest traces leave (default 50000)",
    )
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default=_LOOPBACK,
        help="listen there; other machines than this one can read and write the traces then",
    )
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="answer requests that call this machine NAME (may be repeated)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """
    Receive until Ctrl-C or SIGTERM and return the exit status.

    Raises:
        ServeError: A port is taken, or an argument is wrong.
    """
    _check(arguments)
    from tracekit.view.grpc import GrpcServer
    from tracekit.view.server import is_loopback
    from tracekit.view.store import Store

    with ExitStack() as stack, _told_to_stop() as stop:
        store = Store(arguments.db, max_spans=arguments.max_spans)
        stack.callback(store.close)
        servers = _http_servers(arguments, store)
        for server in servers:
            stack.callback(server.server_close)
        grpc_port = None
        if not arguments.no_grpc:
            try:
                grpc_server = GrpcServer(store, [server.host for server in servers], arguments.grpc_port)
            except TracekitError as error:
                raise _port_is_taken(arguments.grpc_port, "--grpc-port") from error
            stack.callback(grpc_server.close)
            grpc_port = grpc_server.port
        for server in servers:
            thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        if not is_loopback(arguments.host):
            print(
                f"warning: whoever can reach {arguments.host} can read these traces and add to them",
                file=sys.stderr,
            )
        _say_where(arguments, servers[0].port, grpc_port)
        # Not for ever: Windows would not hear Ctrl-C.
        while not stop.wait(1):
            pass
        spans, traces = store.counts
        where = arguments.db or "memory"
        print(f"\nStopped with {_count(spans, 'span')} of {_count(traces, 'trace')} in {where}.")
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _check(arguments: argparse.Namespace) -> None:
    missing: list[str] = []
    for name in _NEEDED:
        try:
            import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        msg = f"pip install 'tracekit[otlp]' first (missing: {', '.join(missing)})"
        raise ConfigurationError(msg)
    for option, port in (("--port", arguments.port), ("--grpc-port", arguments.grpc_port)):
        if not 0 <= port <= _MAX_PORT:
            msg = f"{option} {port} is no port; write a number from 0 (any free one) to {_MAX_PORT}"
            raise ServeError(msg)
    if arguments.max_spans < 1:
        msg = f"--max-spans {arguments.max_spans} would keep nothing; write a number from 1"
        raise ServeError(msg)


def _http_servers(arguments: argparse.Namespace, store: Store) -> list[HttpServer]:
    from tracekit.view.server import HttpServer

    names, max_spans = (arguments.host, *arguments.allow_host), arguments.max_spans
    try:
        servers = [HttpServer(store, arguments.host, arguments.port, names=names, max_spans=max_spans)]
    except OSError as error:
        if arguments.port:
            raise _port_is_taken(arguments.port, "--port", error) from error
        msg = f"cannot listen on {arguments.host}: {error.strerror or error}"
        raise ServeError(msg) from error
    if arguments.host == _LOOPBACK:
        # SDKs send to `localhost` unless told, which may mean this one; a machine without it needs none.
        with suppress(OSError):
            servers.append(HttpServer(store, _LOOPBACK_6, servers[0].port, names=names, max_spans=max_spans))
    return servers


def _port_is_taken(port: int, option: str, error: OSError | None = None) -> ServeError:
    reason = f" ({error.strerror})" if error is not None and error.strerror else ""
    return ServeError(
        f"cannot listen on port {port}{reason}: another collector may run there; write {option} 0 for a free port"
    )


def _say_where(arguments: argparse.Namespace, port: int, grpc_port: int | None) -> None:
    host = arguments.host if arguments.host not in {"0.0.0.0", "::"} else _LOOPBACK  # noqa: S104  # compared
    host = f"[{host}]" if ":" in host else host
    http = f"http://{host}:{port}"
    lines = [f"traces     {http}/", f"OTLP/HTTP  {http}"]
    if grpc_port is not None:
        # At another port nothing tells a sender that it is gRPC's.
        hint = "" if grpc_port == _GRPC_PORT else "  (with OTEL_EXPORTER_OTLP_PROTOCOL=grpc)"
        lines.append(f"OTLP/gRPC  http://{host}:{grpc_port}{hint}")
    kept = f"in {arguments.db}" if arguments.db else "in memory (--db FILE keeps them)"
    lines += [
        "",
        f"export OTEL_EXPORTER_OTLP_ENDPOINT={http}",
        "export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        "",
        f"The newest {arguments.max_spans:,} spans are kept {kept}. Ctrl-C stops.",
    ]
    print("\n".join(lines), flush=True)


@contextmanager
def _told_to_stop() -> Generator[threading.Event, None, None]:
    """Give what is set when the process is told to stop, by Ctrl-C or SIGTERM."""
    stop = threading.Event()

    def tell(_signum: int, _frame: FrameType | None) -> None:
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, tell) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)
