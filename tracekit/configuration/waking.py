"""
Signals that the main thread of a worker would sleep through.

A handler written in Python runs when the main thread comes back to the interpreter. The workers of a pool wait for a
semaphore, and glibc goes on waiting, and says nothing, if a signal comes together with a wake-up that was for another
worker: `Pool.terminate()`, which the system's own handling would have obeyed, would wait for such a worker for ever.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from tracekit._threads import run_aside

if TYPE_CHECKING:
    from collections.abc import Collection

_PAUSE_S: Final = 0.05
_WAKES: Final = 40
# Where this process, or the worker it was forked from, is told of signals.
_told_at = -1


def keep_awake(signums: Collection[int]) -> None:
    """Wake the main thread, which calls this, until it has handled those of *signums* that come."""
    global _told_at  # noqa: PLW0603  # there is one process
    # Its default is to be ignored, and nobody uses it: what interrupts a wait is that there is a handler.
    alarm = getattr(signal, "SIGURG", None)
    if alarm is None or signal.getsignal(alarm) not in (signal.SIG_DFL, _ignore) or "trio" in sys.modules:
        return  # trio warns of everybody else who asks to be told of signals
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        signal.signal(alarm, _ignore)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    except ValueError:  # not the main thread after all, or another interpreter
        before = None
    if before not in (-1, _told_at):
        if before is not None:
            signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
        return
    _told_at = writing
    main = threading.get_ident()

    def watch() -> None:
        while told := os.read(reading, 64):
            if not set(told) & set(signums):
                continue
            for _ in range(_WAKES):
                time.sleep(_PAUSE_S)
                signal.pthread_kill(main, alarm)

    run_aside(watch)


def _ignore(_signum: int, _frame: object) -> None:
    """Do nothing: the main thread is awake."""
