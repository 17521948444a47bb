"""What the spans of this process are about: the resource."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.sdk.resources import Resource

from tracekit._attributes import attribute_items
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from tracekit._config import Settings
    from tracekit._environment import Environment

SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
DEPLOYMENT_ENVIRONMENT_NAME: Final = "deployment.environment.name"
DEPLOYMENT_ENVIRONMENT: Final = "deployment.environment"  # the older spelling, which many backends still read
HOST_NAME: Final = "host.name"
PROCESS_PID: Final = "process.pid"


def resource_maker(
    *,
    service: str | None,
    version: str | None,
    environment: str | None,
    more: Mapping[str, object] | Resource | None,
    variables: Environment,
    settings: Settings,
) -> Callable[[], Resource]:
    """
    Return what makes the resource, once for each process: a forked child calls it again.

    The arguments are those of `configure()`. They beat `OTEL_SERVICE_NAME`, which beats `OTEL_RESOURCE_ATTRIBUTES`,
    which beats what is found out here.

    Source: OpenTelemetry specification, resource/sdk.md; semantic conventions, resource.
    """
    given: dict[str, object] = dict(variables.pairs("OTEL_RESOURCE_ATTRIBUTES") or {})
    given |= _present({SERVICE_NAME: variables.text("OTEL_SERVICE_NAME")})
    given |= _attributes_of(more)
    given |= _present({SERVICE_NAME: service, SERVICE_VERSION: version, DEPLOYMENT_ENVIRONMENT_NAME: environment})
    stage = given.get(DEPLOYMENT_ENVIRONMENT_NAME, given.get(DEPLOYMENT_ENVIRONMENT))
    given |= _present({DEPLOYMENT_ENVIRONMENT_NAME: stage, DEPLOYMENT_ENVIRONMENT: stage})
    found = {
        SERVICE_NAME: script_name(),
        HOST_NAME: socket.gethostname(),
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": installed_version("opentelemetry-sdk"),
    }

    # Remembered: what spans and metrics come from has one id.
    @lru_cache(maxsize=1)
    def resource_of(process: int) -> Resource:
        attributes = {**found, SERVICE_INSTANCE_ID: str(uuid.uuid4()), PROCESS_PID: process, **given}
        return Resource(attribute_items(attributes, settings.redactor, settings.string_limit, "resource"))

    return lambda: resource_of(os.getpid())


def script_name() -> str:
    """Return a name for a service that was given none: the script's or module's, else `unknown_service:python`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0] if sys.argv else "").stem
    # `python -c` and an interactive shell have no name of their own.
    return name if name.strip("-") and name != "-c" else f"unknown_service:{Path(sys.executable or 'python').name}"


def _attributes_of(more: Any) -> Mapping[str, object]:
    if more is None:
        return {}
    if isinstance(more, Resource):
        return more.attributes
    if isinstance(more, Mapping):
        attributes = cast("Mapping[object, object]", more)
        if all(isinstance(key, str) and key for key in attributes):
            return cast("Mapping[str, object]", attributes)
    msg = (
        f"resource={more!r:.200}: expected a mapping of attribute names to values. "
        f'Write resource={{"service.namespace": "shop"}}.'
    )
    raise ConfigurationError(msg)


def _present(attributes: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in attributes.items() if value is not None}
