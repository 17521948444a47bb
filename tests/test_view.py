"""`tracekit view`: the traces of files, as trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import tracekit
from tracekit.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "traces.jsonl"
    with tracekit.configure(service="shop", exporter=f"file:{path}"):
        with tracekit.traced_block("orders.create", {"order.id": 7}), tracekit.traced_block("orders.save"):
            pass
        with pytest.raises(ValueError, match="no card"), tracekit.traced_block("orders.cancel"):
            cancel()
    return path


def cancel() -> None:
    msg = "no card"
    raise ValueError(msg)


def test_each_trace_of_a_file_is_shown_as_a_tree(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in lines if "─" in line] == [
        "├─ orders.create",
        "│  └─ orders.save",
        "├─ orders.cancel",
    ]
    assert "order.id=7" in lines[1]


def test_only_failed_traces_are_shown_where_errors_are_asked_for(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", "--errors", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "ERROR ValueError: no card" in shown
    assert "orders.create" not in shown


def test_one_trace_is_shown_by_the_beginning_of_its_id(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["view", str(file)])
    trace_id = capsys.readouterr().out.split()[1]
    assert main(["view", "--trace", trace_id[:12].upper(), str(file)]) == 0
    assert capsys.readouterr().out.count("Trace:") == 1


def test_fast_traces_are_left_out_where_slow_ones_are_asked_for(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "--slow", "3600", str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no trace to show" in captured.err


def test_files_of_several_services_are_joined(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = file.read_text().splitlines()
    halves = [file.with_name(name) for name in ("a.jsonl", "b.jsonl")]
    for half, line in zip(halves, [lines[0], "no JSON\n"], strict=True):
        half.write_text(line)
    assert main(["view", *map(str, halves)]) == 0
    captured = capsys.readouterr()
    assert "orders.create" in captured.out
    assert "1 line holds no spans" in captured.err


def test_a_missing_file_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path / "none.jsonl")]) == 2
    assert capsys.readouterr().err.strip().endswith("none.jsonl: No such file or directory")
