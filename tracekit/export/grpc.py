"""One attempt over OTLP/gRPC: a call is made, and its status read as the protocol has it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import quote

import grpc  # type: ignore[import-untyped]  # comes without stubs

from tracekit._version import __version__
from tracekit.export.answer import Answer, Refused, TooLarge, Unavailable, shown, taken

if TYPE_CHECKING:
    from tracekit.export.connection import Connection

_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
# RESOURCE_EXHAUSTED is retryable only with a RetryInfo: "failure_handling" of the protocol.
_RETRYABLE: Final = ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")
# How gRPC in C and Go, in Java and in Rust say that a message is above their limit; they have no code for it.
_TOO_LARGE: Final = re.compile(r"larger than max|exceeds maximum size|message length too large", re.IGNORECASE)
# How gRPC says that the receiver answers in HTTP/1.
_NO_HTTP_2: Final = re.compile(r"parsing HTTP/2|http1\.x server", re.IGNORECASE)
_OPTIONS: Final = (
    # Refused connections are tried again by our own rules; gRPC would wait for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Connections of its own: those of other channels may be in a backoff of theirs.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", f"tracekit/{__version__}"),
)


@final
class GrpcTransport:
    """
    A channel to one receiver.

    Args:
        connection: How to reach it.

    Source: OTLP specification 1.5, OTLP/gRPC.
    """

    def __init__(self, connection: Connection) -> None:
        endpoint = connection.endpoint
        target = re.sub("^https?://", "", endpoint.url)
        gzip, plain = grpc.Compression.Gzip, grpc.Compression.NoCompression
        options: dict[str, Any] = {
            "compression": gzip if connection.compression == "gzip" else plain,
            "options": (*_OPTIONS, *_proxy_options(connection)),
        }
        self._channel: Final[Any] = (
            grpc.insecure_channel(target, **options)
            if endpoint.insecure
            else grpc.secure_channel(target, _credentials(connection), **options)
        )
        # No serializers: bytes go out and come back.
        self._export: Final[Any] = self._channel.unary_unary(_METHOD)
        # What ends so is binary to gRPC, which sends it in base64.
        self._metadata: Final = tuple(
            (name, value.encode() if name.endswith("-bin") else value) for name, value in connection.headers.items()
        )

    def send(self, body: bytes, timeout_s: float) -> Answer:
        """Call the receiver with *body* and return what it answers within *timeout_s*."""
        try:
            return taken(self._export(body, timeout=timeout_s, metadata=self._metadata))
        except grpc.RpcError as error:
            return _read(error)
        except ValueError:  # the channel was closed meanwhile
            return Unavailable("closed")

    def close(self) -> None:
        """Close the channel; calls under way fail."""
        self._channel.close()


def _credentials(connection: Connection) -> Any:
    def content(path: str | None) -> bytes | None:
        return None if path is None else Path(path).read_bytes()

    files = connection.tls
    # One without the other would abort the process.
    key = files.client_key or files.client_certificate
    return grpc.ssl_channel_credentials(content(files.certificate), content(key), content(files.client_certificate))


def _proxy_options(connection: Connection) -> tuple[tuple[str, Any], ...]:
    # gRPC reads the variables too, but only in lower case.
    proxy = connection.proxy
    if proxy is None:
        return (("grpc.enable_http_proxy", 0),)
    if proxy.user_info is None:
        return (("grpc.http_proxy", proxy.url),)
    name, _, password = proxy.user_info.partition(":")
    return (("grpc.http_proxy", proxy.url.replace("://", f"://{quote(name)}:{quote(password)}@")),)


def _read(error: Any) -> Answer:
    code: str = error.code().name
    details = shown(error.details() or "")
    if code == "UNAVAILABLE" and _NO_HTTP_2.search(details):
        details = 'it speaks no gRPC: write protocol="http/protobuf", or the port of gRPC'
    why = f"{code}: {details}" if details else code
    if code in ("RESOURCE_EXHAUSTED", "OUT_OF_RANGE") and _TOO_LARGE.search(details):
        return TooLarge(why)
    retry_after_s = _retry_after_s(error)
    if code in _RETRYABLE or (code == "RESOURCE_EXHAUSTED" and retry_after_s is not None):
        return Unavailable(why, retry_after_s)
    return Refused(why)


def _retry_after_s(error: Any) -> float | None:
    """Return the delay of a RetryInfo, among the details of the status or in metadata of its own."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # all come without types
    from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

    info = RetryInfo()
    for key, value in error.trailing_metadata() or ():
        try:
            if key == "google.rpc.retryinfo-bin":
                info = RetryInfo.FromString(value)
                return _seconds(info)
            if key == "grpc-status-details-bin":
                for detail in Status.FromString(value).details:
                    if detail.Unpack(info):
                        return _seconds(info)
        except DecodeError:
            continue
    return None


def _seconds(info: Any) -> float | None:
    if not info.HasField("retry_delay"):
        return None
    return max(0.0, float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9))
