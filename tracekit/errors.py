"""
The errors tracekit raises, all of them while decorating or configuring, none while user code runs.

    Exception
    └── TracekitError
        ├── InstrumentationError    a wrong option of @traced, traced_block, trace_callable, instrument
        └── ConfigurationError      a wrong argument or environment variable of configure, a missing extra
"""

from __future__ import annotations

__all__ = ["ConfigurationError", "InstrumentationError", "TracekitError"]


class TracekitError(Exception):
    """Any error that tracekit raises on purpose."""


class InstrumentationError(TracekitError):
    """An instrumentation option that cannot work; says what was given, what was expected and what to write."""


class ConfigurationError(TracekitError):
    """A setting that cannot work; says what was given, what was expected and what to write."""
