"""The spans that wait for an exporter, and the books of where each of them went."""

from __future__ import annotations

from collections import Counter, deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from tracekit._stats import Stats
from tracekit._threads import RLock
from tracekit.export.weight import weight_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from tracekit.export.accountable import Outcome
    from tracekit.export.spool import Spool

# Traces that have lost a span, remembered so that they do not take the room of whole ones.
_MAX_BROKEN: Final = 10_000
# To weigh a span takes as long as all the rest of queueing it. So that is left until this many wait, but for a sample;
# once one of the sample is so heavy that these few could be too many bytes, every span is weighed.
_UNWEIGHED: Final = 4_096
TAKEN_WITH_CARE: Final = 0b111111
# From where on the spool takes spans, while the exporter is busy.
_CROWDED: Final = 0.75
# The part of the bytes that is a batch, whatever the number of spans.
_HEAVY: Final = 0.125


@final
class SpanQueue:
    """
    A bounded queue that drops what comes when it is full, and accounts for every span.

    A span is in one of these places: in the queue, in a batch (`take`) until that is settled, on its way to the disk,
    or in the figures. Adding takes no lock, so signal handlers and finalisers may add at any point.

    Args:
        max_spans: Spans that wait at most.
        max_bytes: Bytes of spans that wait, about, at most.
        max_batch: Spans taken at once at most.
        spool: Where spans go that cannot be sent; its figures belong to these books.
    """

    def __init__(self, max_spans: int, max_bytes: int, max_batch: int, spool: Spool | None) -> None:
        self._max_spans: Final = max_spans
        self._max_bytes: Final = max_bytes
        self._max_batch: Final = max_batch
        self._spool: Final = spool
        self.start_empty()

    def start_empty(self) -> None:
        """Begin anew (a forked child): what is here is the parent's."""
        self.spans: deque[ReadableSpan] = deque()
        # Where the queue was full it takes new spans only when a batch has gone, or every trace would lose some.
        self._most = self._max_spans
        # Added to by threads that end spans and by those that take them: no lock for an estimate.
        self._bytes_in = 0
        self._bytes_out = 0
        self._weighed_from = _UNWEIGHED
        self._broken: dict[int, None] = {}
        self._is_closed = False
        self._reckon()
        # One batch, but for a moment at the start of the thread and where no thread is to be had.
        self._taken: list[Sequence[ReadableSpan]] = []
        self._on_the_way = 0
        self._kept = 0
        self._exported = 0
        self._dropped: dict[str, int] = {}
        # Two locks, for the exporting thread must get on while a thread that ends spans is stopped in a signal handler:
        # held while spans go from one figure to the next,
        self._moving = RLock()
        # and held while a span is refused, which the exporting thread never does.
        self._refusing = RLock()
        self._refused: dict[str, int] = {}

    def _reckon(self) -> None:
        """Settle below how many waiting ones a span may just be appended to `spans`, but for `TAKEN_WITH_CARE`."""
        is_simple = not self._broken and not self._is_closed and self._max_batch > TAKEN_WITH_CARE
        self.free_until = min(self._most, self._weighed_from) if is_simple else 0

    def close(self) -> None:
        """Have no span appended without a look from now on."""
        self._is_closed = True
        self._reckon()

    def __len__(self) -> int:
        return len(self.spans)

    def add(self, span: ReadableSpan) -> int:
        """Queue *span*; return how many wait now (a batch at least, if these are heavy), or 0 if it was dropped."""
        waiting = len(self.spans)
        try:
            return self._add_with_care(waiting, span)
        except RecursionError:
            pass  # the stack has no room to look at anything; it has been left as it was
        self.spans.append(span)
        return waiting + 1

    def _add_with_care(self, waiting: int, span: ReadableSpan) -> int:
        trace_id = 0 if span.context is None else span.context.trace_id
        is_weighed = waiting >= self._weighed_from or not waiting & TAKEN_WITH_CARE
        if waiting >= self._most or trace_id in self._broken or (is_weighed and not self._bears(span)):
            self._refuse_for_room(trace_id, is_full=waiting >= self._max_spans)
            return 0
        seems = max(waiting + 1, self._max_batch) if self.is_heavy else waiting + 1
        self.spans.append(span)
        return seems

    def _bears(self, span: ReadableSpan) -> bool:
        """Weigh *span*; tells whether there is room for so many bytes."""
        weight = weight_of(span)
        if weight > self._max_bytes // _UNWEIGHED:
            self._weighed_from = 0
            self._reckon()
        if self._bytes_in - self._bytes_out + weight > self._max_bytes:
            return False
        self._bytes_in += weight
        return True

    @property
    def is_heavy(self) -> bool:
        """Whether so many bytes wait that they should not wait to be more."""
        return self._bytes_in - self._bytes_out > self._max_bytes * _HEAVY

    @property
    def is_crowded(self) -> bool:
        """Whether it will soon be full."""
        held = self._bytes_in - self._bytes_out
        return len(self.spans) >= self._max_spans * _CROWDED or held >= self._max_bytes * _CROWDED

    def refuse(self, reason: str) -> None:
        """Count a span that is not taken in."""
        with self._refusing:
            self._refused[reason] = self._refused.get(reason, 0) + 1

    def _refuse_for_room(self, trace_id: int, *, is_full: bool) -> None:
        with self._refusing:
            if is_full:
                self._most = max(1, self._max_spans - self._max_batch)
            if trace_id not in self._broken:
                if len(self._broken) >= _MAX_BROKEN:
                    del self._broken[next(iter(self._broken))]
                self._broken[trace_id] = None
            self._reckon()
            self.refuse("queue_full")

    def take(self, most: int) -> Sequence[ReadableSpan]:
        """Return the spans that have waited longest, as a batch to be settled."""
        with self._moving:
            waiting = len(self.spans)
            batch = [self.spans.popleft() for _ in range(min(most, waiting))]
            if batch:
                self._taken.append(batch)
            # As if all were of the same weight: to weigh them again would take as long as to write a tenth of them.
            held = self._bytes_in - self._bytes_out
            self._bytes_out += held * len(batch) // waiting if len(batch) < waiting else held
            if len(self.spans) < self._most:
                self._most = self._max_spans
                self._reckon()
            return batch

    def settle(self, batch: Sequence[ReadableSpan], outcome: Outcome) -> bool:
        """
        Enter what became of *batch*; what is unsent is now on its way to the disk.

        Returns:
            Whether it was here: not if a shutdown that could not wait has taken it, or a fork left it to the parent.
        """
        with self._moving:
            if not any(taken is batch for taken in self._taken):
                return False
            self._taken = [taken for taken in self._taken if taken is not batch]
            unsent = sum(request.spans for request in outcome.unsent)
            self._exported += len(batch) - unsent - sum(outcome.lost.values())
            self._on_the_way += unsent
            for reason, spans in outcome.lost.items():
                self._drop(reason, spans)
            return True

    def keep(self, outcome: Outcome, otherwise: str) -> bool:
        """Put what is unsent on disk, or drop it for the reason *otherwise*; tells whether it is there."""
        spans = sum(request.spans for request in outcome.unsent)
        is_kept = self._spool is not None and self._spool.add(outcome.unsent) if spans else True
        with self._moving:
            self._on_the_way -= spans
            if is_kept:
                self._kept += spans
            else:
                self._drop(otherwise, spans)
        return is_kept

    def take_back(self) -> None:
        """Put what has been taken and not settled back to the front."""
        with self._moving:
            for batch in reversed(self._taken):
                self.spans.extendleft(reversed(batch))
            self._taken = []

    def give_up(self, reason: str) -> None:
        """Drop all that is still here."""
        with self._moving:
            self.take_back()
            spans = 0
            while self.spans:
                self.spans.popleft()
                spans += 1
            if spans:
                self._drop(reason, spans)

    def _drop(self, reason: str, spans: int) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + spans

    def lost(self, *, fresh: bool = False) -> Mapping[str, int]:
        """
        Return the spans lost so far, by reason.

        Args:
            fresh: Whether to ask the disk; else as it was when last asked.
        """
        lost = Counter(self._dropped) + Counter(self._refused)
        if self._spool is not None:
            lost += Counter(self._spool.fates(self._kept, fresh=fresh).lost)
        return MappingProxyType(lost)

    def books(self) -> Stats:
        """Return where all spans are."""
        with self._moving:
            lost = self.lost(fresh=True)
            kept = None if self._spool is None else self._spool.fates(self._kept, fresh=False)
            return Stats(
                exported=self._exported + (0 if kept is None else kept.exported),
                spooled=0 if kept is None else kept.spooled,
                queued=len(self.spans) + sum(map(len, self._taken)) + self._on_the_way,
                dropped=lost,
            )
