"""
The end of the process: at exit, on SIGTERM, and at the end of a forked worker, what is queued is exported.

Only this module registers exit functions and signal handlers.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from tracekit._diagnostics import report_failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tracekit.recording import Pipeline

EXIT_TIMEOUT_S: Final = 5.0
# How long a program's own handler may be kept waiting: it may be about to leave without any exit functions.
_HANDLER_TIMEOUT_S: Final = 1.0
# Below every finalizer that multiprocessing runs for the user's pools and queues.
_FINALIZER_PRIORITY: Final = -1_000


_Handler: TypeAlias = "Callable[[int, FrameType | None], Any] | int"


@final
class Ending:
    """Watches over the open pipelines of this process until its end."""

    def __init__(self) -> None:
        # Two while one takes the other's place.
        self._pipelines: tuple[Pipeline, ...] = ()
        self._is_registered = False

    def watch(self, pipeline: Pipeline) -> None:
        """From now on export what is in *pipeline* when the process ends."""
        self._pipelines += (pipeline,)
        if not self._is_registered:
            self._is_registered = True
            atexit.register(self._close)
            self._register_with_multiprocessing()
            self._register_with_celery()
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._register_with_celery)
        self._handle_termination()

    def forget(self, pipeline: Pipeline) -> None:
        """Stop watching *pipeline*, which is shut down."""
        self._pipelines = tuple(other for other in self._pipelines if other is not pipeline)
        current = signal.getsignal(signal.SIGTERM)
        if not self._pipelines and isinstance(current, _TerminationHandler) and _in_main_thread():
            signal.signal(signal.SIGTERM, current.previous)

    @property
    def is_under_way(self) -> bool:
        """Whether a pipeline is being closed at this moment."""
        return any(pipeline.is_closing for pipeline in self._pipelines)

    def flush(self) -> None:
        """Export what is queued, within the exit timeout."""
        deadline = time.monotonic() + EXIT_TIMEOUT_S
        for pipeline in self._pipelines:
            pipeline.flush(int(max(0.0, deadline - time.monotonic()) * 1000))

    def hurry(self) -> None:
        """Expect the end at any moment."""
        for pipeline in self._pipelines:
            pipeline.hurry()

    def _close(self) -> None:
        deadline = time.monotonic() + EXIT_TIMEOUT_S
        for pipeline in self._pipelines:
            pipeline.close(int(max(0.0, deadline - time.monotonic()) * 1000))

    def _register_with_multiprocessing(self) -> None:
        # Forked workers leave by os._exit(), which runs multiprocessing's finalizers and no exit functions.
        from multiprocessing import parent_process, util

        def in_worker(ending: Ending) -> None:
            util.Finalize(None, ending._close, exitpriority=_FINALIZER_PRIORITY)  # our own

        util.register_after_fork(self, in_worker)
        if parent_process() is not None:
            in_worker(self)  # set up in a worker itself, which may have been forked by a fork server

    def _register_with_celery(self) -> None:
        # Its prefork workers leave by os._exit() and run no finalizers, but tell it before.
        signals = sys.modules.get("celery.signals")
        if signals is not None:
            signals.worker_process_shutdown.connect(self._on_celery_shutdown)

    def _on_celery_shutdown(self, **_signal: object) -> None:
        self._close()

    def _handle_termination(self) -> None:
        """Put our handler before the program's own; only the main thread may."""
        if not _in_main_thread():
            return
        previous = signal.getsignal(signal.SIGTERM)
        # None: set by something that is not Python, which could not be called. SIG_IGN: the program wants to live.
        if previous is None or previous is signal.SIG_IGN or isinstance(previous, _TerminationHandler):
            return
        with contextlib.suppress(ValueError):  # in another interpreter than the main one
            signal.signal(signal.SIGTERM, _TerminationHandler(self, previous))


@final
class _TerminationHandler:
    """
    Exports what is queued, then does what SIGTERM did before.

    The export runs on a thread and has its time: the main thread may hold, at this moment, a lock that it needs.
    """

    def __init__(self, ending: Ending, previous: _Handler) -> None:
        self._ending: Final = ending
        self.previous: Final = previous

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if callable(self.previous):
            # The program goes on for a while; servers such as uvicorn then end it by a second, deadly signal.
            self._ending.hurry()
            exporting = _start(self._ending.flush)
            if exporting is not None and not self._ending.is_under_way:
                exporting.join(_HANDLER_TIMEOUT_S)
            self.previous(signum, frame)
            return
        # A second signal kills at once.
        signal.signal(signum, signal.SIG_DFL)

        def flush_and_die() -> None:
            self._ending.flush()
            os.kill(os.getpid(), signum)

        dying = _start(flush_and_die)
        if dying is None:
            os.kill(os.getpid(), signum)
        elif not self._ending.is_under_way:
            # To the death: a main thread that went on could end the program with another status meanwhile.
            # One that is closing a pipeline must go on, or nothing would be exported.
            dying.join()


def _start(job: Callable[[], None]) -> threading.Thread | None:
    thread = threading.Thread(target=job, name="tracekit-termination", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # no thread is to be had
        report_failure("tracekit", "flush on SIGTERM", error)
        return None
    return thread


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


ending: Final = Ending()
