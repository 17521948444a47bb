"""What the tests of instrumented libraries share: the spans of one test, and a real server on a free port."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tracekit._config import runtime
from tracekit.instrumentation import uninstrument

if TYPE_CHECKING:
    from collections.abc import Generator

    from opentelemetry.sdk.trace import ReadableSpan


class Spans:
    """What the provider of one test has exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.all]

    def one(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.all if span.name == name]
        return span

    def clear(self) -> None:
        self._exporter.clear()


@contextmanager
def collected_spans() -> Generator[Spans, None, None]:
    """Make tracekit's provider one that keeps its spans; uninstrument everything afterwards."""
    spans = Spans()
    undo = runtime.use(provider=spans.provider)
    try:
        yield spans
    finally:
        uninstrument()
        undo()


@contextmanager
def served(app: Any) -> Generator[str, None, None]:
    """Serve *app* by uvicorn in a thread; gives the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none" if not _has_websockets() else "auto"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # It serves what has come in, then stops; requests wait in the listener's backlog until it is up.
        server.should_exit = True
        thread.join()
        listener.close()


def _has_websockets() -> bool:
    try:
        import websockets  # noqa: F401
    except ImportError:
        return False
    return True
