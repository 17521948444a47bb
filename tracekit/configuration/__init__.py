"""`configure()`: arguments and environment become one pipeline. Nothing else sets a provider or reads `OTEL_*`."""

from __future__ import annotations

from tracekit.configuration._configure import configure
from tracekit.configuration.tracing import Tracing

__all__ = ["Tracing", "configure"]
