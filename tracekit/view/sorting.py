"""Spans in any order, sorted into their traces: in a temporary database that goes to disk as it grows."""

from __future__ import annotations

import marshal
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from typing_extensions import Self

from tracekit.export.record import EventRecord, LinkRecord, SpanRecord
from tracekit.view.selection import Selection, last_ns

if TYPE_CHECKING:
    from types import TracebackType

# Of one trace, so many spans fit into memory whatever they hold.
MAX_SPANS: Final = 100_000
# Pages that SQLite keeps in memory before it writes to disk, in KiB.
_CACHE_KIB: Final = 64 * 1024
_BATCH: Final = 1_000
_MAX_SOURCES: Final = 10_000

_TABLES: Final = """
CREATE TABLE spans (
    trace BLOB, start INTEGER, last INTEGER, named INTEGER, error INTEGER, source INTEGER, body BLOB
);
CREATE TABLE sources (number INTEGER PRIMARY KEY, body BLOB);
"""
# It covers what is asked of all traces: the bodies of those that are not wanted are never read.
_INDEX: Final = "CREATE INDEX traces ON spans (trace, start, last, named, error)"
_TRACES: Final = """
SELECT * FROM (
    SELECT trace, MIN(start) AS first, COUNT(*) AS size FROM spans GROUP BY trace
    HAVING MAX(named)
        AND (NOT :errors OR MAX(named AND error))
        AND MAX(last) >= :since
        AND CASE WHEN :has_name THEN MAX(CASE WHEN named THEN last - start END) ELSE MAX(last) - MIN(start) END >= :slow
    ORDER BY first DESC, trace DESC LIMIT :limit
) ORDER BY first, trace
"""
_SPANS: Final = "SELECT source, body FROM spans WHERE trace = ? ORDER BY start, rowid LIMIT ?"


class Trace(NamedTuple):
    """
    The spans of one trace, by start time.

    Args:
        spans: The spans.
        left_out: How many more the trace has than fit into memory.
    """

    spans: list[SpanRecord]
    left_out: int = 0


@final
class SortedSpans:
    """
    Spans sorted into the traces that are wanted, in a temporary database.

    Memory is bounded by the database's cache (64 MiB) and by the largest trace that is read (100,000 spans). What is
    more goes to a file that nobody else can open, in the directory for temporary files (`SQLITE_TMPDIR`, `TMPDIR`).

    Args:
        selection: Which traces are wanted.

    Raises:
        sqlite3.Error: From every method: the disk is full, or the directory cannot be written.
    """

    __slots__ = ("_batch", "_database", "_is_sorted", "_selection", "_sources", "size")

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._sources: dict[bytes, int] = {}
        self._batch: list[tuple[bytes, int, int, bool, bool, int, bytes]] = []
        self._is_sorted = False
        self.size = 0
        # No name: a private file that is gone when it is closed.
        self._database = sqlite3.connect("", isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}", "temp_store = FILE"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.executescript(_TABLES)
        self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()

    def add(self, spans: Iterable[SpanRecord]) -> None:
        """Add *spans*, before traces are asked for."""
        selection, batch = self._selection, self._batch
        for span in spans:
            self.size += 1
            if not span.trace_id.startswith(selection.trace):
                continue
            batch.append(
                (
                    bytes.fromhex(span.trace_id),
                    span.start_time_ns,
                    last_ns(span),
                    selection.is_named(span),
                    span.status == "error",
                    self._source(span),
                    _packed(span),
                )
            )
        if len(batch) >= _BATCH:
            self._write()

    def traces(self, newest: int = -1) -> Iterator[Trace]:
        """Yield the traces that are wanted, the *newest* so many (-1 for all), the one that began first first."""
        self._write()
        if not self._is_sorted:
            self._database.execute(_INDEX)
            self._is_sorted = True
        wanted = self._selection
        asked = {
            "errors": wanted.errors,
            "since": wanted.since_ns,
            "slow": wanted.slow_ns,
            "has_name": bool(wanted.name),
            "limit": newest,
        }
        source_of = lru_cache(maxsize=1_000)(self._source_numbered)
        with closing(self._database.execute(_TRACES, asked)) as traces:
            for trace_id, _, size in traces:
                found = self._database.execute(_SPANS, (trace_id, MAX_SPANS))
                spans = (_unpacked(trace_id.hex(), source_of(source), body) for source, body in found)
                yield Trace(without_repeats(spans), max(0, size - MAX_SPANS))

    def count_traces(self) -> int:
        """Return how many traces there are, wanted or not, of those whose ids begin as wanted."""
        self._write()
        (count,) = self._database.execute("SELECT COUNT(DISTINCT trace) FROM spans").fetchone()
        return int(count)

    def _write(self) -> None:
        self._database.executemany("INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?, ?)", self._batch)
        self._batch.clear()

    def _source(self, span: SpanRecord) -> int:
        """Return the number of what made *span*, which many spans share."""
        body = marshal.dumps((span.service, dict(span.resource), span.scope))
        number = self._sources.get(body)
        if number is None:
            cursor = self._database.execute("INSERT INTO sources (body) VALUES (?)", (body,))
            number = cursor.lastrowid or 0
            if len(self._sources) < _MAX_SOURCES:
                self._sources[body] = number
        return number

    def _source_numbered(self, number: int) -> Any:
        (body,) = self._database.execute("SELECT body FROM sources WHERE number = ?", (number,)).fetchone()
        return marshal.loads(body)  # noqa: S302  # our own bytes


def _packed(span: SpanRecord) -> bytes:
    return marshal.dumps(
        (
            span.span_id,
            span.name,
            span.parent_id,
            span.parent_is_remote,
            span.start_time_ns,
            span.end_time_ns,
            dict(span.attributes),
            tuple((event.name, event.time_ns, dict(event.attributes)) for event in span.events),
            tuple((link.trace_id, link.span_id, dict(link.attributes)) for link in span.links),
            span.status,
            span.description,
            span.kind,
        )
    )


def _unpacked(trace_id: str, source: Any, body: bytes) -> SpanRecord:
    span_id, name, parent_id, is_remote, start, end, attributes, events, links, status, description, kind = (
        marshal.loads(body)  # noqa: S302  # our own bytes
    )
    service, resource, scope = source
    return SpanRecord(
        trace_id=trace_id,
        span_id=span_id,
        name=name,
        parent_id=parent_id,
        parent_is_remote=is_remote,
        start_time_ns=start,
        end_time_ns=end,
        attributes=attributes,
        events=tuple(EventRecord(*event) for event in events),
        links=tuple(LinkRecord(*link) for link in links),
        status=status,
        description=description,
        service=service,
        kind=kind,
        resource=resource,
        scope=scope,
    )


def without_repeats(spans: Iterable[SpanRecord]) -> list[SpanRecord]:
    """Return *spans* without those that stand there twice: in a file given twice, or sent again by an exporter."""
    seen: dict[str, SpanRecord] = {}
    return [span for span in spans if seen.setdefault(span.span_id, span) is span or seen[span.span_id] != span]
