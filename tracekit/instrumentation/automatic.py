"""Tracing of the libraries that a program imports, without naming them: each is wired when it is imported."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from tracekit._diagnostics import logger, report_failure
from tracekit.errors import InstrumentationError
from tracekit.instrumentation.imports import watch
from tracekit.instrumentation.registry import available, instrument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# As opentelemetry-instrument reads it.
DISABLED_VARIABLE: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"

# What programs import, where that is not the instrumentation's own name.
_MODULES: Final = {
    "aiohttp-client": "aiohttp",
    "aiohttp-server": "aiohttp",
    "aio-pika": "aio_pika",
    "boto3sqs": "boto3",
    "elasticsearch": "elasticsearch",
    "grpc-aio-client": "grpc",
    "grpc-aio-server": "grpc",
    "grpc-client": "grpc",
    "grpc-server": "grpc",
    "mysqlclient": "MySQLdb",
    "system-metrics": "psutil",
    "tortoiseorm": "tortoise",
}


def instrument_on_import(
    names: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    *,
    tell: Callable[[str], None] | None = None,
) -> None:
    """
    Trace each library once the program imports it, so that nobody waits for libraries that are not used.

    Args:
        names: The libraries; None for all whose instrumentation is installed.
        leave_out: Libraries that are left alone, besides those of `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS`.
        tell: Given a line for each library that is traced.
    """
    disabled = {word.strip() for word in os.environ.get(DISABLED_VARIABLE, "").split(",")}
    left_out = {name.replace("_", "-").lower() for name in (*leave_out, *disabled)}
    if "*" in left_out:
        return
    for name in available() if names is None else names:
        normal = name.replace("_", "-").lower()
        if normal not in left_out:
            _instrument_on_import(normal, tell)


def _instrument_on_import(name: str, tell: Callable[[str], None] | None) -> None:
    # It may be nowhere yet: the program's own directory is not on the path when its process starts.
    module = _MODULES.get(name, name.replace("-", "_"))
    wire = partial(_wire, name, tell)
    watch([module], wire)
    if module in sys.modules:
        wire()


def _wire(name: str, tell: Callable[[str], None] | None) -> None:
    try:
        for state in instrument(name):
            if tell is not None:
                tell(f"traces {state.name} by {state.by}" if state.is_wired else state.reason)
    except InstrumentationError as error:
        logger.warning("%s", error)
    except Exception as error:  # noqa: BLE001  # somebody's instrumentation; the import must not fail for it
        report_failure("tracekit.instrumentation", name, error)
