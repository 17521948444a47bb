"""Files and pipes that grow: their new lines, and the traces in them once nothing more is to be expected."""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, Protocol, final

from tracekit.view.lines import GZIP, LineSplitter
from tracekit.view.reading import SpanReader
from tracekit.view.sorting import without_repeats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tracekit.export.record import SpanRecord

_POLL_S: Final = 0.2
_CHUNK: Final = 1 << 20
# A whole trace is shown after so much quiet; one that misses spans, once it is as old as a batch may be late.
_QUIET_S: Final = 0.5
_STALE_S: Final = 10.0
# The other side of a request is another program's, whose batches are five seconds late.
_OTHER_SIDE_S: Final = 6.0
_DATABASE: Final = ("db.system.name", "db.system")
_NS: Final = 1_000_000_000
_MAX_WAITING: Final = 100_000
_MAX_REMEMBERED: Final = 10_000
# Windows lets nobody rename a file that is open.
_KEEPS_OPEN: Final = os.name != "nt"


class Source(Protocol):
    """Where lines come from as time goes by."""

    @property
    def is_over(self) -> bool:
        """Whether no more will come."""
        ...

    def lines(self) -> Iterator[bytes]:
        """Yield the whole lines that have come since the last time."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...


@final
class GrowingFile:
    """
    A file that somebody appends to; if it is moved away, cut to nothing or made later, the file of that name then.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.is_over = False
        self._path = path
        self._splitter = LineSplitter()
        self._file: BinaryIO | None = None
        self._identity: tuple[int, int] | None = None
        self._position = 0

    def lines(self) -> Iterator[bytes]:
        """
        Yield the whole lines that have come since the last time.

        Raises:
            OSError: The file cannot be read, other than for not being there.
        """
        yield from self._new_lines()
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return  # moved away, and not made again yet
        if self._identity not in (None, (now.st_dev, now.st_ino)):
            # What was written between the last read and the move.
            yield from self._new_lines()
            yield from self._begin_again()
        elif now.st_size < self._position:
            yield from self._begin_again()

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _new_lines(self) -> Iterator[bytes]:
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return
            status = os.fstat(self._file.fileno())
            identity = (status.st_dev, status.st_ino)
            if self._identity not in (None, identity):
                yield from self._splitter.rest()
                self._position = 0
            self._identity = identity
            self._file.seek(self._position)
        while chunk := self._file.read(_CHUNK):
            if not self._position and chunk.startswith(GZIP):
                raise OSError(errno.ENOTSUP, "a gzip file does not grow; leave out --follow")
            self._position += len(chunk)
            yield from self._splitter.feed(chunk)
        if not _KEEPS_OPEN:
            self.close()

    def _begin_again(self) -> Iterator[bytes]:
        """Yield what no line end came to, and the lines of the file as it is now."""
        yield from self._splitter.rest()
        self.close()
        self._position = 0
        yield from self._new_lines()


@final
class GrowingPipe:
    """
    A pipe, read on a thread of its own.

    Args:
        descriptor: Its descriptor.
    """

    def __init__(self, descriptor: int) -> None:
        self.is_over = False
        self._splitter = LineSplitter()
        self._chunks: queue.Queue[bytes] = queue.Queue(maxsize=16)
        # By descriptor: a stream's lock would be held while the interpreter shuts down.
        threading.Thread(target=self._read, args=(descriptor,), name="tracekit-view", daemon=True).start()

    def lines(self) -> Iterator[bytes]:
        """Yield the whole lines that have come since the last time."""
        while not self.is_over:
            try:
                chunk = self._chunks.get_nowait()
            except queue.Empty:
                return
            if chunk:
                yield from self._splitter.feed(chunk)
            else:
                self.is_over = True
                yield from self._splitter.rest()

    def close(self) -> None:
        """Do nothing: the pipe is not ours to close."""

    def _read(self, descriptor: int) -> None:
        chunk = b"more"
        while chunk:
            try:
                chunk = os.read(descriptor, 65_536)
            except OSError:
                chunk = b""
            self._chunks.put(chunk)


class Arrival(NamedTuple):
    """The *spans* of a trace; *is_late* if others of it were shown before."""

    spans: list[SpanRecord]
    is_late: bool


@final
@dataclass(slots=True)
class _Waiting:
    """A trace that more spans may come to."""

    changed_s: float = 0.0
    spans: list[SpanRecord] = field(default_factory=list["SpanRecord"])

    def patience_s(self) -> float:
        """Return how long it must be quiet to be taken for whole."""
        known = {span.span_id for span in self.spans}
        parents = {span.parent_id for span in self.spans}
        if None not in parents or not parents <= {None, *known} or any(span.end_time_ns is None for span in self.spans):
            return _STALE_S
        return _OTHER_SIDE_S if any(_is_call(span) and span.span_id not in parents for span in self.spans) else _QUIET_S

    def last_ns(self) -> int:
        return max(span.end_time_ns or span.start_time_ns for span in self.spans)


def _is_call(span: SpanRecord) -> bool:
    """Tell whether *span* asks another program for something; databases answer without spans."""
    return span.kind in {"client", "producer"} and not any(key in span.attributes for key in _DATABASE)


@final
class Arrivals:
    """
    Spans as they come, put together to traces: each is given out once it is whole and quiet, or too old to wait for.

    At most 100,000 spans wait; past that, the trace that has been quiet the longest is given out as it is.
    """

    __slots__ = ("_given", "_size", "_waiting")

    def __init__(self) -> None:
        # By the time of the last change.
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._given: OrderedDict[str, None] = OrderedDict()
        self._size = 0

    def add(self, spans: Sequence[SpanRecord], now_s: float) -> Iterator[Arrival]:
        """Add *spans*, at the time *now_s* of a clock of the caller's; yield what has no place any more."""
        for span in spans:
            waiting = self._waiting.setdefault(span.trace_id, _Waiting())
            waiting.spans.append(span)
            waiting.changed_s = now_s
            self._waiting.move_to_end(span.trace_id)
            self._size += 1
        while self._size > _MAX_WAITING:
            yield self._give(next(iter(self._waiting)))

    def ready(self, now_s: float, wall_ns: int) -> Iterator[Arrival]:
        """Yield the traces that wait for nothing any more; *now_s* is as in `add`, *wall_ns* since the epoch."""
        quiet = [
            (min(span.start_time_ns for span in waiting.spans), trace_id)
            for trace_id, waiting in self._waiting.items()
            if now_s - waiting.changed_s >= _QUIET_S
            and (wall_ns - waiting.last_ns() >= _STALE_S * _NS or now_s - waiting.changed_s >= waiting.patience_s())
        ]
        for _, trace_id in sorted(quiet):
            yield self._give(trace_id)

    def rest(self) -> Iterator[Arrival]:
        """Yield all that wait still."""
        for trace_id in list(self._waiting):
            yield self._give(trace_id)

    def _give(self, trace_id: str) -> Arrival:
        spans = self._waiting.pop(trace_id).spans
        self._size -= len(spans)
        is_late = trace_id in self._given
        self._given[trace_id] = None
        if len(self._given) > _MAX_REMEMBERED:
            self._given.popitem(last=False)
        return Arrival(sorted(without_repeats(spans), key=lambda span: span.start_time_ns), is_late)


@final
class Follower:
    """
    The traces of *sources* as they come.

    Args:
        sources: Where lines come from.
    """

    __slots__ = ("_arrivals", "_readers")

    def __init__(self, sources: Sequence[Source]) -> None:
        self._readers = [(source, SpanReader()) for source in sources]
        self._arrivals = Arrivals()

    @property
    def malformed_lines(self) -> int:
        """How many lines held no spans, or some that could not be read."""
        return sum(reader.malformed_lines for _, reader in self._readers)

    def traces(self) -> Iterator[Arrival]:
        """
        Yield traces until no source has more to come; a list of spans each.

        Raises:
            OSError: A source cannot be read.
        """
        while not all(source.is_over for source, _ in self._readers):
            for source, reader in self._readers:
                for line in source.lines():
                    for spans in reader.feed(line):
                        yield from self._arrivals.add(spans, time.monotonic())
            yield from self._arrivals.ready(time.monotonic(), time.time_ns())
            time.sleep(_POLL_S)

    def rest(self) -> Iterator[Arrival]:
        """Let the sources go, and yield what has come and waits for more."""
        for source, reader in self._readers:
            source.close()
            reader.end()
        yield from self._arrivals.rest()
