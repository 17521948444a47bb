"""Tracing of libraries: FastAPI, SQLAlchemy, HTTPX and whatever has an official OpenTelemetry instrumentation."""

from __future__ import annotations

from tracekit.instrumentation.registry import instrument as instrument
from tracekit.instrumentation.registry import instrumented as instrumented
from tracekit.instrumentation.registry import uninstrument as uninstrument
from tracekit.instrumentation.wiring import Instrumented as Instrumented

__all__ = ["Instrumented", "instrument", "instrumented", "uninstrument"]
