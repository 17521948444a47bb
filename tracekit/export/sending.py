"""Sending spans over OTLP by the official exporters. Nothing else imports them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, TypeGuard, cast, final

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tracekit._environment import Environment, wrong_variable
from tracekit._fork import in_forked_child
from tracekit.errors import ConfigurationError
from tracekit.export.endpoint import GRPC, Endpoint, resolve_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

DEFAULT_TIMEOUT_S: Final = 10.0

_COMPRESSIONS: Final = ("gzip", "none")
_PREFIXES: Final = ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_")
_FILES: Final = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
# A token of RFC 9110; gRPC sends metadata keys in lower case only.
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


@final
class OtlpExporter(SpanExporter):
    """
    An official exporter that is made with the first batch, and once more in a forked child.

    Connections and their threads do not survive a fork, so none is made before it is needed.

    Args:
        endpoint: Where it sends to.
        make: Makes the official exporter.
    """

    def __init__(self, endpoint: Endpoint, make: Callable[[], SpanExporter]) -> None:
        self.endpoint: Final = endpoint
        self._make: Final = make
        self._official: SpanExporter | None = None
        self._of_parent: list[SpanExporter] = []
        self._is_closed = False
        in_forked_child(self._leave_to_parent)

    def _leave_to_parent(self) -> None:
        if self._official is not None:
            # Kept: its finalizer would close, in this process, a connection that the parent uses.
            self._of_parent.append(self._official)
            self._official = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send *spans*."""
        if self._is_closed:
            return SpanExportResult.FAILURE
        if self._official is None:
            self._official = self._make()
        return self._official.export(spans)

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
    variables = variables or Environment()
    place = resolve_endpoint(variables, endpoint=endpoint, protocol=protocol, insecure=insecure)
    sent = {**place.headers, **_headers_of(variables), **_checked_headers(headers)}
    compressed = _compression(compression, variables)
    limit_s = _timeout_s(timeout_s, variables)
    if not place.insecure:
        _check_files(variables)
    build = _grpc_exporter if place.protocol == GRPC else _http_exporter
    try:
        return OtlpExporter(place, build(place, sent, compressed, limit_s))
    except ImportError as error:
        msg = "OTLP export needs: pip install 'tracekit[otlp]'"
        raise ConfigurationError(msg) from error


# Both import here and now: a program that configures is not on its way out, where imports fail.
def _grpc_exporter(
    place: Endpoint, headers: Mapping[str, str], compression: str, timeout_s: float
) -> Callable[[], SpanExporter]:
    import grpc  # type: ignore[import-untyped]  # comes without stubs
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return partial(
        OTLPSpanExporter,
        endpoint=place.url,
        insecure=place.insecure,
        headers=dict(headers),
        timeout=timeout_s,
        compression=grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression,
    )


def _http_exporter(
    place: Endpoint, headers: Mapping[str, str], compression: str, timeout_s: float
) -> Callable[[], SpanExporter]:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return partial(
        OTLPSpanExporter,
        endpoint=place.url,
        headers=dict(headers),
        timeout=timeout_s,
        compression=Compression.Gzip if compression == "gzip" else Compression.NoCompression,
    )


def _headers_of(variables: Environment) -> dict[str, str]:
    for name in _names("HEADERS"):
        pairs = variables.pairs(name)
        if pairs is not None:
            headers = {key.lower(): value for key, value in pairs.items()}
            if not all(_is_header(value, key) for key, value in headers.items()):
                raise wrong_variable(name, "...", "names and values that HTTP can send")
            return headers
    return {}


def _checked_headers(headers: object) -> dict[str, str]:
    if headers is None:
        return {}
    expected = 'expected a mapping of names to values that HTTP can send. Write headers={"x-api-key": "..."}.'
    if not isinstance(headers, Mapping):
        msg = f"headers of type {type(headers).__name__}: {expected}"
        raise ConfigurationError(msg)
    checked: dict[str, str] = {}
    for key, value in cast("Mapping[object, object]", headers).items():
        if isinstance(key, str) and _is_header(value, key.lower()):
            checked[key.lower()] = value
        else:
            # The value may be a secret: only the name is shown.
            msg = f"headers[{key!r:.100}]: {expected}"
            raise ConfigurationError(msg)
    return checked


def _is_header(value: object, name: str) -> TypeGuard[str]:
    """Tell whether *value* can be sent under *name*."""
    is_text = isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip()
    return is_text and _HEADER_NAME.fullmatch(name) is not None


def _compression(given: object, variables: Environment) -> str:
    if given is None:
        return next(filter(None, (variables.choice(name, _COMPRESSIONS) for name in _names("COMPRESSION"))), "none")
    if given in _COMPRESSIONS:
        return str(given)
    msg = f'compression={given!r:.100}: expected "gzip" or "none". Write compression="gzip".'
    raise ConfigurationError(msg)


def _timeout_s(given: object, variables: Environment) -> float:
    if given is None:
        for name in _names("TIMEOUT"):
            # Milliseconds by the specification, which the official exporters take for seconds.
            time_ms = variables.integer(name, minimum=1)
            if time_ms is not None:
                return time_ms / 1000
        return DEFAULT_TIMEOUT_S
    if isinstance(given, (int, float)) and not isinstance(given, bool) and 0 < given < float("inf"):
        return float(given)
    msg = f"timeout_s={given!r:.100}: expected seconds, more than 0. Write timeout_s=10."
    raise ConfigurationError(msg)


def _check_files(variables: Environment) -> None:
    for what in _FILES:
        for name in _names(what):
            path = variables.text(name)
            if path is not None and not (os.path.isfile(path) and os.access(path, os.R_OK)):  # noqa: PTH113  # a str
                raise wrong_variable(name, path, "the path of a PEM file that can be read")


def _names(what: str) -> tuple[str, str]:
    """Return the variables that say *what*, the one for traces first."""
    own, shared = _PREFIXES
    return own + what, shared + what
