"""
A pytest plugin that has every provider of the SDK hand out tracekit's tracers, so that the spans are the engine's.

Loaded with `-p swap_engine` in a process of its own; `SDK_SUITE_REPORT` in its environment is the file it writes: what
each test came to, and how many spans the engine has made.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace import TracerProvider

from tracekit.recording.span import Span
from tracekit.recording.tracer import Tracer

if TYPE_CHECKING:
    import pytest
    from opentelemetry.trace import Tracer as ApiTracer

_get_tracer: Final = TracerProvider.get_tracer
_init_span: Final = Span.__init__

outcomes: Final[dict[str, str]] = {}
spans = 0


def _get_engines_tracer(self: TracerProvider, *args: Any, **kwargs: Any) -> ApiTracer:
    tracer = _get_tracer(self, *args, **kwargs)
    if type(tracer) is SdkTracer:
        tracer.__class__ = Tracer
    return tracer


def _count_span(self: Span, *args: Any, **kwargs: Any) -> None:
    global spans  # noqa: PLW0603  # there is one suite
    spans += 1
    _init_span(self, *args, **kwargs)


TracerProvider.get_tracer = _get_engines_tracer  # type: ignore[method-assign]
Span.__init__ = _count_span  # type: ignore[method-assign]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        outcomes[report.nodeid] = report.outcome


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.outcome == "failed":
        outcomes[report.nodeid] = report.outcome


def pytest_unconfigure() -> None:
    found = {"outcomes": outcomes, "spans": spans}
    Path(os.environ["SDK_SUITE_REPORT"]).write_text(json.dumps(found), encoding="utf-8")
