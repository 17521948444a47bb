"""Where an OTLP receiver is, from what people write: URLs, hosts, ports, with a protocol said or implied."""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final
from urllib.parse import unquote, urlsplit

from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracekit._environment import Environment

Protocol: TypeAlias = Literal["grpc", "http/protobuf"]
Signal: TypeAlias = Literal["traces", "metrics"]

GRPC: Final = "grpc"
HTTP: Final = "http/protobuf"
PROTOCOLS: Final[tuple[Protocol, ...]] = (GRPC, HTTP)

_PORTS: Final[Mapping[Protocol, int]] = {GRPC: 4317, HTTP: 4318}
_PROTOCOL_OF_PORT: Final[Mapping[int | None, Protocol]] = {port: protocol for protocol, port in _PORTS.items()}
_TLS_PORT: Final = 443

# Targets that gRPC's own name resolvers read; the official exporter would take what follows "//" for a host.
_GRPC_TARGET: Final = re.compile(r"(unix|unix-abstract|ipv4|ipv6):(?!//[^/])\S+|(unix|dns):///\S+")
_HOST_NAME: Final = re.compile(r"[^\W_](?:[\w.-]*\w)?\.?")
# What may hold a password or key where an endpoint is shown.
_SECRETS: Final = re.compile(r".*(?=@)|(?<=\?).*", re.DOTALL)
_EXAMPLE: Final = "http://localhost:4317"

# The path of each signal.
_PATHS: Final[Mapping[Signal, str]] = {"traces": "/v1/traces", "metrics": "/v1/metrics"}


@final
@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    An OTLP receiver.

    Args:
        protocol: "grpc" or "http/protobuf".
        url: For HTTP the URL to post to; for gRPC scheme, host and port, or a target of gRPC's own.
        insecure: Whether it is spoken to without TLS.
        headers: What the user name and password in the URL amount to; kept out of `url`, which may be shown.
    """

    protocol: Protocol
    url: str
    insecure: bool
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


def variables_of(signal: Signal, what: str) -> tuple[str, str]:
    """Return the variables that say *what*, the one for *signal* alone first."""
    return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}", f"OTEL_EXPORTER_OTLP_{what}"


def resolve_endpoint(
    variables: Environment,
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    insecure: bool | None = None,
    signal: Signal = "traces",
) -> Endpoint:
    """
    Return the receiver that the arguments and, where they say nothing, the environment ask for.

    The protocol is the one given; else that of the port (4317 gRPC, 4318 HTTP); else gRPC for a target of gRPC's own;
    else HTTP. Without a scheme the connection is plain, unless the port is 443 or *insecure* is False. Without a port
    it is the protocol's own; a URL from the environment, with `https` or with a path has the port its scheme implies.
    Over HTTP the path is completed to end in `/v1/` and the signal, but the signal's own variable is used as it is.

    Args:
        variables: Where `OTEL_EXPORTER_OTLP_*` are read.
        endpoint: URL, host or host and port of the receiver.
        protocol: "grpc" or "http/protobuf".
        insecure: Whether to do without TLS.
        signal: What it receives.

    Raises:
        ConfigurationError: If something cannot be read, or two things contradict each other.

    Source: OpenTelemetry specification, protocol/exporter.
    """
    source, text = _chosen(endpoint, signal, variables)
    wanted = _wanted_protocol(protocol, signal, variables)
    if insecure is not None and not isinstance(insecure, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _wrong(insecure, "insecure", "True, False or None", "insecure=True")
    if _GRPC_TARGET.fullmatch(text):
        if wanted == HTTP:
            raise _wrong(text, source, "a URL, because the protocol is http/protobuf", 'protocol="grpc"')
        return Endpoint(GRPC, text, insecure=_is_plain(variables, signal, insecure=insecure, default=True))
    place = _parse(source, text)
    of_port = _PROTOCOL_OF_PORT.get(place.port)
    if wanted and of_port and wanted != of_port:
        raise _wrong(
            text,
            source,
            f"another port: {place.port} is the port of {of_port}, but the protocol is {wanted}",
            f'port {_PORTS[wanted]}, or protocol="{of_port}"',
        )
    chosen = wanted or of_port or HTTP
    is_plain = (
        place.scheme != "https"
        if place.scheme
        else _is_plain(variables, signal, insecure=insecure, default=place.port != _TLS_PORT)
    )
    if insecure is not None and insecure is not is_plain:
        raise _wrong(
            text, source, f"{'http' if insecure else 'https'}, because insecure={insecure}", "either, without the other"
        )
    read = _grpc_url if chosen == GRPC else _http_url
    return Endpoint(chosen, read(place, source, text, signal, is_plain=is_plain), is_plain, _authorization(place))


@final
@dataclass(frozen=True, slots=True)
class _Place:
    """The parts of a URL, each checked; *scheme* is empty and *port* None where none was written."""

    scheme: str
    user_info: tuple[str, str] | None
    host: str
    port: int | None
    path: str
    query: str

    def address(self, default_port: int | None) -> str:
        port = self.port or default_port
        return self.host if port is None else f"{self.host}:{port}"


def _chosen(endpoint: object, signal: Signal, variables: Environment) -> tuple[str, str]:
    """Return what names the endpoint, and the endpoint."""
    if endpoint is not None:
        if not isinstance(endpoint, str):
            raise _wrong(endpoint, "endpoint", "a string", f'endpoint="{_EXAMPLE}"')
        return "endpoint", endpoint
    for source in variables_of(signal, "ENDPOINT"):
        text = variables.text(source)
        if text is not None:
            return source, text
    return "endpoint", "localhost"


def _wanted_protocol(protocol: object, signal: Signal, variables: Environment) -> Protocol | None:
    if protocol is None:
        own, shared = variables_of(signal, "PROTOCOL")
        protocol = variables.choice(own, PROTOCOLS) or variables.choice(shared, PROTOCOLS)
    for known in PROTOCOLS:
        if protocol == known:
            return known
    if protocol is None:
        return None
    raise _wrong(protocol, "protocol", "grpc or http/protobuf", 'protocol="grpc"')


def _is_plain(variables: Environment, signal: Signal, *, insecure: bool | None, default: bool) -> bool:
    own, shared = variables_of(signal, "INSECURE")
    for answer in (insecure, variables.boolean(own), variables.boolean(shared)):
        if answer is not None:
            return answer
    return default


def _parse(source: str, text: str) -> _Place:
    expected = "host, host:port or a URL with http or https"
    if not text.isprintable() or any(map(str.isspace, text)):
        raise _wrong(text, source, f"{expected}, without white space")
    scheme, has_scheme, _ = text.partition("://")
    if has_scheme and scheme.lower() not in ("http", "https"):
        raise _wrong(text, source, f"{expected}; the scheme {scheme!r} is not known")
    try:
        parts = urlsplit(text if has_scheme else f"//{_bracketed(text)}")
        port = parts.port
    except ValueError:
        # From None: the reason may quote a part of the password.
        raise _wrong(text, source, f"{expected}, with a port from 1 to 65535") from None
    host = parts.hostname or ""
    if not _is_host(host) or (not has_scheme and host in ("http", "https")):
        raise _wrong(text, source, f"{expected}; no host is named")
    if port == 0 or parts.fragment:
        raise _wrong(text, source, f"{expected}, with a port from 1 to 65535 and without '#'")
    return _Place(
        scheme=parts.scheme,
        user_info=None if parts.username is None else (unquote(parts.username), unquote(parts.password or "")),
        host=_bracketed(host),
        port=port,
        path=parts.path,
        query=parts.query,
    )


def _bracketed(host: str) -> str:
    try:
        return f"[{ipaddress.IPv6Address(host)}]"
    except ValueError:
        return host


def _is_host(host: str) -> bool:
    return bool(_HOST_NAME.fullmatch(host) and not host.isdecimal()) or _bracketed(host) != host


def _grpc_url(place: _Place, source: str, text: str, signal: Signal, *, is_plain: bool) -> str:  # noqa: ARG001  # twin of _http_url
    if place.path.rstrip("/") not in ("", *_PATHS.values()) or place.query:
        raise _wrong(text, source, "no path, because gRPC has none", f'{_EXAMPLE}, or protocol="http/protobuf"')
    port = _TLS_PORT if place.scheme == "https" else _PORTS[GRPC]
    return f"{'http' if is_plain else 'https'}://{place.address(port)}"


def _http_url(place: _Place, source: str, text: str, signal: Signal, *, is_plain: bool) -> str:  # noqa: ARG001  # twin of _grpc_url
    own_variable, _ = variables_of(signal, "ENDPOINT")
    path = place.path.rstrip("/")
    for other in _PATHS.values():
        path = path.removesuffix(other)
    has_prefix = bool(path)
    is_complete = bool(place.scheme) and source == own_variable
    path = (place.path or "/") if is_complete else path + _PATHS[signal]
    # A URL from the environment is read by the specification. In an argument, http without a port or path is a host.
    is_url = place.scheme == "https" or (place.scheme and (source != "endpoint" or has_prefix))
    address = place.address(None if is_url else _PORTS[HTTP])
    query = f"?{place.query}" if place.query else ""
    return f"{'http' if is_plain else 'https'}://{address}{path}{query}"


def _authorization(place: _Place) -> Mapping[str, str]:
    if place.user_info is None:
        return MappingProxyType({})
    credentials = b64encode(":".join(place.user_info).encode()).decode("ascii")
    return MappingProxyType({"authorization": f"Basic {credentials}"})


def _wrong(given: object, source: str, expected: str, write: str = _EXAMPLE) -> ConfigurationError:
    shown = _SECRETS.sub("[redacted]", given) if isinstance(given, str) else given
    msg = f"{source}={shown!r:.200}: expected {expected}. Write {write}."
    return ConfigurationError(msg)
