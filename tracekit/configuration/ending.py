"""
The end of the process: at exit, on the signals that end it, and at the end of a forked worker, spans are exported.

Only this module and `_exit` register exit functions, and only this module handles signals.
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
from tracekit._exit import at_the_end
from tracekit._fork import around_fork, in_forked_child
from tracekit._threads import Running, run_aside
from tracekit.configuration.waking import keep_awake
from tracekit.recording import end_open_spans

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tracekit.recording import Pipeline

EXIT_TIMEOUT_S: Final = 5.0
# How long a program's own handler may be kept waiting: it may be about to leave without any exit functions.
_HANDLER_TIMEOUT_S: Final = 1.0
# What a pipeline may take beyond its time to finish its books.
_GRACE_S: Final = 0.5
# Below every finalizer that multiprocessing runs for the user's pools and queues.
_FINALIZER_PRIORITY: Final = -1_000
# Frames that a handler needs and a main thread deep in a recursion may not have left.
_HEADROOM: Final = 200
# What runs between the start of a span and its export, and how long a signal waits for the main thread to come out.
_PIPELINE: Final = ("tracekit.recording.", "tracekit.export.", "tracekit.sampling.", "tracekit._stats")
_POSTPONED_S: Final = 0.02
_MOST_POSTPONED: Final = 50
# Handled where a program leaves them to the system, which kills it. Ctrl-C is an exception: exit functions run then.
_DEADLY: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


_Handler: TypeAlias = "Callable[[int, FrameType | None], Any] | int"


@final
class Ending:
    """Watches over the open pipelines of this process until its end."""

    def __init__(self) -> None:
        # Two while one takes the other's place.
        self._pipelines: tuple[Pipeline, ...] = ()
        self._timeout_s = EXIT_TIMEOUT_S
        # When the process has been held up long enough; None until it ends.
        self._deadline_s: float | None = None
        self._is_exiting = False
        self._is_leaving = False
        self._is_registered = False
        self._held: Final = threading.local()
        self._last_words: list[Callable[[], None]] = []

    def watch(self, pipeline: Pipeline, timeout_s: float = EXIT_TIMEOUT_S) -> None:
        """From now on export what is in *pipeline* when the process ends, which is held up for *timeout_s* at most."""
        self._pipelines += (pipeline,)
        self._timeout_s = timeout_s
        if not self._is_registered:
            self._is_registered = True
            # Twice: now while the exporters' libraries still work, which may have exit functions of their own, then
            # what the program's exit functions have traced.
            atexit.register(self._at_exit, self.flush)
            at_the_end(lambda: self._at_exit(self.leave))
            in_forked_child(self._begin_in_child)
            if hasattr(signal, "pthread_sigmask"):
                around_fork(self._hold_signals, self._release_signals, self._release_signals)
            self._register_with_multiprocessing()
            self._register_with_celery()
        self._handle_signals()

    def forget(self, pipeline: Pipeline) -> None:
        """Stop watching *pipeline*, which is shut down."""
        self._pipelines = tuple(other for other in self._pipelines if other is not pipeline)
        if self._pipelines or not _in_main_thread():
            return
        for signum in _DEADLY:
            current = signal.getsignal(signum)
            if isinstance(current, _TerminationHandler):
                signal.signal(signum, current.previous)

    @property
    def is_under_way(self) -> bool:
        """Whether the process is ending, or a pipeline is being closed at this moment."""
        return self._is_exiting or self._is_leaving or any(pipeline.is_closing for pipeline in self._pipelines)

    @property
    def left_s(self) -> float:
        """How long the process may still be held up, in seconds; the first to ask starts the clock."""
        if self._deadline_s is None:
            self._deadline_s = time.monotonic() + self._timeout_s
        return max(0.0, self._deadline_s - time.monotonic())

    def give_up(self) -> None:
        """Hold the process up no longer."""
        self._deadline_s = time.monotonic()

    def before_death(self, say: Callable[[], None]) -> None:
        """Call *say* before this process, not a fork of it, dies of a signal, which runs no exit functions."""
        self._last_words.append(say)

    def say_last_words(self) -> None:
        """Do what was asked for by `before_death`, once."""
        while self._last_words:
            say = self._last_words.pop()
            try:
                say()
            except Exception as error:  # noqa: BLE001  # such as stderr, written to when the signal came
                report_failure("tracekit", "what is to be told at the end", error)

    def flush(self) -> None:
        """Export what is queued, in half of the time: the process is about to end, and `leave` follows."""
        for pipeline in self._pipelines:
            pipeline.flush(int(self.left_s * 1000 / 2))

    def leave(self) -> None:
        """Export everything, what is still open too, and close: the process ends."""
        is_first, self._is_leaving = not self._is_leaving, True
        for pipeline in self._pipelines:
            if is_first and not pipeline.is_closing:
                end_open_spans(pipeline)
        for pipeline in self._pipelines:
            pipeline.close(int(self.left_s * 1000))

    def flush_aside(self) -> Running | None:
        """Begin to export what is queued, and expect the end at any moment; the program may go on, though."""
        for pipeline in self._pipelines:
            pipeline.hurry()
        return _aside(lambda: [pipeline.flush(int(self._timeout_s * 1000)) for pipeline in self._pipelines])

    def leave_aside(self, then: Callable[[], None]) -> Running | None:
        """Begin to export everything, and *then* do what is to be done."""

        def leave() -> None:
            try:
                self.leave()
            finally:
                then()

        return _aside(leave)

    def _at_exit(self, job: Callable[[], None]) -> None:
        self._is_exiting = True
        try:
            job()
        except KeyboardInterrupt:
            self.give_up()

    def _begin_in_child(self) -> None:
        self._deadline_s = None
        self._is_exiting = False
        self._is_leaving = False
        # The parent's.
        self._last_words.clear()
        self._register_with_celery()

    def _hold_signals(self) -> None:
        # The interpreter of a child forgets what came before it was ready to run handlers: a signal sent at once, which
        # would have killed the child, would be lost.
        self._held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _DEADLY)

    def _release_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._held.mask)

    def _register_with_multiprocessing(self) -> None:
        # Forked workers leave by os._exit(), which runs multiprocessing's finalizers and no exit functions.
        from multiprocessing import parent_process, util

        def in_worker(ending: Ending) -> None:
            util.Finalize(None, ending.leave, exitpriority=_FINALIZER_PRIORITY)
            if isinstance(signal.getsignal(signal.SIGTERM), _TerminationHandler):
                keep_awake(_DEADLY)

        util.register_after_fork(self, in_worker)
        if parent_process() is not None:
            in_worker(self)  # set up in a worker itself, which may have been forked by a fork server

    def _register_with_celery(self) -> None:
        # Its prefork workers leave by os._exit() and run no finalizers, but tell it before.
        signals = sys.modules.get("celery.signals")
        if signals is not None:
            signals.worker_process_shutdown.connect(self._on_celery_shutdown)

    def _on_celery_shutdown(self, **_signal: object) -> None:
        self.leave()

    def _handle_signals(self) -> None:
        """Put our handlers before the program's own; only the main thread may."""
        if not _in_main_thread():
            return
        for signum in _DEADLY:
            previous = signal.getsignal(signum)
            # None: set by something that is not Python, which could not be called. SIG_IGN: the program wants to live.
            if previous is None or previous is signal.SIG_IGN or isinstance(previous, _TerminationHandler):
                continue
            # A handler of its own does not mean the end, but for SIGTERM.
            if previous is not signal.SIG_DFL and signum != signal.SIGTERM:
                continue
            with contextlib.suppress(ValueError):  # in another interpreter than the main one
                signal.signal(signum, _TerminationHandler(self, previous))


@final
class _TerminationHandler:
    """
    Exports what is there, then does what the signal did before.

    The export runs on a thread and has its time: the main thread may hold, at this moment, a lock that it needs.
    """

    def __init__(self, ending: Ending, previous: _Handler) -> None:
        self._ending: Final = ending
        self.previous: Final = previous
        self._postponed = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        with _headroom():
            # The first process of a container goes on as well: the system kills it by no signal that it leaves to it.
            if not callable(self.previous) and os.getpid() != 1:
                if self._ending.is_under_way or not _is_busy(frame) or not self._postpone(signum):
                    self._die(signum)
                return
            self._prepare()
        if callable(self.previous):
            self.previous(signum, frame)

    def _prepare(self) -> None:
        # The program goes on for a while; servers such as uvicorn then end it by a second, deadly signal.
        exporting = self._ending.flush_aside()
        if exporting is not None and not self._ending.is_under_way:
            exporting.join(_HANDLER_TIMEOUT_S)

    def _postpone(self, signum: int) -> bool:
        """Let the main thread come out of where it is, and send *signum* again; tells whether that was possible."""

        def send_again() -> None:
            time.sleep(_POSTPONED_S)
            os.kill(os.getpid(), signum)

        self._postponed += 1
        return self._postponed <= _MOST_POSTPONED and _aside(send_again) is not None

    def _die(self, signum: int) -> None:
        # A second signal kills at once.
        for deadly in _DEADLY:
            if isinstance(signal.getsignal(deadly), _TerminationHandler):
                signal.signal(deadly, signal.SIG_DFL)

        def kill() -> None:
            os.kill(os.getpid(), signum)

        self._ending.say_last_words()
        is_closing = self._ending.is_under_way
        leaving = self._ending.leave_aside(kill)
        if is_closing and leaving is not None:
            # One that is closing a pipeline must go on, or nothing would be exported.
            return
        # To the death: a main thread that went on could end the program with another status meanwhile.
        if leaving is not None:
            try:
                leaving.join(self._ending.left_s + _GRACE_S)
            except BaseException:  # Ctrl-C
                self._ending.give_up()
                raise
        kill()


def _is_busy(frame: FrameType | None) -> bool:
    """Tell whether the main thread, interrupted in *frame*, may hold a lock of the pipeline that exporting needs."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(_PIPELINE):
            return True
        frame = frame.f_back
    return False


def _aside(job: Callable[[], object]) -> Running | None:
    def run() -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001  # nothing on this thread is meant for the program
            report_failure("tracekit", "exporting at the end", error)

    thread = run_aside(run)
    if thread is None:
        report_failure("tracekit", "exporting at the end")
    return thread


@final
class _headroom:  # noqa: N801  # used as a function
    """Frames for a handler that interrupts a recursion at its limit, where the signal would be lost."""

    __slots__ = ("_limit",)

    def __enter__(self) -> None:
        self._limit = sys.getrecursionlimit()
        sys.setrecursionlimit(self._limit + _HEADROOM)

    def __exit__(self, *_exc: object) -> None:
        sys.setrecursionlimit(self._limit)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


ending: Final = Ending()
