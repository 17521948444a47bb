"""What every test shares: Hypothesis's profiles, the event loop of async tests, the services on this machine."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import settings
from opentelemetry import trace as trace_api
from opentelemetry.util._once import Once

from tracekit.recording.provider import ENGINE_FITS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["brokers", "browser", "otlp_receiver"]

# A shared machine stalls: a deadline would test the machine. CI must not depend on luck, so it replays fixed examples.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def _leave_no_provider() -> Iterator[None]:
    """Undo `configure()` after each test, in OpenTelemetry's own globals too."""
    yield
    configuration = sys.modules.get("tracekit.configuration._configure")
    if configuration is not None:
        configuration.deployment.reset()
    trace_api._TRACER_PROVIDER = None
    trace_api._TRACER_PROVIDER_SET_ONCE = Once()


SERVICE_PORTS: Final = {"postgresql": 5432, "redis": 6379, "rabbitmq": 5672, "nats": 4222, "mqtt": 1883}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.engine("what the SDK's spans do")`: skip where those are used (`make test-sdk-spans`)."""
    mark = item.get_closest_marker("engine")
    if mark is not None and not ENGINE_FITS:
        pytest.skip(f"over the SDK's spans: {mark.args[0]}")


@pytest.fixture(autouse=True)
def _need_services(request: pytest.FixtureRequest) -> None:
    """`@pytest.mark.services("redis")`: skip where Redis is not running, or fail if all services are promised."""
    mark = request.node.get_closest_marker("services")
    closed = [name for name in mark.args if not _is_open(SERVICE_PORTS[name])] if mark else []
    if closed:
        reason = f"nothing listens for {', '.join(closed)} on this machine"
        if os.environ.get("TRACEKIT_REQUIRE_SERVICES"):
            pytest.fail(reason)
        pytest.skip(reason)


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
