"""What the tests of instrumented libraries share: the spans of one test, and a real server on a free port."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from tracekit.instrumentation import instrument, uninstrument
from tracekit.instrumentation.provider import following_provider
from tracekit.testing import CapturedSpans, capture_spans

if TYPE_CHECKING:
    from collections.abc import Generator


# The official instrumentations settle on their attributes' names once a process, with the first that is wired; in
# another order of tests that might be one that a test wires by itself, to the old names.
instrument("httpx")
uninstrument("httpx")


tracer: Final = following_provider.get_tracer("test")


@contextmanager
def captured_spans() -> Generator[CapturedSpans, None, None]:
    """Capture what instrumented libraries make; uninstrument them afterwards."""
    try:
        with capture_spans() as spans:
            yield spans
    finally:
        uninstrument()


@contextmanager
def served(app: Any) -> Generator[str, None, None]:
    """Serve *app* by uvicorn in a thread; gives the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, ws="none" if not _has_websockets() else "websockets-sansio")
    )
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
