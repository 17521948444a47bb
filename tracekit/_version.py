"""The version of tracekit: read by the build, the tracer's scope and `tracekit --version`."""

from typing import Final

__version__: Final = "0.1.0"
