"""Endpoints as people write them, and what becomes of them."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit._environment import Environment
from tracekit.errors import ConfigurationError
from tracekit.export.endpoint import GRPC, HTTP, Endpoint, resolve_endpoint


def resolve(endpoint: Any = None, *, env: dict[str, str] | None = None, **options: Any) -> Endpoint:
    return resolve_endpoint(Environment(env or {}), endpoint=endpoint, **options)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://jaeger:4317", "http://jaeger:4317"),
        ("http://jaeger:4317/", "http://jaeger:4317"),
        ("http://jaeger:4317/v1/traces", "http://jaeger:4317"),
        ("jaeger:4317", "http://jaeger:4317"),
        ("jaeger:4317/v1/traces/", "http://jaeger:4317"),
        ("https://jaeger:4317", "https://jaeger:4317"),
        ("HTTP://Jaeger:4317", "http://jaeger:4317"),
        ("[::1]:4317", "http://[::1]:4317"),
        ("http://[2001:db8::1]:4317", "http://[2001:db8::1]:4317"),
        ("my_service.internal:4317", "http://my_service.internal:4317"),
    ],
)
def test_port_4317_means_grpc(endpoint: str, url: str) -> None:
    assert resolve(endpoint) == Endpoint(GRPC, url, insecure=url.startswith("http://"))


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://jaeger:4318", "http://jaeger:4318/v1/traces"),
        ("http://jaeger:4318/", "http://jaeger:4318/v1/traces"),
        ("http://jaeger:4318/v1/traces", "http://jaeger:4318/v1/traces"),
        ("http://jaeger:4318/v1/traces/", "http://jaeger:4318/v1/traces"),
        ("jaeger:4318", "http://jaeger:4318/v1/traces"),
        ("jaeger", "http://jaeger:4318/v1/traces"),
        ("::1", "http://[::1]:4318/v1/traces"),
        ("http://jaeger", "http://jaeger:4318/v1/traces"),
        ("http://jaeger/v1/traces", "http://jaeger:4318/v1/traces"),
        ("http://ingress/otlp", "http://ingress/otlp/v1/traces"),
        ("http://ingress:8080/otlp/", "http://ingress:8080/otlp/v1/traces"),
        ("https://api.example.com", "https://api.example.com/v1/traces"),
        ("https://api.example.com/otlp/v1/traces?tenant=7", "https://api.example.com/otlp/v1/traces?tenant=7"),
        ("api.example.com:443", "https://api.example.com:443/v1/traces"),
    ],
)
def test_anything_else_means_http_to_the_traces_path(endpoint: str, url: str) -> None:
    assert resolve(endpoint) == Endpoint(HTTP, url, insecure=url.startswith("http://"))


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("jaeger", "http://jaeger:4317"),
        ("http://jaeger", "http://jaeger:4317"),
        ("https://api.example.com", "https://api.example.com:443"),
        ("api.example.com:443", "https://api.example.com:443"),
        ("http://jaeger:9000/v1/traces", "http://jaeger:9000"),
    ],
)
def test_a_given_protocol_fills_in_its_own_port(endpoint: str, url: str) -> None:
    assert resolve(endpoint, protocol="grpc").url == url


@pytest.mark.parametrize(
    "target", ["unix:/run/otel.sock", "unix:///run/otel.sock", "dns:///jaeger:4317", "ipv4:10.0.0.1:4317"]
)
def test_targets_of_grpc_go_to_grpc_as_they_are(target: str) -> None:
    assert resolve(target) == Endpoint(GRPC, target, insecure=True)
    assert resolve(target, insecure=False) == Endpoint(GRPC, target, insecure=False)
    with pytest.raises(ConfigurationError, match="protocol is http/protobuf"):
        resolve(target, protocol="http/protobuf")


def test_nothing_said_means_the_local_receiver_of_the_specification() -> None:
    assert resolve() == Endpoint(HTTP, "http://localhost:4318/v1/traces", insecure=True)
    assert resolve(protocol="grpc") == Endpoint(GRPC, "http://localhost:4317", insecure=True)
    assert resolve(insecure=False) == Endpoint(HTTP, "https://localhost:4318/v1/traces", insecure=False)


def test_insecure_decides_where_no_scheme_does() -> None:
    assert resolve("jaeger:4317", insecure=False).url == "https://jaeger:4317"
    assert resolve("jaeger:443", insecure=True).url == "http://jaeger:443/v1/traces"
    assert resolve("jaeger:4317", env={"OTEL_EXPORTER_OTLP_INSECURE": "false"}).insecure is False
    assert resolve("http://jaeger:4317", env={"OTEL_EXPORTER_OTLP_INSECURE": "false"}).insecure is True


def test_user_name_and_password_become_a_header_and_leave_the_url() -> None:
    for endpoint in ("http://ada:l%40ve@jaeger:4317", "ada:l%40ve@jaeger:4318"):
        place = resolve(endpoint)
        assert dict(place.headers) == {"authorization": "Basic YWRhOmxAdmU="}
        assert "ada" not in place.url
        assert "YWRh" not in repr(place)


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://my-api-endpoint/"}, "http://my-api-endpoint/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://base:4318/otlp/"}, "http://base:4318/otlp/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://base:4318/v1/traces"}, "http://base:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " http://base:4317 "}, "http://base:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "base:4318"}, "http://base:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://own:4318/ingest/"}, "http://own:4318/ingest/"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://own:4318"}, "http://own:4318/"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://base", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://own/x"},
            "http://own/x",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://base:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "http://base:9",
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://base:9",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            "http://base:9/v1/traces",
        ),
    ],
)
def test_the_environment_is_read_by_the_specification(variables: dict[str, str], url: str) -> None:
    assert resolve(env=variables).url == url


def test_an_argument_beats_the_environment() -> None:
    env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://other:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert resolve("http://jaeger:9", env=env, protocol="http/protobuf").url == "http://jaeger:9/v1/traces"


@pytest.mark.parametrize(
    ("endpoint", "options", "said"),
    [
        ("http://jaeger:4317", {"protocol": "http/protobuf"}, "4317 is the port of grpc.*Write port 4318"),
        ("http://jaeger:4318", {"protocol": "grpc"}, "4318 is the port of http/protobuf.*Write port 4317"),
        ("http://jaeger:4318", {"env": {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}}, "4318 is the port of"),
        ("http://jaeger:4317/otlp", {}, "no path, because gRPC has none"),
        ("https://jaeger:4317", {"insecure": True}, "insecure=True"),
        ("http://jaeger:4317", {"insecure": False}, "insecure=False"),
        ("", {}, "no host"),
        ("http://", {}, "no host"),
        (":4317", {}, "no host"),
        ("4317", {}, "no host"),
        ("http:/jaeger", {}, "no host"),
        ("http://-x", {}, "no host"),
        ("ftp://jaeger", {}, "'ftp' is not known"),
        ("grpc://jaeger:4317", {}, "'grpc' is not known"),
        ("jaeger:99999", {}, "1 to 65535"),
        ("jaeger:0", {}, "1 to 65535"),
        ("jaeger:port", {}, "1 to 65535"),
        ("http://[::1", {}, "1 to 65535"),
        ("http://[::zz]:4317", {}, "expected host"),
        ("http://jae ger:4317", {}, "white space"),
        ("http://jaeger:4317\n", {}, "white space"),
        ("http://jaeger:4318/#x", {}, "without '#'"),
        (4317, {}, "a string"),
        ("jaeger", {"protocol": "http/json"}, "grpc or http/protobuf"),
        ("jaeger", {"insecure": "yes"}, "True, False"),
        (None, {"env": {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        (None, {"env": {"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://x"}}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (None, {"env": {"OTEL_EXPORTER_OTLP_INSECURE": "1"}}, "OTEL_EXPORTER_OTLP_INSECURE"),
    ],
)
def test_what_cannot_be_right_is_refused_with_what_to_write(endpoint: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s).*{said}") as refused:
        resolve(endpoint, **options)
    assert "expected" in str(refused.value)


@pytest.mark.parametrize("endpoint", ["http://ada:se/cret@host:x", "ada:secret@host:x", "ftp://h/?key=secret"])
def test_an_error_does_not_show_passwords(endpoint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        resolve(endpoint)
    assert "cret" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


hosts = st.one_of(
    st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9](\.[a-z0-9]{1,5}){0,2}", fullmatch=True).filter(
        lambda host: host not in ("http", "https", "unix", "dns")
    ),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)
ports = st.integers(1, 65535).filter(lambda port: port not in (443, 4317, 4318))


@given(hosts, ports, st.sampled_from(["", "http://"]), st.sampled_from(["", "/", "/v1/traces", "/v1/traces/"]))
def test_scheme_and_path_may_be_left_out(host: str, port: int, scheme: str, path: str) -> None:
    assert resolve(f"{scheme}{host}:{port}{path}", protocol="grpc").url == f"http://{host}:{port}"
    assert resolve(f"{scheme}{host}:{port}{path}").url == f"http://{host}:{port}/v1/traces"


@given(hosts, ports, st.sampled_from([GRPC, HTTP]), st.booleans())
def test_what_came_out_comes_out_again(host: str, port: int, protocol: str, insecure: bool) -> None:
    once = resolve(f"{host}:{port}", protocol=protocol, insecure=insecure)
    assert resolve(once.url, protocol=protocol) == once
    assert once.insecure is insecure


@given(st.text())
def test_any_text_is_an_endpoint_or_a_configuration_error(text: str) -> None:
    try:
        place = resolve(text)
    except ConfigurationError:
        return
    assert place.url.startswith(("http", "unix", "ipv", "dns"))


def test_ipv6_hosts_keep_their_address() -> None:
    assert ipaddress.ip_address("::1").compressed in resolve("0:0:0:0:0:0:0:1").url
