"""What this process tells of itself, if `TRACEKIT_STATUS` asks for it: on a socket that only its user can open."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import socket
import stat
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from tracekit._diagnostics import logger, report_failure
from tracekit._environment import wrong_variable
from tracekit._fork import in_forked_child
from tracekit._version import __version__

if TYPE_CHECKING:
    from tracekit._environment import Environment
    from tracekit.configuration.tracing import Tracing

VARIABLE: Final = "TRACEKIT_STATUS"
SCHEMA: Final = 1
_SUFFIX: Final = ".sock"
_TIMEOUT_S: Final = 5.0


def directory_to_tell_in(variables: Environment) -> Path | None:
    """
    Return where this process is to open its socket; None where it is not asked to.

    Raises:
        ConfigurationError: The directory cannot be used.
    """
    asked = variables.text(VARIABLE)
    if asked is None or asked in ("0", "false"):
        return None
    if not hasattr(socket, "AF_UNIX"):
        logger.warning("%s is left alone: this system has no sockets that belong to a user", VARIABLE)
        return None
    return _checked(asked)


def tell_of(tracing: Tracing, directory: Path) -> None:
    """Let *tracing* be what this process tells of, on a socket in *directory*."""
    _teller.tell_of(tracing, directory)


def status_directory(asked: str | None) -> Path:
    """Return where the sockets are: *asked*, the value of the variable, may name a directory."""
    if asked not in (None, "", "1", "true"):
        return Path(str(asked)).expanduser().resolve()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "tracekit"
    return Path(tempfile.gettempdir()) / f"tracekit-{os.getuid() if hasattr(os, 'getuid') else 0}"


def status_of(path: Path) -> dict[str, Any]:
    """
    Ask the process behind the socket *path*.

    Raises:
        OSError: Nobody is there, or the answer makes no sense.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(str(path))
        answer = b""
        while more := connection.recv(65_536):
            answer += more
    try:
        told: dict[str, Any] = json.loads(answer)
    except ValueError as error:
        raise OSError(str(error)) from error
    return told


def sockets_in(directory: Path) -> dict[int, Path]:
    """Return the sockets of this user's processes, by process id."""
    if not _is_private(directory):
        return {}
    return {int(path.stem): path for path in sorted(directory.glob(f"*{_SUFFIX}")) if path.stem.isdecimal()}


def _checked(asked: str) -> Path:
    directory = status_directory(asked)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise wrong_variable(VARIABLE, asked, f"1, or a directory that can be made ({error.strerror})") from error
    if not _is_private(directory):
        raise wrong_variable(VARIABLE, asked, f"1, or a directory that is open to you alone (chmod 700 {directory})")
    return directory


def _is_private(directory: Path) -> bool:
    """Tell whether nobody else can have put anything there, nor led the name elsewhere."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077


@final
class _Teller:
    """Answers whoever connects, on a thread of its own; there is one a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tracing: Tracing | None = None
        self._directory: Path | None = None
        self._path: Path | None = None
        self._started_s = time.time()
        in_forked_child(self._begin_in_child)

    def tell_of(self, tracing: Tracing, directory: Path) -> None:
        with self._lock:
            self._tracing = tracing
            if self._directory == directory:
                return
            if self._directory is None:
                atexit.register(self._remove)
            self._directory = directory
            self._open(directory)

    def _begin_in_child(self) -> None:
        self._lock = threading.Lock()
        self._path = None
        self._started_s = time.time()
        if self._directory is not None:
            self._open(self._directory)

    def _open(self, directory: Path) -> None:
        path = directory / f"{os.getpid()}{_SUFFIX}"
        try:
            path.unlink(missing_ok=True)  # of an earlier process of that id
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listener.bind(str(path))
                path.chmod(0o600)
                listener.listen()
                threading.Thread(target=self._serve, args=(listener,), name="tracekit-status", daemon=True).start()
            except BaseException:
                listener.close()
                raise
        except (OSError, RuntimeError) as error:
            report_failure("tracekit", VARIABLE, error)
            return
        self._path = path

    def _serve(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(_TIMEOUT_S)
                    connection.sendall(self._told())

    def _told(self) -> bytes:
        try:
            return json.dumps(self._status(), default=str).encode()
        except Exception as error:  # noqa: BLE001  # the thread must live
            report_failure("tracekit", VARIABLE, error)
            return b"{}"

    def _status(self) -> dict[str, Any]:
        tracing = self._tracing
        stats = None if tracing is None else tracing.stats
        registry = sys.modules.get("tracekit.instrumentation.registry")
        wired = () if registry is None else registry.instrumented()
        sender = sys.modules.get("tracekit.export.sender")
        troubles = {} if sender is None else dict(sender.troubles)
        return {
            "schema": SCHEMA,
            "tracekit": __version__,
            "pid": os.getpid(),
            "python": sys.version.partition(" ")[0],
            "program": sys.argv[0] if sys.argv else "",
            "up_s": round(time.time() - self._started_s, 1),
            "configuration": repr(tracing),
            "stats": {}
            if stats is None
            else {
                field.name: dict(stats.dropped) if field.name == "dropped" else getattr(stats, field.name)
                for field in dataclasses.fields(stats)
            },
            "receivers": [
                {
                    "receiver": receiver,
                    "what": trouble.what,
                    "why": trouble.why,
                    "ago_s": round(max(0.0, time.time() - trouble.at_s), 1),
                }
                for receiver, trouble in troubles.items()
            ],
            "instrumented": [{"name": state.name, "by": state.by} for state in wired],
        }

    def _remove(self) -> None:
        if self._path is not None and self._path.stem == str(os.getpid()):
            with contextlib.suppress(OSError):
                self._path.unlink()


_teller: Final = _Teller()
