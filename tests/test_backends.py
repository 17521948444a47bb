"""The compose files of examples/backends: their form, and that their parts fit together. No engine runs them here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

BACKENDS: Final = Path(__file__).parent.parent / "examples" / "backends"
FILES: Final = sorted(BACKENDS.glob("*/compose.yaml"))

# Of the Compose Specification, those in use: a slip in a name would only be found by the engine.
_SERVICE_KEYS: Final = {
    *("image", "restart", "command", "volumes", "ports", "healthcheck", "depends_on", "environment", "mem_limit"),
}
_HEALTH_KEYS: Final = {"test", "interval", "timeout", "retries", "start_period"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def services() -> list[Any]:
    return [
        pytest.param(path.parent, service, id=f"{path.parent.name}-{name}")
        for path in FILES
        for name, service in read(path)["services"].items()
    ]


def published(service: Any) -> dict[str, str]:
    """Return the address and port of this machine by the port of the container."""
    return {port.rpartition(":")[2]: port.rpartition(":")[0] for port in service["ports"]}


def test_there_is_one_for_jaeger_and_one_for_tempo() -> None:
    assert [path.parent.name for path in FILES] == ["jaeger", "tempo"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_the_file_is_one_of_compose(path: Path) -> None:
    file = read(path)
    assert set(file) <= {"name", "services", "volumes"}
    assert re.fullmatch("[a-z0-9][a-z0-9_-]*", file["name"])
    for service in file["services"].values():
        assert set(service) <= _SERVICE_KEYS
        assert set(service.get("depends_on", {})) <= set(file["services"])
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            assert target.startswith("/")
            assert (path.parent / source).is_file() if source.startswith(".") else source in file["volumes"]


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_docker_compose_takes_the_file(path: Path) -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no compose plugin")
    subprocess.run(["docker", "compose", "--file", path, "config", "--quiet"], check=True)


@pytest.mark.parametrize(("_directory", "service"), services())
def test_versions_are_pinned(_directory: Path, service: Any) -> None:
    assert re.fullmatch(r"[a-z]+/[a-z]+:\d+\.\d+\.\d+", service["image"])


@pytest.mark.parametrize(("_directory", "service"), services())
def test_health_is_checked_on_the_services_own_port(_directory: Path, service: Any) -> None:
    check = service["healthcheck"]
    assert set(check) == _HEALTH_KEYS
    assert check["test"][0] == "CMD"
    assert check["test"][-1].startswith("http://127.0.0.1:")
    assert all(re.fullmatch(r"\d+s", check[key]) for key in ("interval", "timeout", "start_period"))


@pytest.mark.parametrize(("_directory", "service"), services())
def test_ports_are_open_to_this_machine_only(_directory: Path, service: Any) -> None:
    assert all(address == f"127.0.0.1:{port}" for port, address in published(service).items())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_otlp_comes_in_on_its_usual_ports(path: Path) -> None:
    open_ports = [port for service in read(path)["services"].values() for port in published(service)]
    assert {"4317", "4318"} <= set(open_ports)
    assert len(open_ports) == len(set(open_ports))


def test_grafana_finds_tempo_and_waits_for_it() -> None:
    directory = BACKENDS / "tempo"
    file, tempo = read(directory / "compose.yaml")["services"], read(directory / "tempo.yaml")
    (source,) = read(directory / "grafana-datasources.yaml")["datasources"]
    port = tempo["server"]["http_listen_port"]
    assert (source["type"], source["url"]) == ("tempo", f"http://tempo:{port}")
    assert file["tempo"]["healthcheck"]["test"][-1] == f"http://127.0.0.1:{port}/ready"
    assert file["grafana"]["depends_on"] == {"tempo": {"condition": "service_healthy"}}
    assert any(
        volume.endswith(":/etc/grafana/provisioning/datasources/tracekit.yaml:ro")
        for volume in file["grafana"]["volumes"]
    )


def test_tempo_listens_and_keeps_where_the_compose_file_says() -> None:
    directory = BACKENDS / "tempo"
    service, tempo = read(directory / "compose.yaml")["services"]["tempo"], read(directory / "tempo.yaml")
    protocols = tempo["distributor"]["receivers"]["otlp"]["protocols"]
    assert {kind: protocol["endpoint"] for kind, protocol in protocols.items()} == {
        "grpc": "0.0.0.0:4317",
        "http": "0.0.0.0:4318",
    }
    assert "tempo:/var/tempo" in service["volumes"]
    assert service["command"] == ["-config.file=/etc/tempo.yaml"]
    storage = tempo["storage"]["trace"]
    assert all(storage[kind]["path"].startswith("/var/tempo/") for kind in ("wal", "local"))
