"""Connections over HTTP whose answers are whole in time, or late: a time-out of sockets begins anew with each byte."""

from __future__ import annotations

import io
import time
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, Final, final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    import socket

    from typing_extensions import Buffer


@final
class _Reader(io.RawIOBase):
    """Reads *connection* until the time is up that it gives one reading now."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket: Final = connection
        self._file: Final = connection.makefile("rb", buffering=0)
        timeout_s = connection.gettimeout()
        self._deadline_s: Final = None if timeout_s is None else time.monotonic() + timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int | None:
        if self._deadline_s is not None:
            left_s = self._deadline_s - time.monotonic()
            if left_s <= 0:
                msg = "timed out"
                raise TimeoutError(msg)
            self._socket.settimeout(left_s)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


@final
class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Reader(sock))


@final
class _Connection(HTTPConnection):
    response_class = _Response


@final
class _SecureConnection(HTTPSConnection):
    response_class = _Response


@final
class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _Connection  # the declared type is one that nothing is assignable to


@final
class _SecurePool(HTTPSConnectionPool):
    ConnectionCls: Any = _SecureConnection


POOLS: Final[dict[str, Any]] = {"http": _Pool, "https": _SecurePool}
