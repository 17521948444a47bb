"""How to reach an OTLP receiver: its endpoint, the way there, and what goes along with each request."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeGuard, cast, final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from tracekit._environment import Environment, wrong_variable
from tracekit.errors import ConfigurationError
from tracekit.export.endpoint import Endpoint, resolve_endpoint, variables_of

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from tracekit.export.endpoint import Signal

DEFAULT_TIMEOUT_S: Final = 10.0

_COMPRESSIONS: Final = ("gzip", "none")
# A token of RFC 9110; gRPC sends metadata keys in lower case only.
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


@final
@dataclass(frozen=True, slots=True)
class TlsFiles:
    """
    PEM files.

    Args:
        certificate: Of the authorities that are trusted (None: the system's, and those of `certifi`).
        client_key: What this end shows itself by,
        client_certificate: and the certificate for it.
    """

    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; *user_info* is user name and password with a colon between."""

    url: str
    user_info: str | None = field(default=None, repr=False)


@final
@dataclass(frozen=True, slots=True)
class Connection:
    """
    How to reach a receiver.

    Args:
        endpoint: Where it is.
        headers: Sent with each request, names in lower case.
        compression: "gzip" or "none".
        timeout_s: Longest time for one request, in seconds.
        tls: What certificates are checked by and shown.
        proxy: What requests go through.
    """

    endpoint: Endpoint
    headers: Mapping[str, str] = field(repr=False)
    compression: str
    timeout_s: float
    tls: TlsFiles = field(default_factory=TlsFiles)
    proxy: Proxy | None = None

    def tls_context(self) -> ssl.SSLContext | None:
        """
        Return what certificates are checked by; None without TLS.

        Raises:
            ConfigurationError: If one of the files holds something else.
        """
        if self.endpoint.insecure:
            return None
        files = self.tls
        # As with `requests`, which other exporters use, for networks with an authority of their own.
        trusted = files.certificate or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        try:
            context = ssl.create_default_context(cafile=trusted)
            if trusted is None:
                _trust_certifi(context)
            if files.client_certificate is not None:
                # Never asked for at the terminal: a key with a passphrase is an error.
                context.load_cert_chain(files.client_certificate, files.client_key, password="")
        except OSError as error:  # SSLError is one
            msg = (
                "the TLS files of OTEL_EXPORTER_OTLP_CERTIFICATE, ..._CLIENT_CERTIFICATE and ..._CLIENT_KEY could not "
                f"be read ({error.strerror or type(error).__name__}): expected PEM files, and a key that fits. Set "
                "them so, or unset them."
            )
            raise ConfigurationError(msg) from error
        return context


def _trust_certifi(context: ssl.SSLContext) -> None:
    """Trust the well-known authorities where the system has none: small containers."""
    try:
        import certifi
    except ImportError:
        return
    context.load_verify_locations(certifi.where())


def resolve_connection(
    variables: Environment,
    signal: Signal,
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    insecure: bool | None = None,
    headers: Mapping[str, str] | None = None,
    compression: str | None = None,
    timeout_s: float | None = None,
) -> Connection:
    """
    Return how to reach the receiver of *signal*; what is not given comes from the environment.

    Args:
        variables: Where `OTEL_EXPORTER_OTLP_*` are read.
        signal: What it receives.
        endpoint: URL, host or host and port of the receiver.
        protocol: "grpc" or "http/protobuf".
        insecure: Whether to do without TLS.
        headers: Sent with each request, besides those of the environment.
        compression: "gzip" or "none".
        timeout_s: Longest time for one request, in seconds.

    Raises:
        ConfigurationError: If an argument or a variable cannot be right.

    Source: OpenTelemetry specification, protocol/exporter.
    """
    place = resolve_endpoint(variables, endpoint=endpoint, protocol=protocol, insecure=insecure, signal=signal)
    sent = {**place.headers, **_headers_of(signal, variables), **_checked_headers(headers)}
    compressed = _compression(compression, signal, variables)
    limit_s = _timeout_s(timeout_s, signal, variables)
    files = TlsFiles() if place.insecure else _tls_files(signal, variables)
    return Connection(place, sent, compressed, limit_s, files, _proxy_for(place))


def check_arguments(
    *,
    endpoint: str | None,
    protocol: str | None,
    insecure: bool | None,
    headers: object,
    compression: object,
    timeout_s: object,
) -> None:
    """
    Check arguments that nothing is sent by: without the variables, which may be wrong where nothing reads them.

    Raises:
        ConfigurationError: If one can never be right.
    """
    none = Environment({})
    resolve_endpoint(none, endpoint=endpoint, protocol=protocol, insecure=insecure, signal="traces")
    _checked_headers(headers)
    _compression(compression, "traces", none)
    _timeout_s(timeout_s, "traces", none)


def _headers_of(signal: Signal, variables: Environment) -> dict[str, str]:
    for name in variables_of(signal, "HEADERS"):
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


def _compression(given: object, signal: Signal, variables: Environment) -> str:
    if given is None:
        own, shared = variables_of(signal, "COMPRESSION")
        return variables.choice(own, _COMPRESSIONS) or variables.choice(shared, _COMPRESSIONS) or "none"
    if given in _COMPRESSIONS:
        return str(given)
    msg = f'compression={given!r:.100}: expected "gzip" or "none". Write compression="gzip".'
    raise ConfigurationError(msg)


def _timeout_s(given: object, signal: Signal, variables: Environment) -> float:
    if given is None:
        for name in variables_of(signal, "TIMEOUT"):
            # Milliseconds by the specification, which the official exporters take for seconds.
            time_ms = variables.integer(name, minimum=1)
            if time_ms is not None:
                return time_ms / 1000
        return DEFAULT_TIMEOUT_S
    if isinstance(given, (int, float)) and not isinstance(given, bool) and 0 < given < float("inf"):
        return float(given)
    msg = f"timeout_s={given!r:.100}: expected seconds, more than 0. Write timeout_s=10."
    raise ConfigurationError(msg)


def _tls_files(signal: Signal, variables: Environment) -> TlsFiles:
    def path_of(what: str) -> str | None:
        for name in variables_of(signal, what):
            path = variables.text(name)
            if path is None:
                continue
            if not (os.path.isfile(path) and os.access(path, os.R_OK)):  # noqa: PTH113  # a str
                raise wrong_variable(name, path, "the path of a PEM file that can be read")
            return path
        return None

    files = TlsFiles(path_of("CERTIFICATE"), path_of("CLIENT_KEY"), path_of("CLIENT_CERTIFICATE"))
    if files.client_key is not None and files.client_certificate is None:
        # gRPC would abort the process.
        own, _ = variables_of(signal, "CLIENT_KEY")
        raise wrong_variable(own, files.client_key, "none without OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
    return files


def _proxy_for(place: Endpoint) -> Proxy | None:
    """Return the proxy that `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` ask for, in either case."""
    parts = urlsplit(place.url)
    if parts.scheme not in ("http", "https") or proxy_bypass(parts.netloc) or proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    url = proxies.get(parts.scheme) or proxies.get("all")
    if not url:
        return None
    proxy = urlsplit(url if "://" in url else f"http://{url}")
    if proxy.scheme not in ("http", "https") or not proxy.hostname or not _has_possible_port(proxy):
        expected = "expected http://host:port. Set it so, or set NO_PROXY."
        msg = f"the proxy for {parts.scheme} ({proxy.scheme}://...): {expected}"
        raise ConfigurationError(msg)
    user_info, at, address = proxy.netloc.rpartition("@")
    return Proxy(f"{proxy.scheme}://{address}", unquote(user_info) if at else None)


def _has_possible_port(url: SplitResult) -> bool:
    try:
        return url.port != 0
    except ValueError:
        return False
