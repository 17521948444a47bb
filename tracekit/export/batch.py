"""Exporting in batches: a queue between the threads that end spans and the one thread that exports them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SpanExportResult

from tracekit._diagnostics import report_failure
from tracekit._fork import in_forked_child
from tracekit._threads import Empty, Event, RLock, Running, SimpleQueue, start_thread
from tracekit.errors import ConfigurationError
from tracekit.export.accountable import AccountableExporter, Outcome, export
from tracekit.export.losses import Losses
from tracekit.export.otlp import chunks
from tracekit.export.queue import TAKEN_WITH_CARE, SpanQueue
from tracekit.export.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from tracekit._stats import Counters
    from tracekit.export.spool import Spool

DEFAULT_MAX_QUEUE_SIZE: Final = 100_000
DEFAULT_MAX_QUEUE_BYTES: Final = 64 * 1024 * 1024
DEFAULT_MAX_BATCH_SIZE: Final = 512
DEFAULT_SCHEDULE_DELAY_S: Final = 5.0
DEFAULT_EXPORT_TIMEOUT_S: Final = 30.0
DEFAULT_SHUTDOWN_TIMEOUT_S: Final = 5.0

# With a delay of 0 the thread would spin.
_SHORTEST_DELAY_S: Final = 0.01
# How long a thread that makes more spans than can be sent waits, once in 64 spans while half the queue is full.
_PAUSE_S: Final = 0.000_5
_THREAD: Final = "tracekit-export"
# The part of a shutdown's time that is left, where there is a spool, for writing what could not be sent.
_KEEPING: Final = 0.4
# Spans put on disk at once; between two of these the time is looked at.
_KEPT_AT_ONCE: Final = 4_096


@final
class _Flush:
    """Somebody waits until all that is queued now has been exported; with the *last* one the thread ends."""

    __slots__ = ("deadline_s", "done", "is_last", "succeeded")

    def __init__(self, timeout_s: float, *, is_last: bool = False) -> None:
        self.deadline_s: Final = time.monotonic() + timeout_s
        self.is_last: Final = is_last
        self.done: Final = Event()
        self.succeeded = False

    @property
    def left_s(self) -> float:
        return max(0.0, self.deadline_s - time.monotonic())


@final
class BatchProcessor(SpanProcessor):
    """
    Exports spans in batches, on a thread of its own that starts with the first span.

    Ending a span never blocks and takes no lock, so signal handlers, finalisers and logging handlers may end spans
    at any point, even inside this processor. A forked child begins with an empty queue: what is queued is its parent's.

    Args:
        exporter: Gets one batch at a time.
        counters: Where spans are counted.
        max_queue_size: Spans that wait at most; further ones go to the spool, or are dropped, until there is room.
        max_queue_bytes: About how many bytes they take at most.
        schedule_delay_s: How long a span waits, in seconds, for its batch to be full.
        max_batch_size: Spans handed to the exporter at once.
        export_timeout_s: How long a flush that names no time waits, in seconds.
        spool: Takes what the exporter leaves unsent, what there is no room for, and what is left at shutdown.

    Raises:
        ConfigurationError: If a size is not 1 or more, or a time negative.

    Source: OpenTelemetry specification, trace/sdk, batching processor.
    """

    # A RecursionError from `on_end` means that the span was not taken.
    is_whole_or_not_at_all: Final = True

    def __init__(
        self,
        exporter: SpanExporter,
        counters: Counters,
        *,
        max_queue_size: int = DEFAULT_MAX_QUEUE_SIZE,
        max_queue_bytes: int = DEFAULT_MAX_QUEUE_BYTES,
        schedule_delay_s: float = DEFAULT_SCHEDULE_DELAY_S,
        max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
        export_timeout_s: float = DEFAULT_EXPORT_TIMEOUT_S,
        spool: Spool | None = None,
    ) -> None:
        _check_size("max_queue_size", max_queue_size)
        _check_size("max_queue_bytes", max_queue_bytes)
        _check_size("max_batch_size", max_batch_size)
        _check_time("schedule_delay_s", schedule_delay_s)
        _check_time("export_timeout_s", export_timeout_s)
        self._exporter: Final = exporter
        self._spool: Final = spool
        self._max_batch_size: Final = min(max_batch_size, max_queue_size)
        # From so many on, threads that end spans let the exporting thread catch up.
        self._much: Final = max_queue_size // 2
        self._delay_s: Final = max(schedule_delay_s, _SHORTEST_DELAY_S)
        self._export_timeout_s: Final = export_timeout_s
        self._queue: Final = SpanQueue(max_queue_size, max_queue_bytes, self._max_batch_size, spool)
        self._losses: Final = Losses(self._queue.lost)
        self._is_closing = False
        self._is_closed = False
        self._exporter_is_closed = False
        self._begin()
        counters.include(self._queue.books)
        in_forked_child(self._start_empty)

    def _start_empty(self) -> None:
        self._queue.start_empty()
        self._losses.forget()
        self._begin()

    def _begin(self) -> None:
        # Re-entrant, which the Condition of other queues is not. None says that a batch is full.
        self._wakes: SimpleQueue[_Flush | None] = SimpleQueue()
        self._is_woken = False
        self._starting = RLock()
        self._thread: Running | None = None
        self._thread_id = 0
        self._is_starting = False
        self._is_spilling = False
        # Whether the exporter has got rid of the last batch; of the first one it is hoped.
        self._is_taken = True
        # Until the disk takes nothing; then the queue is as if there was no spool, for a while.
        self._spills = True
        self._lost_at_flush = 0

    def on_end(self, span: ReadableSpan) -> None:
        """Queue *span* if it is sampled."""
        context = span.context
        if context is None or not context.trace_flags.sampled:
            return
        self.take(span)

    def take(self, span: ReadableSpan) -> None:
        """Queue *span*, which is sampled; raises only a RecursionError."""
        queue = self._queue
        waiting = len(queue.spans)
        # Mostly nothing is to be looked at: 0.2 µs less.
        if waiting >= queue.free_until or not waiting & TAKEN_WITH_CARE:
            self._take_with_care(span)
            return
        queue.spans.append(span)
        if self._is_closed:  # meanwhile
            queue.give_up("after_shutdown")

    def _take_with_care(self, span: ReadableSpan) -> None:
        if self._is_closing:
            self._queue.refuse("after_shutdown")
            self._losses.say()
            return
        waiting = self._queue.add(span)
        with suppress(RecursionError):  # the span is queued; another one will find room on the stack
            self._look_after(waiting)

    def _look_after(self, waiting: int) -> None:
        """See to it that what waits is exported: so many spans now, or 0 if the last one was dropped."""
        if not waiting:
            self._losses.say()
            return
        if self._thread is None:
            self._has_thread()
        if waiting >= self._max_batch_size:
            if not self._is_woken:
                self._is_woken = True
                self._wakes.put(None)
            if waiting >= self._much and self._is_taken and not waiting & TAKEN_WITH_CARE:
                # The receiver takes what it gets, and the interpreter's lock is all that the exporting thread lacks.
                with suppress(Empty):
                    SimpleQueue[None]().get(timeout=_PAUSE_S)
            if self._spool is not None and self._spills and not self._is_spilling and self._queue.is_crowded:
                self._is_spilling = True  # until the thread is done, which may be before this one goes on
                if start_thread(self._spill, "tracekit-spill") is None:
                    self._is_spilling = False
        if self._is_closed:
            self._queue.give_up("after_shutdown")

    def force_flush(self, timeout_millis: float | None = None) -> bool:
        """
        Export all spans that have ended.

        Args:
            timeout_millis: Longest wait in milliseconds (None: the export timeout).

        Returns:
            Whether all were exported: False if the time was up, or a span was lost since the last flush.
        """
        flush = _Flush(self._export_timeout_s if timeout_millis is None else timeout_millis / 1000)
        if self._thread is None and not self._queue:
            flush.succeeded = True
        elif threading.get_ident() != self._thread_id and not self._is_closing:
            self._ask(flush)
        lost = sum(self._queue.lost(fresh=True).values())
        lost, self._lost_at_flush = lost - self._lost_at_flush, lost
        return flush.succeeded and not lost

    def shutdown(self, timeout_millis: float = DEFAULT_SHUTDOWN_TIMEOUT_S * 1000) -> None:
        """
        Export all spans that have ended and close the exporter; what is left when the time is up is dropped.

        Args:
            timeout_millis: Longest wait in milliseconds, whatever the exporter does.
        """
        if self._is_closing:
            return
        self._is_closing = True
        self._queue.close()
        timeout_s = timeout_millis / 1000
        last = _Flush(timeout_s if self._spool is None else timeout_s * (1 - _KEEPING), is_last=True)
        try:
            self._ask(last)
        finally:
            self._is_closed = True
            self._keep_the_rest(timeout_s * _KEEPING)
            self._queue.give_up("shutdown")
            self._losses.say(now=True)
            if not last.done.is_set():
                # It may hang as well, so nobody waits for it; most exporters stop retrying when they are told.
                start_thread(self._close_exporter, _THREAD)
            if self._spool is not None:
                self._spool.close()

    def _ask(self, flush: _Flush) -> None:
        """Have *flush* served: by this very thread where no other is to be had, because the interpreter goes down."""
        has_thread = self._has_thread()
        if isinstance(self._exporter, AccountableExporter):
            self._exporter.hurry(within_s=flush.left_s, is_last=flush.is_last or not has_thread)
        if has_thread:
            self._wakes.put(flush)
            flush.done.wait(flush.left_s)
        else:
            self._serve(flush)

    def _spill(self) -> None:
        """Put the oldest spans on disk, while the exporter is busy, until there is room again."""
        try:
            while self._queue.is_crowded and self._spills:
                self._spills = self._keep(self._max_batch_size, "queue_full")
        finally:
            self._is_spilling = False

    def _keep_the_rest(self, time_s: float) -> None:
        """Put on disk what the exporter did not get to, or has not answered for."""
        if self._spool is None:
            return
        deadline_s = time.monotonic() + time_s
        self._queue.take_back()
        while time.monotonic() < deadline_s and self._keep(_KEPT_AT_ONCE, "shutdown"):
            pass

    def _keep(self, most: int, reason: str) -> bool:
        """Put the spans longest in the queue on disk; tells whether there were any, and they are there."""
        batch = self._queue.take(most)
        lost: Counter[str] = Counter()
        with quiet():
            requests = list(chunks(batch, on_unencodable=lambda: lost.update(unencodable=1)))
            outcome = Outcome(lost, requests)
            return self._queue.settle(batch, outcome) and self._queue.keep(outcome, reason)

    def _has_thread(self) -> bool:
        """Start the exporting thread if there is none; tells whether there is one now."""
        with self._starting:
            if self._thread is None and not self._is_starting:
                # A signal handler that ends a span meanwhile must not start a second one.
                self._is_starting = True
                try:
                    self._thread = start_thread(self._work, _THREAD)
                finally:
                    self._is_starting = False
            return self._thread is not None

    def _work(self) -> None:
        """Export until the last flush has been served."""
        self._thread_id = threading.get_ident()
        wakes = self._wakes
        due_s = time.monotonic() + self._delay_s
        while True:
            try:
                flush = wakes.get(timeout=max(0.0, due_s - time.monotonic()))
                is_due = False
            except Empty:
                flush, is_due = None, True
            # Before the queue is looked at: a span that comes later asks again.
            self._is_woken = False
            if flush is not None:
                self._serve(flush)
                if flush.is_last:
                    return
                continue
            waiting = len(self._queue)
            # A full batch goes at once, the rest of the queue when its time has come.
            goes = is_due or self._queue.is_heavy
            self._export(waiting if goes else waiting - waiting % self._max_batch_size)
            if is_due:
                self._spills = True
                self._losses.say()
                due_s = time.monotonic() + self._delay_s

    def _serve(self, flush: _Flush) -> None:
        self._export(len(self._queue))
        flush.succeeded = self._is_done("force_flush", lambda: self._exporter.force_flush(int(flush.left_s * 1000)))
        if flush.is_last:
            self._close_exporter()
        flush.done.set()

    def _export(self, spans: int) -> None:
        """Export the *spans* longest in the queue, batch by batch."""
        while spans > 0:
            batch = self._queue.take(min(spans, self._max_batch_size))
            if not batch:
                return  # a shutdown that could not wait has given the rest up
            outcomes: list[Outcome] = []
            if not self._is_done("export", partial(self._export_batch, batch, outcomes)):
                outcomes = [Outcome({"export_failed": len(batch)})]
            self._is_taken = not outcomes[0].lost and not outcomes[0].unsent
            if self._queue.settle(batch, outcomes[0]):
                self._queue.keep(outcomes[0], "export_failed")
            self._losses.say()
            spans -= len(batch)

    def _export_batch(self, batch: Sequence[ReadableSpan], outcomes: list[Outcome]) -> None:
        # A list of its own: an exporter may empty it.
        outcomes.append(export(self._exporter, list(batch)))

    def _is_done(self, what: str, job: Callable[[], object]) -> bool:
        try:
            with quiet():
                result = job()
        except BaseException as error:  # the user's exporter
            if self._thread is None and not isinstance(error, Exception):
                raise  # Ctrl-C, on a thread of the program's; on ours nobody else means anything by it
            report_failure(type(self._exporter).__name__, what, error)
            return False
        return result is not SpanExportResult.FAILURE and result is not False

    def _close_exporter(self) -> None:
        with self._starting:
            was_closed, self._exporter_is_closed = self._exporter_is_closed, True
        if not was_closed:
            self._is_done("shutdown", self._exporter.shutdown)


def _check_size(name: str, spans: object) -> None:
    if not isinstance(spans, int) or spans < 1:
        msg = f"{name}={spans!r}: expected a whole number, 1 or more. Leave it out for the default."
        raise ConfigurationError(msg)


def _check_time(name: str, time_s: object) -> None:
    if not isinstance(time_s, (int, float)) or not 0 <= time_s <= threading.TIMEOUT_MAX:
        msg = f"{name}={time_s!r}: expected seconds, 0 or more. Leave it out for the default."
        raise ConfigurationError(msg)
