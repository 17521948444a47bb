"""Spans while the receiver is away: they wait on disk, and arrive when it is back, whoever sends them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from otlp_receiver import Answer, GrpcReceiver, HttpReceiver, Receiver

import tracekit
from tracekit._diagnostics import diagnostics
from tracekit._stats import Counters, Stats
from tracekit.configuration import Tracing
from tracekit.export.batch import BatchProcessor
from tracekit.export.file import FileExporter
from tracekit.export.spool import Spool

WAIT_S = 30.0


@pytest.fixture(autouse=True)
def _forget_reports() -> Iterator[None]:
    diagnostics.reset()
    yield
    diagnostics.reset()


def protocol_of(receiver: Receiver) -> Any:
    return "grpc" if isinstance(receiver, GrpcReceiver) else "http/protobuf"


def tracing_to(receiver: Receiver, spool: Path, **options: Any) -> Tracing:
    options = {"timeout_s": 0.5, **options}
    return tracekit.configure(
        endpoint=receiver.endpoint, protocol=protocol_of(receiver), spool=spool, service="shop", **options
    )


def end(*names: str) -> None:
    for name in names:
        with tracekit.traced_block(f"shop.{name}"):
            pass


def names(receiver: Receiver) -> list[str]:
    return [span.name.removeprefix("shop.") for span in receiver.spans]


def places(tracing: Tracing) -> tuple[int, int, int, dict[str, int]]:
    stats = tracing.stats
    return stats.exported, stats.spooled, stats.queued, dict(stats.dropped)


def wait_until(reached: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not reached():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_receiver_that_is_away_is_said_with_where_spans_are_kept(
    otlp_http: HttpReceiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    otlp_http.answer_always(Answer(503, "UNAVAILABLE"))
    tracing = tracing_to(otlp_http, tmp_path)
    end("a")
    tracing.flush()
    wait_until(lambda: bool(caplog.records))
    assert f"; they are kept in {tmp_path} until it does" in caplog.text
    assert "trying again" not in caplog.text


def test_spans_wait_on_disk_while_the_receiver_is_away_and_arrive_in_order(otlp: Receiver, tmp_path: Path) -> None:
    otlp.answer_always(Answer(503, "UNAVAILABLE"))
    tracing = tracing_to(otlp, tmp_path)
    for name in "abcde":
        end(name)
        # Nothing is lost, and nobody waits.
        assert tracing.flush(20)
    assert places(tracing) == (0, 5, 0, {})
    otlp.answer_always(Answer())
    wait_until(lambda: tracing.stats.spooled == 0)
    assert names(otlp) == list("abcde")
    assert places(tracing) == (5, 0, 0, {})


def test_what_cannot_be_sent_at_the_end_is_sent_by_the_next_process(otlp_http: Receiver, tmp_path: Path) -> None:
    port = otlp_http.port
    otlp_http.close()
    tracing = tracing_to(otlp_http, tmp_path)
    end("a")
    assert tracing.flush(20)
    end("b")
    assert tracing.shutdown()
    assert places(tracing) == (0, 2, 0, {})
    back = type(otlp_http)(port)
    try:
        # Before it has made any span.
        later = tracing_to(back, tmp_path)
        back.wait_for_spans(2)
        assert names(back) == ["a", "b"]
        assert later.stats == Stats(internal_errors=0)
    finally:
        later.shutdown()
        back.close()


def test_what_a_receiver_has_not_answered_for_at_the_end_is_kept(otlp_http: Receiver, tmp_path: Path) -> None:
    otlp_http.answer_always(Answer(hold=True))
    tracing = tracing_to(otlp_http, tmp_path, timeout_s=20)
    end("a", "b")
    assert not tracing.flush(0.01)
    otlp_http.wait_for_requests(1)
    end("c")
    assert tracing.shutdown(1.0)
    assert places(tracing) == (0, 3, 0, {})


def test_a_batch_on_disk_that_is_refused_stops_no_other(otlp_http: Receiver, tmp_path: Path) -> None:
    otlp_http.answer_always(Answer(503, "UNAVAILABLE"))
    tracing = tracing_to(otlp_http, tmp_path)
    for name in "abc":
        end(name, name)
        assert tracing.flush(20)
    otlp_http.forget()
    otlp_http.answer(Answer(400, "INVALID_ARGUMENT"), Answer(rejected=1))
    wait_until(lambda: tracing.stats.spooled == 0)
    assert places(tracing) == (3, 0, 0, {"export_failed": 2, "rejected": 1})
    assert names(otlp_http) == list("bbcc")


def test_a_batch_on_disk_that_is_too_large_is_sent_in_halves(otlp_http: Receiver, tmp_path: Path) -> None:
    otlp_http.answer_always(Answer(503, "UNAVAILABLE"))
    tracing = tracing_to(otlp_http, tmp_path)
    end(*"abcde")
    assert tracing.flush(20)
    otlp_http.max_spans = 2
    otlp_http.answer_always(Answer())
    wait_until(lambda: tracing.stats.spooled == 0)
    assert names(otlp_http) == list("abcde")


ANSWERS = {
    "accept": Answer(),
    "refuse": Answer(400),
    "reject": Answer(rejected=1),
    "busy": Answer(503),
    "large": Answer(413),
}


@given(steps=st.lists(st.sampled_from([*ANSWERS, "end", "end", "flush", "away", "back", "restart"]), max_size=14))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_span_is_accounted_for_on_disk_too(otlp_http: HttpReceiver, steps: list[str]) -> None:
    otlp_http.forget()
    with tempfile.TemporaryDirectory() as directory:
        tracing = tracing_to(otlp_http, Path(directory))
        handles, ended = [tracing], 0
        for step in steps:
            if step == "end":
                end("a", "b")
                ended += 2
            elif step == "flush":
                tracing.flush(20)
            elif step == "restart":
                # As another process would: what the one before has kept is sent by this one.
                tracing = tracing_to(otlp_http, Path(directory))
                handles.append(tracing)
            elif step in ANSWERS:
                otlp_http.answer(ANSWERS[step])
            else:
                otlp_http.answer_always(Answer() if step == "back" else Answer(503))
            stats = [handle.stats for handle in handles]
            assert sum(figures.sampled for figures in stats) == ended
            for figures in stats:
                assert figures.sampled == figures.exported + figures.spooled + figures.queued + sum(
                    figures.dropped.values()
                )
        tracing.shutdown(20)
        assert {figures.queued for figures in (handle.stats for handle in handles)} == {0}


def test_spans_for_which_there_is_no_room_go_to_the_disk(tmp_path: Path) -> None:
    class Stuck(FileExporter):
        def export(self, spans: Any) -> Any:
            stop.wait(WAIT_S)
            return super().export(spans)

    stop = threading.Event()
    counters = Counters()
    spool = Spool(tmp_path, "here")
    exporter = Stuck(tmp_path / "file.jsonl")
    processor = BatchProcessor(exporter, counters, spool=spool, max_queue_size=500, max_batch_size=50)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("t")
    for number in range(2_000):
        tracer.start_span("s").end()
        if number % 50 == 0:
            # So that the disk keeps up.
            wait_until(lambda: counters.snapshot().queued < 450)
    stats = counters.snapshot()
    assert stats.spooled > 1_000
    assert stats.spooled + stats.queued == 2_000
    stop.set()
    processor.shutdown(20_000)
    stats = counters.snapshot()
    assert stats.exported + stats.spooled == 2_000
    assert not stats.dropped


def test_true_is_a_directory_of_the_users_own(
    otlp_http: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    otlp_http.answer_always(Answer(503, "UNAVAILABLE"))
    tracing = tracekit.configure(
        endpoint=otlp_http.endpoint, protocol=protocol_of(otlp_http), spool=True, timeout_s=0.5
    )
    end("a")
    assert tracing.flush(20)
    assert (tmp_path / "tracekit" / "spool" / "spool.sqlite3").exists()
    assert "spool" in repr(tracing)


def test_a_spool_that_broke_costs_only_what_it_should_have_kept(otlp_http: Receiver, tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    otlp_http.answer_always(Answer(503, "UNAVAILABLE"))
    tracing = tracing_to(otlp_http, directory)
    end("a", "b")
    assert tracing.flush(20)
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    directory.touch()  # no directory can be made here
    end("c")
    assert not tracing.flush(20)
    otlp_http.answer_always(Answer())
    wait_until(lambda: (end("d"), tracing.flush(20), "d" in names(otlp_http))[-1])
    assert tracing.stats.dropped == {"export_failed": tracing.stats.dropped["export_failed"], "spool_damaged": 2}
    stats = tracing.stats
    assert stats.sampled == stats.exported + sum(stats.dropped.values())
    directory.unlink()


PROGRAM = """
import json, os, sys, time
import tracekit
endpoint, protocol, spool, count, ending = sys.argv[1:]
tracing = tracekit.configure(endpoint=endpoint, protocol=protocol, spool=spool, service="shop", timeout_s=0.5)
for number in range(int(count)):
    with tracekit.traced_block(f"shop.{os.getpid()}.{number}"):
        pass
if ending == "killed":
    tracing.flush(20)
    print(json.dumps([tracing.stats.sampled, tracing.stats.exported + tracing.stats.spooled]), flush=True)
    os.kill(os.getpid(), 9)
"""


def program(receiver: Receiver, spool: Path, count: int, ending: str = "exit") -> subprocess.Popen[str]:
    arguments = [receiver.endpoint, protocol_of(receiver), str(spool), str(count), ending]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(os.name != "posix", reason="no SIGKILL on this system")
def test_what_was_flushed_survives_a_kill(otlp_http: Receiver, tmp_path: Path) -> None:
    otlp_http.answer_always(Answer(503, "UNAVAILABLE"))
    with program(otlp_http, tmp_path, 700, "killed") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.read()) == [700, 700]
    otlp_http.forget()
    tracing = tracing_to(otlp_http, tmp_path)
    assert len({span.name for span in otlp_http.wait_for_spans(700)}) == 700
    assert tracing.stats.sampled == 0


@pytest.mark.slow
def test_processes_share_a_spool_and_each_span_arrives_once(otlp_http: Receiver, tmp_path: Path) -> None:
    otlp_http.answer_always(Answer(503, "UNAVAILABLE"))
    running = [program(otlp_http, tmp_path, 600) for _ in range(3)]
    assert [process.wait(WAIT_S) for process in running] == [0, 0, 0]
    for process in running:
        assert process.stdout is not None
        process.stdout.close()
    otlp_http.forget()
    directories = [tracing_to(otlp_http, tmp_path)]
    otlp_http.wait_for_spans(1_800)
    assert set(Counter(span.span_id for span in otlp_http.spans).values()) == {1}
    assert directories[0].shutdown()


FORKING = """
import os, sys
import tracekit
endpoint, spool = sys.argv[1:]
tracing = tracekit.configure(endpoint=endpoint, spool=spool, service="shop", timeout_s=0.3)
def end(count):
    for _ in range(count):
        with tracekit.traced_block("shop.order"):
            pass
end(10)
assert tracing.flush(20)
children = []
for _ in range(4):
    child = os.fork()
    if not child:
        end(300)
        tracing.shutdown()
        stats = tracing.stats
        os._exit((stats.sampled, stats.spooled, stats.queued, dict(stats.dropped)) != (300, 300, 0, {}))
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
assert tracing.stats.spooled == 10
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_workers_keep_what_they_made(otlp_http: HttpReceiver, tmp_path: Path) -> None:
    port = otlp_http.port
    otlp_http.close()
    subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING, otlp_http.endpoint, str(tmp_path)], timeout=50, check=True
    )
    back = HttpReceiver(port)
    try:
        tracing = tracing_to(back, tmp_path)
        back.wait_for_spans(1_210)
        assert len({span.span_id for span in back.spans}) == 1_210
    finally:
        tracing.shutdown()
        back.close()


@pytest.mark.slow
def test_a_receiver_that_comes_and_goes_gets_every_span_of_every_process(otlp: Receiver, tmp_path: Path) -> None:
    running = [program(otlp, tmp_path, 20_000) for _ in range(3)]
    deadline_s = time.monotonic() + 10
    answers = [Answer(503, "UNAVAILABLE"), Answer(), Answer(close=True), Answer(), Answer(429, "UNAVAILABLE")]
    turn = 0
    while any(process.poll() is None for process in running) and time.monotonic() < deadline_s:
        otlp.answer_always(answers[turn % len(answers)])
        turn += 1
        time.sleep(0.3)
    assert [process.wait(WAIT_S) for process in running] == [0, 0, 0]
    for process in running:
        assert process.stdout is not None
        process.stdout.close()
    otlp.answer_always(Answer())
    tracing = tracing_to(otlp, tmp_path)
    wait_until(lambda: len({span.span_id for span in otlp.spans}) == 60_000)
    assert tracing.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("with_spool", [False, True])
def test_a_steady_load_arrives_complete(otlp: Receiver, tmp_path: Path, with_spool: bool) -> None:
    tracing = (
        tracing_to(otlp, tmp_path, timeout_s=10)
        if with_spool
        else tracekit.configure(endpoint=otlp.endpoint, protocol=protocol_of(otlp))
    )
    made = 0
    end_s = time.monotonic() + 5
    while time.monotonic() < end_s:
        end("s")
        made += 1
    assert tracing.flush(60)
    wait_until(lambda: tracing.stats.spooled == 0)
    assert places(tracing) == (made, 0, 0, {})
    assert len({span.span_id for span in otlp.spans}) == made
