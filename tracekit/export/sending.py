"""Sending spans and metrics over OTLP by the official exporters. Nothing but this and `official` imports them."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry.sdk.trace.export import SpanExportResult

from tracekit._environment import Environment
from tracekit._fork import in_forked_child
from tracekit.errors import ConfigurationError
from tracekit.export.accountable import AccountableExporter, export
from tracekit.export.connection import resolve_connection
from tracekit.export.endpoint import GRPC
from tracekit.export.official import grpc_exporter, http_exporter
from tracekit.export.otlp import chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from tracekit.export.connection import Connection
    from tracekit.export.endpoint import Endpoint


@final
class OtlpExporter(AccountableExporter):
    """
    An official exporter that is made with the first batch, and once more in a forked child.

    Connections and their threads do not survive a fork, so none is made before it is needed.

    Args:
        endpoint: Where it sends to.
        make: Makes the official exporter.
        takes_requests: Whether its `export` takes a `Request` in place of spans.
    """

    def __init__(self, endpoint: Endpoint, make: Callable[[], SpanExporter], *, takes_requests: bool) -> None:
        self.endpoint: Final = endpoint
        self._make: Final = make
        self._takes_requests: Final = takes_requests
        self._official: SpanExporter | None = None
        self._of_parent: list[SpanExporter] = []
        self._is_closed = False
        in_forked_child(self._leave_to_parent)

    def _leave_to_parent(self) -> None:
        if self._official is not None:
            # Kept: its finalizer would close, in this process, a connection that the parent uses.
            self._of_parent.append(self._official)
            self._official = None

    def export_accountably(self, spans: Sequence[ReadableSpan]) -> Mapping[str, int]:
        """Send *spans*, in several requests if they are too many bytes for one; return what was lost, by reason."""
        if self._is_closed:
            return {"export_failed": len(spans)}
        if self._official is None:
            self._official = self._make()
        if not self._takes_requests:
            return export(self._official, spans)
        lost: Counter[str] = Counter()
        for request in chunks(spans, on_unencodable=lambda: lost.update(unencodable=1)):
            # A request is to its exporter what spans are to others: something of a length that is encoded and sent.
            if self._official.export(cast("Any", request)) is SpanExportResult.FAILURE:
                lost["export_failed"] += request.spans
        return lost

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002  # the SDK's signature
        """Return True: nothing is kept here."""
        return True

    def shutdown(self) -> None:
        """Close the connection and stop retrying."""
        self._is_closed = True
        if self._official is not None:
            self._official.shutdown()

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
        timeout_s: Longest time for one batch and its retries, in seconds.
        variables: Read instead of the process's own environment.

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
        return _otlp_exporter(connection)
    except ImportError as error:
        raise _missing_extra() from error


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
def _otlp_exporter(connection: Connection) -> OtlpExporter:
    if connection.endpoint.protocol == GRPC:
        official, takes_requests = grpc_exporter()
        options = _grpc_options(connection)
    else:
        official, takes_requests = http_exporter()
        options = _http_options(connection)
    return OtlpExporter(connection.endpoint, partial(official, **options), takes_requests=takes_requests)


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
