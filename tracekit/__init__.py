"""tracekit: a decorator and a context manager that trace Python with OpenTelemetry."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tracekit import _exit  # noqa: F401  # pyright: ignore[reportUnusedImport]  # early: what registers first runs last
from tracekit._version import __version__

if TYPE_CHECKING:
    from tracekit._block import traced_block as traced_block
    from tracekit._current import add_event as add_event
    from tracekit._current import add_link as add_link
    from tracekit._current import current_span as current_span
    from tracekit._current import current_span_id as current_span_id
    from tracekit._current import current_trace_id as current_trace_id
    from tracekit._current import lifecycle as lifecycle
    from tracekit._current import record_exception as record_exception
    from tracekit._current import set_attribute as set_attribute
    from tracekit._current import set_attributes as set_attributes
    from tracekit._current import set_error as set_error
    from tracekit._decorator import traced as traced
    from tracekit._extractors import SpanAttribute as SpanAttribute
    from tracekit._extractors import arg as arg
    from tracekit._extractors import result as result
    from tracekit.concurrency import ContextExecutor as ContextExecutor
    from tracekit.concurrency import propagate as propagate
    from tracekit.concurrency import spawn as spawn
    from tracekit.configuration import Tracing as Tracing
    from tracekit.configuration import configure as configure
    from tracekit.instrumentation.patching import trace_callable as trace_callable
    from tracekit.instrumentation.patching import trace_module as trace_module
    from tracekit.propagation import extract as extract
    from tracekit.propagation import get_baggage as get_baggage
    from tracekit.propagation import inject as inject
    from tracekit.propagation import remote_parent as remote_parent
    from tracekit.propagation import set_baggage as set_baggage
    from tracekit.propagation import use_context as use_context

# Each name is imported on first use, so that `import tracekit` loads no SDK, exporter or framework.
_ROOMS: Final = {
    "traced": "_decorator",
    "traced_block": "_block",
    "arg": "_extractors",
    "result": "_extractors",
    "SpanAttribute": "_extractors",
    "add_event": "_current",
    "lifecycle": "_current",
    "set_attribute": "_current",
    "set_attributes": "_current",
    "set_error": "_current",
    "record_exception": "_current",
    "add_link": "_current",
    "current_span": "_current",
    "current_trace_id": "_current",
    "current_span_id": "_current",
    "configure": "configuration",
    "Tracing": "configuration",
    "trace_callable": "instrumentation.patching",
    "trace_module": "instrumentation.patching",
    "inject": "propagation",
    "extract": "propagation",
    "use_context": "propagation",
    "remote_parent": "propagation",
    "set_baggage": "propagation",
    "get_baggage": "propagation",
    "propagate": "concurrency",
    "spawn": "concurrency",
    "ContextExecutor": "concurrency",
}

__all__ = [
    "ContextExecutor",
    "SpanAttribute",
    "Tracing",
    "__version__",
    "add_event",
    "add_link",
    "arg",
    "configure",
    "current_span",
    "current_span_id",
    "current_trace_id",
    "extract",
    "get_baggage",
    "inject",
    "lifecycle",
    "propagate",
    "record_exception",
    "remote_parent",
    "result",
    "set_attribute",
    "set_attributes",
    "set_baggage",
    "set_error",
    "spawn",
    "trace_callable",
    "trace_module",
    "traced",
    "traced_block",
    "use_context",
]


def __getattr__(name: str) -> Any:
    room = _ROOMS.get(name)
    if room is None:
        msg = f"module 'tracekit' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"tracekit.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
