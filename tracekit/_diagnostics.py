"""Failures inside tracekit: counted, logged once, kept from the caller. Nothing else logs them."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from types import CodeType

logger: Final = logging.getLogger("tracekit")

# Operations are few; the bound only guards against names made at run time.
_MAX_REMEMBERED: Final = 1_000


@final
class Diagnostics:
    """What went wrong in this process so far."""

    __slots__ = ("_lock", "_reported", "internal_errors")

    def __init__(self) -> None:
        self.internal_errors = 0
        self._lock = threading.RLock()
        self._reported: set[tuple[str, str]] = set()

    def report(self, operation: str, what: str, error: BaseException | None = None) -> None:
        """
        Count a failure of ours and log the first of its kind.

        The log line has the type of *error*, never its message: a message may quote a value.

        Args:
            operation: The span name, or the part of tracekit, that failed.
            what: What failed there ("attribute 'order.id'").
            error: The exception that was kept from the caller.
        """
        try:
            with self._lock:
                self.internal_errors += 1
                key = (operation, what)
                if key in self._reported or len(self._reported) >= _MAX_REMEMBERED:
                    return
                self._reported.add(key)
            # Outside the lock: a logging handler may be traced itself.
            logger.warning(
                "tracekit: %s: %s failed%s; the program goes on, further failures of this kind are only counted",
                operation,
                what,
                f" ({type(error).__name__})" if error is not None else "",
            )
        except Exception:  # noqa: BLE001  # a log handler or the recursion limit: nothing is left to tell it to
            return

    def reset(self) -> None:
        """Forget everything (tests)."""
        self.internal_errors = 0
        self._lock = threading.RLock()
        self._reported = set()

    def renew_lock(self) -> None:
        """Free a forked child of a lock another thread may have held at the moment of the fork."""
        self._lock = threading.RLock()


diagnostics: Final = Diagnostics()
report_failure: Final = diagnostics.report


# What plugged-in code and values may raise and be forgiven. Not KeyboardInterrupt and not the exceptions by which
# gevent and trio end a task: those are meant for the program, and only happened to arrive here.
FORGIVEN: Final = (Exception, SystemExit)


def forgive(operation: str, what: str, error: BaseException) -> None:
    """
    Report *error*; raise it again if a signal handler has raised it.

    A handler runs wherever the main thread happens to be. A `sys.exit()` or a time limit raised there is meant for the
    program, also when the program was just starting a span.
    """
    try:
        is_meant_for_program = _from_signal_handler(error)
    except RecursionError:  # no room to find out; a caller that cannot go on would not end its span
        return
    if is_meant_for_program:
        raise error
    report_failure(operation, what, error)


def _from_signal_handler(error: BaseException) -> bool:
    step = error.__traceback__
    handlers = {code for code in map(_handler_code, signal.valid_signals()) if code is not None}
    while step is not None:
        if step.tb_frame.f_code in handlers:
            return True
        step = step.tb_next
    return False


def _handler_code(signum: int) -> CodeType | None:
    handler = signal.getsignal(signum)
    if not callable(handler):
        return None
    function = getattr(handler, "__func__", handler)  # of a bound method
    return getattr(function, "__code__", None) or getattr(type(handler).__call__, "__code__", None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=diagnostics.renew_lock)
