"""Where it was measured, and with what."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

_VERSIONS_OF: Final = (
    *("tracekit", "opentelemetry", "wrapt", "protobuf", "grpcio", "fastapi", "uvicorn"),
    *("logfire", "sentry-sdk", "ddtrace", "elastic-apm", "langfuse"),
)


def machine() -> dict[str, Any]:
    """Describe the interpreter and what it runs on."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def versions() -> dict[str, str]:
    """Return the releases of what is measured, and of what it is made with."""
    found = {distribution.metadata["Name"]: distribution.version for distribution in distributions()}
    return {name: version for name, version in sorted(found.items()) if name.lower().startswith(_VERSIONS_OF)}
