"""Files that grow, are moved away and cut to nothing; traces that come in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tracekit.export import SpanRecord
from tracekit.view import following
from tracekit.view.following import Arrivals, GrowingFile

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 1_000_000_000
NOW_NS = 1_000 * SECOND


@pytest.fixture(params=[True, False], ids=["open", "closed in between"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(following, "_KEEPS_OPEN", request.param)
    return tmp_path / "f.jsonl"


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_lines_come_once_they_are_whole(path: Path) -> None:
    file = GrowingFile(path)
    assert [*file.lines()] == []
    append(path, "one\ntw")
    assert [*file.lines()] == [b"one"]
    append(path, "o\n\nthree\n")
    assert [*file.lines()] == [b"two", b"three"]
    assert [*file.lines()] == []
    file.close()


def test_a_file_in_the_place_of_another_is_read_from_its_beginning(path: Path) -> None:
    file = GrowingFile(path)
    append(path, "one\nhalf")
    assert [*file.lines()] == [b"one"]
    path.rename(path.with_name("f.jsonl.1"))
    assert [*file.lines()] == []
    append(path, "a first line, longer than all before\n")
    assert [*file.lines()] == [b"half", b"a first line, longer than all before"]
    file.close()


def test_what_was_written_just_before_a_file_was_moved_is_read(path: Path) -> None:
    if not following._KEEPS_OPEN:
        pytest.skip("a file that is not held cannot be found again under another name")
    file = GrowingFile(path)
    append(path, "one\n")
    assert [*file.lines()] == [b"one"]
    append(path, "two\n")
    path.rename(path.with_name("f.jsonl.1"))
    append(path, "three\n")
    assert [*file.lines()] == [b"two", b"three"]
    file.close()


def test_an_empty_file_that_is_moved_away_is_let_go(path: Path) -> None:
    file = GrowingFile(path)
    append(path, "")
    assert [*file.lines()] == []
    path.rename(path.with_name("f.jsonl.1"))
    append(path, "one\n")
    assert [*file.lines()] == [b"one"]
    file.close()


def test_a_file_that_is_cut_is_read_from_its_beginning(path: Path) -> None:
    file = GrowingFile(path)
    append(path, "a long first line\n")
    assert [*file.lines()] == [b"a long first line"]
    path.write_text("short\n", encoding="utf-8")
    assert [*file.lines()] == [b"short"]
    file.close()


def span(
    number: int, parent: int | None = None, *, trace: int = 1, end_s: int | None = 1_000, **fields: Any
) -> SpanRecord:
    return SpanRecord(
        trace_id=f"{trace:032x}",
        span_id=f"{number:016x}",
        name=f"s{number}",
        parent_id=None if parent is None else f"{parent:016x}",
        start_time_ns=NOW_NS - number,
        end_time_ns=None if end_s is None else end_s * SECOND,
        **fields,
    )


def given_out(arrivals: Arrivals, now_s: float) -> list[tuple[list[str], bool]]:
    found = arrivals.ready(now_s, NOW_NS + int(now_s * SECOND))
    return [([each.name for each in arrival.spans], arrival.is_late) for arrival in found]


def test_a_whole_trace_is_given_out_after_a_moment_of_quiet() -> None:
    arrivals = Arrivals()
    assert [*arrivals.add([span(1), span(2, 1)], now_s=0)] == []
    assert given_out(arrivals, 0.1) == []
    assert given_out(arrivals, 1) == [(["s2", "s1"], False)]
    assert given_out(arrivals, 2) == []


@pytest.mark.parametrize("spans", [[span(2, 1)], [span(1), span(3, 2)], [span(1), span(2, 1, end_s=None)]])
def test_a_trace_that_misses_spans_is_waited_for_but_not_for_ever(spans: list[SpanRecord]) -> None:
    arrivals = Arrivals()
    assert [*arrivals.add(spans, now_s=0)] == []
    assert given_out(arrivals, 5) == []
    assert len(given_out(arrivals, 30)) == 1


def test_the_other_side_of_a_request_is_waited_for() -> None:
    call, query = span(2, 1, kind="client"), span(3, 1, kind="client", attributes={"db.system.name": "sqlite"})
    for spans, waits in [([span(1), query], False), ([span(1), call], True), ([span(1), call, span(4, 2)], False)]:
        arrivals = Arrivals()
        assert [*arrivals.add(spans, now_s=0)] == []
        assert (given_out(arrivals, 1) == []) == waits
        assert len(given_out(arrivals, 7)) == waits


def test_a_trace_of_long_ago_is_not_waited_for() -> None:
    arrivals = Arrivals()
    assert [*arrivals.add([span(2, 1, end_s=900)], now_s=0)] == []
    assert len(given_out(arrivals, 1)) == 1


def test_a_span_that_comes_twice_is_given_out_once() -> None:
    arrivals = Arrivals()
    assert [*arrivals.add([span(1), span(2, 1), span(1)], now_s=0)] == []
    assert [*arrivals.add([span(2, 1)], now_s=0)] == []
    assert given_out(arrivals, 1) == [(["s2", "s1"], False)]


def test_what_comes_after_its_trace_is_called_late() -> None:
    arrivals = Arrivals()
    assert [*arrivals.add([span(1)], now_s=0)] == []
    assert given_out(arrivals, 1) == [(["s1"], False)]
    assert [*arrivals.add([span(2, 1)], now_s=2)] == []
    assert given_out(arrivals, 30) == [(["s2"], True)]


def test_spans_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_MAX_WAITING", 3)
    arrivals = Arrivals()
    spans = [span(number, 99, trace=number) for number in range(1, 6)]
    assert [arrival.spans[0].name for arrival in arrivals.add(spans, now_s=0)] == ["s1", "s2"]
    assert [arrival.spans[0].name for arrival in arrivals.rest()] == ["s3", "s4", "s5"]
