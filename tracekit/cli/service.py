"""A service of the demo in a process of its own: the parent's hold on it, and what runs in the child."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from functools import cached_property
from typing import IO, TYPE_CHECKING, Final, cast, final

from typing_extensions import Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import uvicorn

_HOST: Final = "127.0.0.1"
_START_TIMEOUT_S: Final = 60.0
# Uvicorn waits for open requests and the app exports its last spans meanwhile; both have shorter limits.
_STOP_TIMEOUT_S: Final = 15.0
_GRACE_S: Final = 5


class ServiceError(Exception):
    """A service that does not start; says what it wrote."""


@final
class Service:
    """
    A running ASGI app. The end of the `with` block stops it; so does the end of this process, however it comes.

    Args:
        app: The app as uvicorn names it: `orders.app:app`.
        directory: Where the app is imported from.
        environment: The environment variables of its process.
        log: The file for what it writes.
    """

    def __init__(self, app: str, *, directory: Path, environment: Mapping[str, str], log: Path) -> None:
        self._app = app
        self._log = log
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-m", __name__, app, str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=dict(environment),
            )
        self._process = process
        # The child ends when the one does, and says its port on the other.
        self._lifeline, self._said = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @cached_property
    def url(self) -> str:
        """
        Where the service listens; requests wait there until it is ready to answer.

        Raises:
            ServiceError: It has ended.
        """
        port = self._said.readline().strip().decode()
        if not port:
            raise self._failure()
        return f"http://{_HOST}:{port}"

    def wait_until_ready(self) -> None:
        """
        Wait until the service's health check answers.

        Raises:
            ServiceError: It does not.
        """
        import httpx

        try:
            httpx.get(f"{self.url}/health", timeout=_START_TIMEOUT_S, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            raise self._failure() from error

    def stop(self) -> None:
        """End the process: ask it to, then insist."""
        self._lifeline.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except BaseException as error:
            self._process.kill()
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        finally:
            self._said.close()

    def _failure(self) -> ServiceError:
        written = self._log.read_text(encoding="utf-8", errors="replace").strip()
        return ServiceError(f"{self._app} did not start: {written or 'it wrote nothing'}")


def serve(app: str, directory: str) -> None:
    """Serve *app* from *directory* on a free port, which is printed, until standard input ends."""
    # Bound before anything slow: who reads the port may send requests at once, and nobody else can take it.
    listener = socket.create_server((_HOST, 0))
    # Asyncio does it for the sockets it makes itself; without it each answer on a kept connection takes 40 ms more.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(listener.getsockname()[1], flush=True)
    sys.path.insert(0, directory)

    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE_S))
    threading.Thread(target=_stop_with_parent, args=(server,), daemon=True).start()
    server.run(sockets=[listener])


def _stop_with_parent(server: uvicorn.Server) -> None:
    # Not sys.stdin: its lock would be held while the interpreter shuts down.
    os.read(0, 1)
    server.should_exit = True


if __name__ == "__main__":
    serve(*sys.argv[1:])
