"""The queue between the threads that end spans and the one thread that exports them."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SpanExportResult

from tracekit._diagnostics import report_failure
from tracekit._fork import in_forked_child
from tracekit._stats import Stats
from tracekit._threads import Empty, Event, RLock, Running, SimpleQueue, start_thread
from tracekit.errors import ConfigurationError
from tracekit.export.accountable import export
from tracekit.export.losses import Losses
from tracekit.export.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from tracekit._stats import Counters

# A span with a few attributes takes about 3 kB: 300 MB if the receiver stays away for long.
DEFAULT_MAX_QUEUE_SIZE: Final = 100_000
DEFAULT_MAX_BATCH_SIZE: Final = 512
DEFAULT_SCHEDULE_DELAY_S: Final = 5.0
DEFAULT_EXPORT_TIMEOUT_S: Final = 30.0
DEFAULT_SHUTDOWN_TIMEOUT_S: Final = 5.0

# With a delay of 0 the thread would spin.
_SHORTEST_DELAY_S: Final = 0.01
_THREAD: Final = "tracekit-export"


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
        max_queue_size: Spans that wait at most; further ones are dropped until there is room.
        schedule_delay_s: How long a span waits, in seconds, for its batch to be full.
        max_batch_size: Spans handed to the exporter at once.
        export_timeout_s: How long a flush that names no time waits, in seconds.

    Raises:
        ConfigurationError: If a size is not 1 or more, or a time negative.

    Source: OpenTelemetry specification, trace/sdk, batching processor.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        counters: Counters,
        *,
        max_queue_size: int = DEFAULT_MAX_QUEUE_SIZE,
        schedule_delay_s: float = DEFAULT_SCHEDULE_DELAY_S,
        max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
        export_timeout_s: float = DEFAULT_EXPORT_TIMEOUT_S,
    ) -> None:
        _check_size("max_queue_size", max_queue_size)
        _check_size("max_batch_size", max_batch_size)
        _check_time("schedule_delay_s", schedule_delay_s)
        _check_time("export_timeout_s", export_timeout_s)
        self._exporter: Final = exporter
        self._max_queue_size: Final = max_queue_size
        self._max_batch_size: Final = min(max_batch_size, max_queue_size)
        self._delay_s: Final = max(schedule_delay_s, _SHORTEST_DELAY_S)
        self._export_timeout_s: Final = export_timeout_s
        self._losses: Final = Losses(self._lost_so_far)
        self._is_closing = False
        self._is_closed = False
        self._exporter_is_closed = False
        self._start_empty()
        counters.include(self._books)
        in_forked_child(self._start_empty)

    def _start_empty(self) -> None:
        self._queue: deque[ReadableSpan] = deque()
        # One batch, but for a moment at the start of the thread and where no thread is to be had.
        self._exporting: list[Sequence[ReadableSpan]] = []
        # Re-entrant, which the Condition of other queues is not. None says that a batch is full.
        self._wakes: SimpleQueue[_Flush | None] = SimpleQueue()
        self._is_woken = False
        self._thread: Running | None = None
        self._thread_id = 0
        self._is_starting = False
        self._exported = 0
        self._dropped: dict[str, int] = {}
        # Two locks, for the exporting thread must get on while a thread that ends spans is stopped in a signal handler:
        # held while spans go from one figure to the next,
        self._moving = RLock()
        # and held while a span is refused, which the exporting thread never does.
        self._refusing = RLock()
        self._refused: dict[str, int] = {}
        self._lost_at_flush = 0
        self._losses.forget()

    def on_end(self, span: ReadableSpan) -> None:
        """Queue *span* if it is sampled."""
        context = span.context
        if context is None or not context.trace_flags.sampled:
            return
        if self._is_closing:
            self._refuse("after_shutdown")
            return
        if self._thread is None:
            self._has_thread()
        waiting = len(self._queue)
        if waiting >= self._max_queue_size:
            self._refuse("queue_full")
            return
        self._queue.append(span)
        if waiting + 1 >= self._max_batch_size and not self._is_woken:
            self._is_woken = True
            self._wakes.put(None)
        if self._is_closed:
            self._give_up("after_shutdown")

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
        lost = sum(self._lost_so_far().values())
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
        last = _Flush(timeout_millis / 1000, is_last=True)
        try:
            self._ask(last)
        finally:
            self._is_closed = True
            self._give_up("shutdown")
            self._losses.say(now=True)
            if not last.done.is_set():
                # It may hang as well, so nobody waits for it; most exporters stop retrying when they are told.
                start_thread(self._close_exporter, _THREAD)

    def _ask(self, flush: _Flush) -> None:
        """Have *flush* served: by this very thread where no other is to be had, because the interpreter goes down."""
        if self._has_thread():
            self._wakes.put(flush)
            flush.done.wait(flush.left_s)
        else:
            self._serve(flush)

    def _has_thread(self) -> bool:
        """Start the exporting thread if there is none; tells whether there is one now."""
        with self._moving:
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
            self._export(waiting if is_due else waiting - waiting % self._max_batch_size)
            if is_due:
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
            batch = self._take(min(spans, self._max_batch_size))
            if not batch:
                return  # a shutdown that could not wait has given the rest up
            lost: dict[str, int] = {}
            if not self._is_done("export", partial(self._export_batch, batch, lost)):
                lost = {"export_failed": len(batch)}
            self._settle(batch, lost)
            spans -= len(batch)

    def _export_batch(self, batch: Sequence[ReadableSpan], lost: dict[str, int]) -> None:
        # A list of its own: an exporter may empty it.
        lost.update(export(self._exporter, list(batch)))

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
        with self._moving:
            was_closed, self._exporter_is_closed = self._exporter_is_closed, True
        if not was_closed:
            self._is_done("shutdown", self._exporter.shutdown)

    def _take(self, most: int) -> Sequence[ReadableSpan]:
        with self._moving:
            batch = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            if batch:
                self._exporting.append(batch)
            return batch

    def _settle(self, batch: Sequence[ReadableSpan], lost: Mapping[str, int]) -> None:
        with self._moving:
            # Not ours any more if a shutdown that could not wait has given it up, or a fork has left it to the parent.
            if not any(exporting is batch for exporting in self._exporting):
                return
            self._exporting = [exporting for exporting in self._exporting if exporting is not batch]
            self._exported += len(batch) - sum(lost.values())
            for reason, spans in lost.items():
                self._drop(reason, spans)
        self._losses.say()

    def _give_up(self, reason: str) -> None:
        """Drop all that is still here."""
        with self._moving:
            spans = sum(map(len, self._exporting))
            self._exporting = []
            while self._queue:
                self._queue.popleft()
                spans += 1
            if spans:
                self._drop(reason, spans)

    def _drop(self, reason: str, spans: int) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + spans

    def _refuse(self, reason: str) -> None:
        with self._refusing:
            self._refused[reason] = self._refused.get(reason, 0) + 1
        self._losses.say()

    def _lost_so_far(self) -> Mapping[str, int]:
        return MappingProxyType(Counter(self._dropped) + Counter(self._refused))

    def _books(self) -> Stats:
        with self._moving:
            return Stats(
                exported=self._exported,
                queued=len(self._queue) + sum(map(len, self._exporting)),
                dropped=self._lost_so_far(),
            )


def _check_size(name: str, spans: object) -> None:
    if not isinstance(spans, int) or spans < 1:
        msg = f"{name}={spans!r}: expected a number of spans, 1 or more. Leave it out for the default."
        raise ConfigurationError(msg)


def _check_time(name: str, time_s: object) -> None:
    if not isinstance(time_s, (int, float)) or not 0 <= time_s <= threading.TIMEOUT_MAX:
        msg = f"{name}={time_s!r}: expected seconds, 0 or more. Leave it out for the default."
        raise ConfigurationError(msg)
