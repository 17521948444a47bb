"""Sending spans, and metrics, to an OTLP receiver."""

from __future__ import annotations

import math
import time
from collections import Counter
from functools import partial
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, final

from tracekit._environment import Environment
from tracekit.errors import ConfigurationError
from tracekit.export.accountable import AccountableExporter, Outcome
from tracekit.export.answer import Refused, Taken, TooLarge, Unavailable
from tracekit.export.backlog import Backlog
from tracekit.export.connection import resolve_connection
from tracekit.export.endpoint import GRPC
from tracekit.export.otlp import chunks
from tracekit.export.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace import ReadableSpan

    from tracekit.export.connection import Connection
    from tracekit.export.endpoint import Endpoint
    from tracekit.export.otlp import Request
    from tracekit.export.sender import Transport
    from tracekit.export.spool import Spool

# A receiver that is away for longer has lost a batch, where there is no spool. Others wait for it in the queue.
PATIENCE_S: Final = 300.0


@final
class OtlpExporter(AccountableExporter):
    """
    Sends spans to one receiver.

    What the receiver cannot take now is sent again for five minutes; with a spool it goes there, as does all that
    comes while the receiver is away.

    Args:
        endpoint: Where it sends to.
        sender: Sends requests there.
        spool: Where what cannot be sent is kept; its owner puts it there.
    """

    def __init__(self, endpoint: Endpoint, sender: Sender, spool: Spool | None = None) -> None:
        self.endpoint: Final = endpoint
        self.spool: Final = spool
        self._sender: Final = sender
        self._backlog: Final = None if spool is None else Backlog(spool, sender)
        self._leaves_at_s: float | None = None
        self._is_closed = False

    def start(self) -> None:
        """Send what earlier processes could not."""
        if self._backlog is not None:
            self._backlog.start()

    def export_accountably(self, spans: Sequence[ReadableSpan]) -> Outcome:
        """Send *spans*, in several requests if they are too many bytes for one."""
        if self._is_closed:
            return Outcome({"export_failed": len(spans)})
        self.start()
        lost: Counter[str] = Counter()
        unsent: list[Request] = []
        for request in chunks(spans, on_unencodable=lambda: lost.update(unencodable=1)):
            self._send(request, lost, unsent)
        return Outcome(+lost, unsent)

    def _send(self, request: Request, lost: Counter[str], unsent: list[Request]) -> None:
        left_s = math.inf if self._leaves_at_s is None else max(0.0, self._leaves_at_s - time.monotonic())
        if self.spool is None:
            answer = self._sender.send(request.body, min(PATIENCE_S, left_s))
        elif self._sender.is_down or (self._leaves_at_s is not None and self._sender.was_down):
            unsent.append(request)
            return
        else:
            answer = self._sender.send(request.body, min(self._sender.timeout_s, left_s))
        match answer:
            case Taken():
                lost["rejected"] += min(answer.rejected, request.spans)
            case TooLarge() if halves := request.halves():
                for half in halves:
                    self._send(half, lost, unsent)
            case TooLarge():
                lost["too_large"] += request.spans
            case Unavailable() if self.spool is not None:
                unsent.append(request)
            case Refused() | Unavailable():
                lost["export_failed"] += request.spans

    def hurry(self, *, within_s: float, is_last: bool) -> None:
        """Try again now what waits for a better moment, and leave it to the spool; before the end, give up in time."""
        if is_last:
            self._leaves_at_s = time.monotonic() + within_s
        if self.spool is None:
            self._sender.hurry()
        else:
            self._sender.lose_patience(within_s)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002  # the SDK's signature
        """Return True: nothing is kept here."""
        return True

    def shutdown(self) -> None:
        """Close the connections and stop sending."""
        self._is_closed = True
        if self._backlog is not None:
            self._backlog.stop()
        self._sender.close()

    def __repr__(self) -> str:
        return f"OtlpExporter({self.endpoint.url.partition('?')[0]!r}, {self.endpoint.protocol!r})"


def otlp_exporter(
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    insecure: bool | None = None,
    headers: Mapping[str, str] | None = None,
    compression: str | None = None,
    timeout_s: float | None = None,
    variables: Environment | None = None,
    make_spool: Callable[[str], Spool] | None = None,
) -> OtlpExporter:
    """
    Return an exporter that sends over OTLP; what is not given comes from the environment.

    The certificate variables (`OTEL_EXPORTER_OTLP_CERTIFICATE`, `..._CLIENT_KEY`, `..._CLIENT_CERTIFICATE`) hold too.

    Args:
        endpoint: URL, host or host and port of the receiver.
        protocol: "grpc" or "http/protobuf".
        insecure: Whether to do without TLS.
        headers: Sent with each request, besides those of the environment.
        compression: "gzip" or "none".
        timeout_s: Longest time for one request, in seconds.
        variables: Read instead of the process's own environment.
        make_spool: Makes, for the destination it is told, what keeps batches that cannot be sent.

    Raises:
        ConfigurationError: If an argument or a variable cannot be right, or the extra is missing.

    Source: OpenTelemetry specification, protocol/exporter.
    """
    connection = resolve_connection(
        variables or Environment(),
        "traces",
        endpoint=endpoint,
        protocol=protocol,
        insecure=insecure,
        headers=headers,
        compression=compression,
        timeout_s=timeout_s,
    )
    try:
        make = _transport(connection)
    except ImportError as error:
        raise _missing_extra() from error
    place = connection.endpoint
    spool = None if make_spool is None else make_spool(_destination(connection))
    kept_in = None if spool is None else str(spool.database.path.parent)
    sender = Sender(place.url.partition("?")[0], make, connection.timeout_s, kept_in)
    return OtlpExporter(place, sender, spool)


def otlp_metric_exporter(connection: Connection) -> Callable[[], MetricExporter]:
    """
    Return what makes an exporter that sends metrics over *connection*.

    Raises:
        ConfigurationError: If the extra is missing.
    """
    try:
        return _metric_exporter(connection)
    except ImportError as error:
        raise _missing_extra() from error


def _missing_extra() -> ConfigurationError:
    return ConfigurationError("OTLP export needs: pip install 'tracekit[otlp]'")


# These import here and now: a program that configures is not on its way out, where imports fail.
def _transport(connection: Connection) -> Callable[[], Transport]:
    tls = connection.tls_context()
    # Answers are read by it.
    import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    if connection.endpoint.protocol == GRPC:
        from tracekit.export.grpc import GrpcTransport

        return partial(GrpcTransport, connection)
    from tracekit.export.http import HttpTransport

    return partial(HttpTransport, connection, tls)


def _destination(connection: Connection) -> str:
    """Return what tells receivers apart, and those to whom different headers show different senders."""
    told = repr((connection.endpoint.url, sorted(connection.headers.items())))
    return sha256(told.encode()).hexdigest()


def _metric_exporter(connection: Connection) -> Callable[[], MetricExporter]:
    if connection.endpoint.protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

        return partial(GrpcExporter, **_grpc_options(connection))
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

    return partial(HttpExporter, **_http_options(connection))


def _grpc_options(connection: Connection) -> dict[str, Any]:
    import grpc  # type: ignore[import-untyped]  # comes without stubs

    compression = grpc.Compression
    return {
        "endpoint": connection.endpoint.url,
        "insecure": connection.endpoint.insecure,
        "headers": dict(connection.headers),
        "timeout": connection.timeout_s,
        "compression": compression.Gzip if connection.compression == "gzip" else compression.NoCompression,
    }


def _http_options(connection: Connection) -> dict[str, Any]:
    from opentelemetry.exporter.otlp.proto.http import Compression

    return {
        "endpoint": connection.endpoint.url,
        "headers": dict(connection.headers),
        "timeout": connection.timeout_s,
        "compression": Compression.Gzip if connection.compression == "gzip" else Compression.NoCompression,
    }
