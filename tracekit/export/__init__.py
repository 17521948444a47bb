"""Where spans go: the trace tree, files. Each name is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tracekit.export.console import TreeProcessor as TreeProcessor
    from tracekit.export.file import FileExporter as FileExporter
    from tracekit.export.record import SpanRecord as SpanRecord
    from tracekit.export.tree import TreeOptions as TreeOptions
    from tracekit.export.tree import render_tree as render_tree

_ROOMS: Final = {
    "FileExporter": "file",
    "SpanRecord": "record",
    "TreeOptions": "tree",
    "TreeProcessor": "console",
    "render_tree": "tree",
}

__all__ = ["FileExporter", "SpanRecord", "TreeOptions", "TreeProcessor", "render_tree"]


def __getattr__(name: str) -> Any:
    room = _ROOMS.get(name)
    if room is None:
        msg = f"module 'tracekit.export' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"tracekit.export.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
