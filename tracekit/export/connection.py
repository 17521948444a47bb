"""How to reach an OTLP receiver: its endpoint, and what goes along with each request."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeGuard, cast, final

from tracekit._environment import wrong_variable
from tracekit.errors import ConfigurationError
from tracekit.export.endpoint import Endpoint, resolve_endpoint, variables_of

if TYPE_CHECKING:
    from tracekit._environment import Environment
    from tracekit.export.endpoint import Signal

DEFAULT_TIMEOUT_S: Final = 10.0

_COMPRESSIONS: Final = ("gzip", "none")
_FILES: Final = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
# A token of RFC 9110; gRPC sends metadata keys in lower case only.
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


@final
@dataclass(frozen=True, slots=True)
class Connection:
    """
    How to reach a receiver.

    Args:
        endpoint: Where it is.
        headers: Sent with each request, names in lower case.
        compression: "gzip" or "none".
        timeout_s: Longest time for one request and its retries, in seconds.
    """

    endpoint: Endpoint
    headers: Mapping[str, str] = field(repr=False)
    compression: str
    timeout_s: float


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
        timeout_s: Longest time for one request and its retries, in seconds.

    Raises:
        ConfigurationError: If an argument or a variable cannot be right.

    Source: OpenTelemetry specification, protocol/exporter.
    """
    place = resolve_endpoint(variables, endpoint=endpoint, protocol=protocol, insecure=insecure, signal=signal)
    sent = {**place.headers, **_headers_of(signal, variables), **_checked_headers(headers)}
    compressed = _compression(compression, signal, variables)
    limit_s = _timeout_s(timeout_s, signal, variables)
    if not place.insecure:
        _check_files(signal, variables)
    return Connection(place, sent, compressed, limit_s)


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


def _check_files(signal: Signal, variables: Environment) -> None:
    for what in _FILES:
        for name in variables_of(signal, what):
            path = variables.text(name)
            if path is not None and not (os.path.isfile(path) and os.access(path, os.R_OK)):  # noqa: PTH113  # a str
                raise wrong_variable(name, path, "the path of a PEM file that can be read")
