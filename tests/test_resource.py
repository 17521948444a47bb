"""What the spans are about: who wins where several say it, and what a forked child says of itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.resources import Resource

import tracekit
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@tracekit.traced("shop.order")
def order() -> None: ...


def resource_of(**arguments: object) -> dict[str, object]:
    """Return the attributes of a span's resource, as an exporter sees them."""
    with tracekit.configure(exporter="memory", **arguments) as tracing:  # type: ignore[arg-type]
        order()
        return dict(tracing.spans[0].resource.attributes)


def test_service_is_described_by_the_arguments() -> None:
    attributes = resource_of(service="orders", version="1.2.3", environment="staging")
    assert attributes["service.name"] == "orders"
    assert attributes["service.version"] == "1.2.3"
    assert attributes["deployment.environment.name"] == "staging"
    assert attributes["deployment.environment"] == "staging"


def test_process_is_described_without_being_asked_for() -> None:
    attributes = resource_of()
    assert attributes["host.name"] == socket.gethostname()
    assert attributes["process.pid"] == os.getpid()
    assert uuid.UUID(str(attributes["service.instance.id"])).version == 4
    assert attributes["telemetry.sdk.language"] == "python"
    assert attributes["telemetry.sdk.name"] == "opentelemetry"


def test_argument_beats_service_variable_beats_resource_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=from-resource,team=a%2Cb")
    assert resource_of()["service.name"] == "from-resource"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-service")
    assert resource_of()["service.name"] == "from-service"
    attributes = resource_of(service="given", resource={"service.name": "from-mapping"})
    assert attributes["service.name"] == "given"
    assert attributes["team"] == "a,b"


def test_older_spelling_of_the_environment_is_kept_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=production")
    attributes = resource_of()
    assert attributes["deployment.environment.name"] == attributes["deployment.environment"] == "production"
    assert resource_of(environment="staging")["deployment.environment"] == "staging"


def test_unreadable_resource_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name")
    with pytest.raises(ConfigurationError, match="OTEL_RESOURCE_ATTRIBUTES"):
        tracekit.configure(exporter="none")


def test_more_attributes_are_made_legal_and_secrets_are_hidden() -> None:
    given = {"host.id": uuid.UUID(int=7), "api_key": "s3cr3t", "worker": 2**70, "zone": "caf\udce9", "odd": object()}
    attributes = resource_of(resource=given)
    assert attributes["host.id"] == str(uuid.UUID(int=7))
    assert attributes["api_key"] == "[redacted]"
    assert attributes["worker"] == str(2**70)
    assert str(attributes["zone"]).encode()
    assert "odd" not in attributes


def test_resource_may_be_one_of_the_sdk() -> None:
    assert resource_of(resource=Resource({"service.namespace": "shop"}))["service.namespace"] == "shop"


@pytest.mark.parametrize("resource", [["service.namespace"], "service.namespace=shop", {1: "x"}, {"": "x"}])
def test_resource_that_is_no_mapping_of_names_is_refused(resource: object) -> None:
    with pytest.raises(ConfigurationError, match="resource="):
        resource_of(resource=resource)


NAME = "import tracekit\nprint(tracekit.configure(exporter='none').provider.resource.attributes['service.name'])\n"


def test_service_without_a_name_takes_the_scripts(tmp_path: Path) -> None:
    script = tmp_path / "billing.py"
    script.write_text(NAME)
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__main__.py").write_text(NAME)
    assert _output(str(script)) == "billing"
    assert _output("-m", "shop", cwd=tmp_path) == "shop"
    assert _output("-c", NAME).startswith("unknown_service:python")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_has_an_identity_of_its_own() -> None:
    child = """if True:
        import os, tracekit
        tracing = tracekit.configure(exporter="memory")
        @tracekit.traced
        def work(): ...
        def identity():
            work()
            attributes = tracing.spans[-1].resource.attributes
            print(attributes["process.pid"] == os.getpid(), attributes["service.instance.id"], tracing.stats.started,
                  flush=True)
        identity()
        if os.fork() == 0:
            identity()
            os._exit(0)
        os.wait()
    """
    parents, childs = (line.split() for line in _output("-W", "ignore", "-c", child).splitlines())
    assert parents[0] == childs[0] == "True"
    assert parents[1] != childs[1]
    assert parents[2] == childs[2] == "1"


def _output(*arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=30, check=True)
    assert not done.stderr
    return done.stdout.strip()
