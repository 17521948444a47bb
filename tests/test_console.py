"""When trees are printed: once a trace is complete here, whole, and without harm to who ends a span."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, Tracer, set_span_in_context

from tracekit._stats import Counters
from tracekit.export import TreeProcessor, console

if TYPE_CHECKING:
    from collections.abc import Callable

REMOTE = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))


class Printed:
    """A provider whose trees are printed to a string."""

    def __init__(self, stream: Any = None, sampler: Sampler | None = None) -> None:
        self.stream: Any = stream if stream is not None else io.StringIO()
        self.counters = Counters()
        self.processor = TreeProcessor(self.stream, counters=self.counters)
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer: Tracer = self.provider.get_tracer("test")

    @property
    def lines(self) -> list[str]:
        """What was printed, without ids and durations."""
        text: str = self.stream.getvalue()
        text = re.sub(r"Trace: [0-9a-f]{32}  \([^ ]+, ", "Trace: (", text)
        return re.sub(r" [0-9a-f]{16}\b", "", re.sub(r" \([\d.]+[nµm]?s\)", "", text)).splitlines()

    @property
    def exported(self) -> int:
        return self.counters.snapshot().exported

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.counters.snapshot().dropped)


@pytest.fixture
def printed() -> Printed:
    return Printed()


def test_trace_is_printed_when_its_root_ends(printed: Printed) -> None:
    with printed.tracer.start_as_current_span("root"):
        with printed.tracer.start_as_current_span("child"):
            pass
        assert printed.lines == []
    assert printed.lines == ["Trace: (2 spans)", "├─ root", "│  └─ child"]
    assert printed.exported == 2


def test_trace_waits_for_children_that_outlive_the_root(printed: Printed) -> None:
    with printed.tracer.start_as_current_span("root"):
        child = printed.tracer.start_span("child")
    assert printed.lines == []
    child.end()
    assert printed.lines == ["Trace: (2 spans)", "├─ root", "│  └─ child"]


def test_trace_continued_from_another_process_is_printed_when_its_part_here_ends(printed: Printed) -> None:
    for _ in range(2):
        with printed.tracer.start_as_current_span("served", set_span_in_context(NonRecordingSpan(REMOTE))):
            pass
    assert printed.lines == ["Trace: (1 span)", "├─ served  ← remote parent"] * 2


def test_part_below_an_unsampled_root_is_printed() -> None:
    class ChildrenOnly(Sampler):
        def should_sample(self, parent_context: Any, trace_id: int, name: str, *_: Any, **__: Any) -> SamplingResult:
            return SamplingResult(Decision.RECORD_AND_SAMPLE if name == "child" else Decision.RECORD_ONLY)

        def get_description(self) -> str:
            return "children only"

    printed = Printed(sampler=ChildrenOnly())
    with printed.tracer.start_as_current_span("root"), printed.tracer.start_as_current_span("child"):
        pass
    assert printed.lines == ["Trace: (1 span)", "├─ child  ← parent not in this tree"]
    assert printed.exported == 1


def test_span_started_after_its_trace_was_printed_is_printed_as_late(printed: Printed) -> None:
    root = printed.tracer.start_span("root")
    root.end()
    printed.tracer.start_span("late", set_span_in_context(root)).end()
    assert printed.lines[2:] == ["Trace: (1 span)  late", "├─ late  ← parent not in this tree"]


def test_spans_replayed_at_the_end_are_printed_as_one_trace(printed: Printed) -> None:
    # As a sampler does that keeps traces which failed: it knows only once the root has ended.
    ended: list[ReadableSpan] = []

    class Keep(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended.append(span)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Keep())
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("root"):
        for name in "ab":
            with tracer.start_as_current_span(name):
                pass
    for span in ended:
        printed.processor.on_end(span)
    assert printed.lines == ["Trace: (3 spans)", "├─ root", "│  ├─ a", "│  └─ b"]


def test_flush_prints_what_has_ended_and_the_rest_follows(printed: Printed) -> None:
    with printed.tracer.start_as_current_span("root"):
        with printed.tracer.start_as_current_span("child"):
            pass
        assert printed.processor.force_flush()
    assert printed.lines == [
        "Trace: (1 span)  incomplete: 1 still open",
        "├─ root (open)",
        "│  └─ child",
        "Trace: (1 span)  continued",
        "├─ root",
    ]
    assert printed.exported == 2


def test_shutdown_prints_what_has_ended_and_drops_what_ends_later(printed: Printed) -> None:
    with printed.tracer.start_as_current_span("root"):
        with printed.tracer.start_as_current_span("child"):
            pass
        printed.provider.shutdown()
    assert printed.lines[1:] == ["├─ root (open)", "│  └─ child"]
    assert printed.dropped == {"shut_down": 1}


def test_traces_of_threads_are_printed_whole(printed: Printed) -> None:
    def work() -> None:
        for _ in range(50):
            with printed.tracer.start_as_current_span("root"), printed.tracer.start_as_current_span("child"):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert printed.lines == ["Trace: (2 spans)", "├─ root", "│  └─ child"] * 400
    assert printed.exported == 800


def test_stderr_is_looked_up_when_printing(capsys: pytest.CaptureFixture[str]) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(TreeProcessor(counters=Counters()))
    stream = io.StringIO()
    stderr, sys.stderr = sys.stderr, stream
    try:
        provider.get_tracer("test").start_span("replaced").end()
    finally:
        sys.stderr = stderr
    provider.get_tracer("test").start_span("usual").end()
    assert "├─ replaced" in stream.getvalue()
    assert "├─ usual" in capsys.readouterr().err


# ---------------------------------------------------------------- streams


class Broken(io.StringIO):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def write(self, _: str) -> int:
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file"), RecursionError()])
def test_stream_that_fails_costs_a_count_only(error: Exception) -> None:
    printed = Printed(Broken(error))
    with printed.tracer.start_as_current_span("root"), printed.tracer.start_as_current_span("child"):
        pass
    assert (printed.dropped, printed.exported) == ({"tree_failed": 2}, 0)


def test_program_without_stderr_loses_trees_only(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(TreeProcessor(counters=counters))
    monkeypatch.setattr(sys, "stderr", None)
    provider.get_tracer("test").start_span("root").end()
    assert counters.snapshot().dropped == {"tree_failed": 1}


@pytest.mark.parametrize(
    ("encoding", "root"), [("ascii", b"|- caf\\xe9"), ("cp1252", b"|- caf\xe9"), ("utf-8", "├─ café".encode())]
)
def test_stream_of_any_encoding_gets_a_tree(encoding: str, root: bytes) -> None:
    raw = io.BytesIO()
    printed = Printed(io.TextIOWrapper(raw, encoding, errors="strict", newline="\n"))
    printed.tracer.start_span("café").end()
    assert raw.getvalue().splitlines()[1].startswith(root)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "stream", "is_painted"),
    [
        ({"TERM": "xterm"}, Terminal, True),
        ({"TERM": "xterm"}, io.StringIO, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, Terminal, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, Terminal, True),
        ({"TERM": "dumb"}, Terminal, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, io.StringIO, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, Terminal, False),
    ],
)
def test_colours_suit_the_stream(
    environment: dict[str, str], stream: Callable[[], Any], *, is_painted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    printed = Printed(stream())
    printed.tracer.start_span("root").end()
    assert ("\x1b[" in printed.stream.getvalue()) == is_painted


def test_caller_decides_about_colours() -> None:
    for color in (True, False):
        stream = Terminal()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(TreeProcessor(stream, counters=Counters(), color=color))
        provider.get_tracer("test").start_span("root").end()
        assert ("\x1b[" in stream.getvalue()) == color


# ---------------------------------------------------------------- bounds


def test_spans_beyond_the_bound_are_counted(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MAX_SPANS", 10)
    with printed.tracer.start_as_current_span("root"):
        for i in range(12):
            printed.tracer.start_span(f"child_{i}").end()
    # The root is the thirteenth to end.
    assert printed.lines[0] == "Trace: (10 spans)  3 more lost"
    assert printed.dropped == {"tree_full": 3}
    printed.tracer.start_span("next").end()
    assert printed.lines[-1] == "├─ next"
    assert printed.exported == 11


def test_oldest_of_too_many_traces_is_printed_as_it_is(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MAX_TRACES", 3)
    roots = [printed.tracer.start_span(f"root_{i}") for i in range(3)]
    printed.tracer.start_span("child", set_span_in_context(roots[0])).end()
    assert printed.lines == []
    printed.tracer.start_span("root_3").end()
    assert printed.lines[:3] == ["Trace: (1 span)  incomplete: 1 still open", "├─ root_0 (open)", "│  └─ child"]
    for root in roots:
        root.end()
    assert printed.exported == 5


def test_trace_that_takes_too_long_is_printed_as_it_is(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    with printed.tracer.start_as_current_span("socket"):
        with printed.tracer.start_as_current_span("message"):
            pass
        assert printed.lines == []
        monkeypatch.setattr(console, "MAX_AGE_S", -1.0)
        with printed.tracer.start_as_current_span("message"):
            pass
        assert printed.lines == [
            "Trace: (2 spans)  incomplete: 1 still open",
            "├─ socket (open)",
            "│  ├─ message",
            "│  └─ message",
        ]


# ---------------------------------------------------------------- re-entrancy and forks


def test_spans_made_by_the_stream_are_dropped_instead_of_printed_forever() -> None:
    class Traced(io.StringIO):
        def write(self, text: str) -> int:
            printed.tracer.start_span("write").end()
            return super().write(text)

    printed = Printed(Traced())
    printed.tracer.start_span("root").end()
    assert printed.lines == ["Trace: (1 span)", "├─ root"]
    assert printed.dropped == {"made_while_printing": 1}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_signal_handlers_that_make_spans_block_nothing_and_lose_nothing_uncounted() -> None:
    # In a process of its own: signals reach the main thread only, which may not be the test's.
    code = r"""
import io, re, signal
from opentelemetry.sdk.trace import TracerProvider
from tracekit._stats import Counters
from tracekit.export import TreeProcessor
counters, stream = Counters(), io.StringIO()
processor = TreeProcessor(stream, counters=counters)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(processor)
tracer = provider.get_tracer("test")
interrupts = rounds = 0
def interrupt(*_):
    global interrupts
    tracer.start_span("interrupt").end()
    interrupts += 1
    signal.setitimer(signal.ITIMER_REAL, 0.001)
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.001)
while interrupts < 200:
    with tracer.start_as_current_span("root"):
        tracer.start_span("child").end()
    rounds += 1
signal.setitimer(signal.ITIMER_REAL, 0)
assert processor.force_flush()
dropped = dict(counters.snapshot().dropped)
assert set(dropped) <= {"made_while_printing"}, dropped
printed = sum(int(spans) for spans in re.findall(r", (\d+) spans?\)", stream.getvalue()))
print(2 * rounds + interrupts - printed - sum(dropped.values()))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    assert run.stdout == "0\n", run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_child_prints_its_own_spans_only() -> None:
    code = """
import os, sys
from opentelemetry.sdk.trace import TracerProvider
from tracekit._stats import Counters
from tracekit.export import TreeProcessor
processor = TreeProcessor(sys.stdout, counters=Counters())
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(processor)
tracer = provider.get_tracer("test")
with tracer.start_as_current_span("parent"):
    tracer.start_span("before").end()
    # As another thread may hold it at that moment.
    processor._sorting.acquire()
    child = os.fork()
    if not child:
        tracer.start_span("in_child").end()
        processor.shutdown()
        os._exit(0)
    processor._sorting.release()
    assert os.waitpid(child, 0)[1] == 0
    print("--", flush=True)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    child, parent = run.stdout.split("--\n")
    assert re.findall(r"─ (\w+)", child) == ["in_child"]
    assert re.findall(r"─ (\w+)", parent) == ["parent", "before"]
