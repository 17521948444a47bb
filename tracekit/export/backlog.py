"""Sending what is on disk, oldest first, when the receiver is back: one process at a time, on a thread of its own."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, final

from tracekit._diagnostics import report_failure
from tracekit._fork import in_forked_child
from tracekit._threads import Empty, SimpleQueue, start_thread
from tracekit.export.answer import Refused, Taken, TooLarge, Unavailable
from tracekit.export.otlp import Request, joined
from tracekit.export.quiet import quiet
from tracekit.export.sender import jittered

if TYPE_CHECKING:
    from tracekit._threads import Running
    from tracekit.export.sender import Sender
    from tracekit.export.spool import Batch, Spool

# How often a spool is looked into that has nothing to send, or that another process empties.
_LOOK_EVERY_S: Final = 30.0
# Longer than any attempt and the wait after it.
_LEASE_MARGIN_S: Final = 40.0
# How long the end of a process waits for an attempt under way.
_STOP_S: Final = 0.2


@final
class Backlog:
    """
    Empties *spool* through *sender*.

    Args:
        spool: What is kept.
        sender: Sends it, and knows whether the receiver is there.
    """

    def __init__(self, spool: Spool, sender: Sender) -> None:
        self._spool: Final = spool
        self._sender: Final = sender
        self._is_stopped = False
        spool.on_kept = self.look
        self._begin()
        in_forked_child(self._begin)

    def _begin(self) -> None:
        self._thread: Running | None = None
        self._is_starting = False
        self._nudges: SimpleQueue[None] = SimpleQueue()

    def start(self) -> None:
        """Look into the spool from now on."""
        if self._thread is None and not self._is_starting and not self._is_stopped:
            self._is_starting = True
            self._thread = start_thread(self._work, "tracekit-backlog")
            self._is_starting = False

    def look(self) -> None:
        """Look into the spool now: something was put there."""
        self._nudges.put(None)

    def stop(self) -> None:
        """Send no more, and let another process do it."""
        self._is_stopped = True
        self.look()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def _work(self) -> None:
        while not self._is_stopped:
            try:
                with quiet():
                    wait_s = self._send_some()
            except Exception as error:  # noqa: BLE001  # the thread must go on
                report_failure("spool", "sending what it keeps", error)
                wait_s = _LOOK_EVERY_S
            self._sleep(wait_s)
        self._spool.release()

    def _sleep(self, wait_s: float) -> None:
        try:
            self._nudges.get(timeout=wait_s)
            while True:  # one look answers them all
                self._nudges.get_nowait()
        except Empty:
            return

    def _send_some(self) -> float:
        """Send what there is while the receiver takes it; return when to look again, in seconds."""
        while not self._is_stopped and not self._sender.is_down:
            batch = self._spool.claim(self._sender.timeout_s + _LEASE_MARGIN_S)
            if batch is None:
                return jittered(_LOOK_EVERY_S)
            self._send(batch)
        return self._sender.down_for_s

    def _send(self, batch: Batch) -> None:
        """Send *batch*, and settle what the receiver has taken or refused."""
        lost: Counter[str] = Counter()
        rest: list[Request] = []
        waiting = [batch.request]
        while waiting:
            request = waiting.pop(0)
            if rest:
                rest.append(request)
                continue
            match answer := self._sender.attempt(request.body):
                case Taken():
                    lost["rejected"] += min(answer.rejected, request.spans)
                case TooLarge() if halves := request.halves():
                    waiting[:0] = halves
                case TooLarge():
                    lost["too_large"] += request.spans
                case Refused():
                    lost["export_failed"] += request.spans
                case Unavailable():
                    rest.append(request)
        left = sum(request.spans for request in rest)
        if left < batch.request.spans:
            exported = batch.request.spans - left - sum(lost.values())
            self._spool.settle(batch, exported, +lost, joined(rest) if rest else None)
