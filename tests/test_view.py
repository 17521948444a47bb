"""`tracekit view`: the traces of files, as trees; which are shown, and what a shell sees of it."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

import tracekit
from tracekit.cli import main
from tracekit.export import FileExporter, SpanRecord, render_tree
from tracekit.view.reading import read_trace_file

if TYPE_CHECKING:
    from pathlib import Path

COMMAND: Final = (sys.executable, "-m", "tracekit", "view")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "traces.jsonl"
    with tracekit.configure(service="shop", exporter=f"file:{path}"):
        with tracekit.traced_block("orders.create", {"order.id": 7}), tracekit.traced_block("orders.save"):
            pass
        with pytest.raises(ValueError, match="no card"), tracekit.traced_block("orders.cancel"):
            cancel()
    return path


def line_of(name: str, number: int = 1, *, start: int = 0, end: int = 1, **fields: Any) -> str:
    """A line with a span of the trace *number* from *start* to *end*, in seconds since the epoch."""
    times = {"startTimeUnixNano": f"{start}000000000", "endTimeUnixNano": f"{end}000000000"}
    ids = {"traceId": f"{number:032x}", "spanId": f"{number:016x}"}
    return (
        json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{**ids, "name": name, **times, **fields}]}]}]}) + "\n"
    )


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The exit status, and the first letters of the spans that are shown."""
    status = main(["view", *map(str, arguments)])
    return status, "".join(line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("├"))


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
    assert captured.err == "none of 2 traces is as asked for\n"


def test_where_no_trace_is_as_asked_for_it_is_said_how_many_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, more = tmp_path / "one", tmp_path / "more"
    one.write_text(line_of("a"))
    more.write_text("".join(line_of("a", number) for number in range(1, 6)))

    def said(*arguments: str) -> str:
        assert main(["view", *arguments]) == 1
        return capsys.readouterr().err

    assert said("--name", "nope", str(more)) == "none of 5 traces is as asked for\n"
    assert said("--summary", "--errors", str(more)) == "none of 5 traces is as asked for\n"
    assert said("--name", "nope", str(one)) == "the only trace is not as asked for\n"
    assert said("--trace", "beef", str(more)) == "no trace has an id that begins with beef\n"


def test_files_of_several_services_are_joined(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = file.read_text().splitlines()
    halves = [file.with_name(name) for name in ("a.jsonl", "b.jsonl")]
    for half, line in zip(halves, [lines[0], "no JSON\n"], strict=True):
        half.write_text(line)
    assert main(["view", *map(str, halves)]) == 0
    captured = capsys.readouterr()
    assert "orders.create" in captured.out
    assert "1 line holds no spans" in captured.err


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Four traces of one span: a takes 1 s, b 2 s, c fails in 3 s, d begins an hour later and takes 4 s."""
    path = tmp_path / "several.jsonl"
    failed = {"status": {"code": 2}}
    lines = [
        line_of("a", 0xA1, start=1, end=2),
        line_of("b", 0xB1, start=2, end=4),
        line_of("c", 0xC1, start=3, end=6, **failed),
        line_of("d", 0xD1, start=3601, end=3605),
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], "abcd"),
        (["--slow", "2"], "bcd"),
        (["--slow", "2500ms"], "cd"),
        (["--name", "[bc]"], "bc"),
        (["--name", "b"], "b"),
        (["--errors"], "c"),
        (["--since", "1970-01-01T00:00:05Z"], "cd"),
        (["--since", "1970-01-01T01:00:00Z"], "d"),
        (["--limit", "2"], "cd"),
        (["--slow", "2", "--limit", "1", "--name", "[a-c]"], "c"),
        (["--since", "10m"], ""),
        (["--errors", "--name", "[abd]"], ""),
        (["--trace", f"{0xB1:032X}"], "b"),
    ],
)
def test_traces_are_shown_that_are_asked_for(
    several: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], names: str
) -> None:
    assert shown(capsys, *arguments, several) == (0 if names else 1, names)


def test_with_a_name_errors_and_durations_are_those_of_such_spans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "f"
    child = {"spanId": "2" * 16, "parentSpanId": f"{1:016x}", "status": {"code": 2}}
    path.write_text(line_of("a", end=9) + line_of("b", end=2, **child), encoding="utf-8")
    assert shown(capsys, "--name", "b", "--errors", path)[0] == 0
    assert shown(capsys, "--name", "a", "--errors", path)[0] == 1
    assert shown(capsys, "--name", "a", "--slow", "5", path)[0] == 0
    assert shown(capsys, "--name", "b", "--slow", "5", path)[0] == 1


def test_spans_of_a_trace_are_joined_from_all_files_and_packings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.jsonl").write_text(line_of("a", 1), encoding="utf-8")
    child = {"spanId": "2" * 16, "parentSpanId": f"{1:016x}"}
    (tmp_path / "old.jsonl").write_bytes(gzip.compress(line_of("b", 1, **child).encode()))
    assert main(["view", str(tmp_path / "*.jsonl")]) == 0  # as shells of Windows pass it
    out = capsys.readouterr().out
    assert (out.count("Trace:"), "└─ b" in out) == (1, True)


def test_a_pipe_is_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(line_of("a").encode()))))
    assert shown(capsys, "-") == (0, "a")


@pytest.mark.parametrize(("option", "sign"), [("--waterfall", "█"), ("--critical-path", "critical path: 1 of 1 spans")])
def test_a_trace_is_shown_in_the_view_that_is_asked_for(
    several: Path, capsys: pytest.CaptureFixture[str], option: str, sign: str
) -> None:
    assert main(["view", option, str(several)]) == 0
    assert capsys.readouterr().out.count(sign) >= 4


def test_a_summary_is_one_table(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "--summary", "--limit", "3", str(several)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["4", "operation", "d", "c", "b", "and"]
    assert "100.0%" in lines[3]
    assert main(["view", "--summary", "--name", "x", str(several)]) == 1


def test_a_failure_is_explained(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["view", "--errors", str(file)])
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("Failed: ValueError: no card")
    assert lines[at + 1].startswith(f"    at: {__file__}:")
    assert lines[at + 1].endswith(" in cancel")
    assert lines[at + 2 :] == ["        raise ValueError(msg)", "    in: orders.cancel"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.jsonl"], "none.jsonl: No such file or directory"),
        (["."], "is a directory: name the files in it"),
        (["--slow", "fast", "f"], "'fast' is no duration; write 250ms"),
        (["--since", "never", "f"], "'never' is no time; write 10m"),
        (["--limit", "0", "f"], "'0' is no number of traces"),
        (["--summary", "--waterfall", "f"], "not allowed with"),
        (["--summary", "--follow", "f"], "leave one of them out"),
        (["--limit", "2", "--follow", "f"], "leave one of them out"),
        (["x" * 5_000], "File name too long"),
        (["zstd"], "zstd: it is compressed with zstd"),
        (["kept.db"], "kept.db: it is a database; that of `tracekit serve` is shown by `tracekit serve --db FILE`"),
        ([], "required: FILE"),
        (["\x1b[31mnone"], "\\x1b[31mnone: No such"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_text(line_of("a"), encoding="utf-8")
    (tmp_path / "zstd").write_bytes(b"\x28\xb5\x2f\xfd....")
    (tmp_path / "kept.db").write_bytes(b"SQLite format 3\0....")
    try:
        status = main(["view", *arguments])
    except SystemExit as left:
        status = left.code
    assert status == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user who is refused something")
def test_a_file_of_somebody_else_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f"
    path.write_text(line_of("a"), encoding="utf-8")
    path.chmod(0)
    assert main(["view", str(path)]) == 2
    assert capsys.readouterr().err.strip().endswith("f: Permission denied")


@pytest.mark.parametrize("content", [b"", os.urandom(100_000), b"\0" * 5_000, b"{}\n[]\n", b"PNG\r\n\x1a\n"])
def test_a_file_without_spans_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    assert main(["view", str(tmp_path / "f")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "no spans in these files"


def test_damaged_lines_are_counted_and_change_no_status(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with several.open("a", encoding="utf-8") as file:
        file.write('broken\n{"resourceSpans": [{"sco\n' + line_of("e", 9, start=7200, end=7201))
    assert main(["view", str(several)]) == 0
    captured = capsys.readouterr()
    assert "├─ e" in captured.out
    assert captured.err.startswith("2 lines hold no spans")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    plain = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, env={**plain, **environment}, check=False)


def test_colours_are_for_those_who_want_them(several: Path) -> None:
    def has_color(*arguments: str, **environment: str) -> bool:
        return b"\x1b[" in run(*arguments, str(several), **environment).stdout

    assert not has_color("--waterfall")
    assert has_color("--waterfall", FORCE_COLOR="1")
    assert not has_color("--waterfall", FORCE_COLOR="1", NO_COLOR="1")


def test_a_console_of_few_characters_gets_what_it_can_show(tmp_path: Path) -> None:
    path = tmp_path / "thé.jsonl"
    path.write_text(line_of("thé 🚀 注文"), encoding="utf-8")
    for option in ("--waterfall", "--summary"):
        ran = run(option, str(path), PYTHONIOENCODING="cp1252", COLUMNS="80")
        assert (ran.returncode, ran.stderr) == (0, b"")
        assert "thé \\U0001f680 \\u6ce8\\u6587" in ran.stdout.decode("cp1252")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's redirections")
def test_a_closed_input_is_one_line() -> None:
    ran = subprocess.run(["sh", "-c", f"{' '.join(COMMAND)} - <&-"], capture_output=True, check=False)
    assert (ran.returncode, ran.stderr.count(b"\n")) == (2, 1)


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("".join(line_of("a", number) for number in range(1, 5_000)), encoding="utf-8")
    with subprocess.Popen([*COMMAND, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_help_teaches_by_examples_and_tells_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["view", "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert "tracekit view --errors --since 10m traces.jsonl" in said
    assert "exit status:" in said


# --- what was written is what is read


def forests() -> st.SearchStrategy[list[ReadableSpan]]:
    text = st.text(max_size=8)
    values = text | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.lists(text, max_size=3)
    attributes = st.dictionaries(text, values, max_size=3)
    node = st.tuples(
        *(st.integers(-1, 10), text, attributes, st.integers(1, 100), st.integers(0, 100)),
        *(st.sampled_from(StatusCode), st.lists(st.tuples(text, attributes), max_size=2), st.sampled_from(SpanKind)),
    )
    return st.lists(node, min_size=1, max_size=10).map(_spans)


def _spans(nodes: list[Any]) -> list[ReadableSpan]:
    contexts = [
        SpanContext(7, number, is_remote=False, trace_flags=TraceFlags(1)) for number in range(1, len(nodes) + 1)
    ]
    return [
        ReadableSpan(
            name,
            contexts[number],
            None if parent < 0 else contexts[parent % len(contexts)],
            attributes=attributes,
            events=[Event(event, of_event, timestamp=start) for event, of_event in events],
            kind=kind,
            status=Status(code, "why" if code is StatusCode.ERROR else None),
            start_time=start,
            end_time=start + duration,
        )
        for number, (parent, name, attributes, start, duration, code, events, kind) in enumerate(nodes)
    ]


@given(forests(), st.integers(1, 4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_the_tree_of_a_file_is_the_tree_of_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spans: list[ReadableSpan], batch: int
) -> None:
    path = tmp_path / "f"
    path.unlink(missing_ok=True)
    exporter = FileExporter(path)
    for start in range(0, len(spans), batch):
        exporter.export(spans[start : start + batch])
    written = render_tree(map(SpanRecord.of, spans))
    assert render_tree(read_trace_file(path).spans) == written
    main(["view", str(path)])
    assert capsys.readouterr().out.startswith(written)


# --- following


def test_traces_are_shown_as_they_come_whatever_becomes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(line_of("first", 1), encoding="utf-8")
    child = {"spanId": "2" * 16, "parentSpanId": f"{2:016x}"}
    # A job in the background of a shell ignores SIGINT, and what it starts does too.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen([*COMMAND, "--follow", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, handler)
    with process:
        assert process.stdout is not None
        try:
            wait_for(process.stdout, "├─ first")
            with path.open("a", encoding="utf-8") as file:
                file.write(line_of("child", 2, **child) + line_of("appended", 2)[:30])
                file.flush()
                file.write(line_of("appended", 2)[30:])
            wait_for(process.stdout, "└─ child")
            path.rename(tmp_path / "f.jsonl.1")
            path.write_text(line_of("rotated", 3), encoding="utf-8")
            wait_for(process.stdout, "├─ rotated")
            path.write_text(line_of("cut", 4), encoding="utf-8")
            wait_for(process.stdout, "├─ cut")
            process.send_signal(signal.SIGINT)
            assert process.communicate() == (b"", b"")
            assert process.returncode == 130
        finally:
            process.kill()


def wait_for(output: Any, text: str) -> None:
    """Read *output* up to the line that holds *text*; the test's own time limit is the deadline."""
    while text not in (line := output.readline().decode()):
        assert line, f"no {text!r}"


def test_a_file_that_is_not_there_yet_is_waited_for_and_a_packed_one_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "f.gz"
    packed.write_bytes(gzip.compress(b"{}"))
    assert main(["view", "--follow", str(tmp_path / "later.jsonl"), str(packed)]) == 2
    assert "a gzip file does not grow" in capsys.readouterr().err


def test_a_pipe_is_followed_to_its_end() -> None:
    process = subprocess.run(
        [*COMMAND, "--follow", "-"],
        input=line_of("a").encode() + line_of("b", 2).encode(),
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stdout.count(b"Trace:")) == (0, 2)
