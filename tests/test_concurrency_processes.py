"""Work in other processes is a child of the span that sent it, is exported, and is otherwise as it would be."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from tracekit.view.reading import read_trace_file

if TYPE_CHECKING:
    from pathlib import Path

    from tracekit.export.record import SpanRecord

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")

METHODS: Final = ("fork", "forkserver", "spawn")

PROLOGUE: Final = """
import logging, multiprocessing, os, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
import tracekit
from tracekit import ContextExecutor, propagate, traced, traced_block

@traced("shop.work")
def work(number):
    if number < 0:
        raise LookupError(number)
    return number * 2

def plain(number):
    return os.getpid(), tracekit.get_baggage("tenant"), tracekit.current_trace_id()

def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)

def hold():
    open("started", "w").close()
    wait_for("release")
    return "released"

def configure():
    tracekit.configure(service="shop", exporter="file:traces.jsonl", resource={"region": "eu"})
"""

SHOP: Final = """
from tracekit import traced

@traced
def pack(number):
    return number * 2
"""


def run(directory: Path, program: str, *arguments: str, **environment: str) -> list[SpanRecord]:
    """Run *program*, the body of `main`, to its end; return the spans it has left."""
    path = directory / "program.py"
    body = textwrap.indent(textwrap.dedent(program), "    ")
    path.write_text(f"{PROLOGUE}\ndef main():\n{body}\nif __name__ == '__main__':\n    main()\n")
    # No batch goes out by itself: what arrives was flushed when the worker ended.
    environment = {**os.environ, "OTEL_BSP_SCHEDULE_DELAY": "600000", **environment}
    ran = subprocess.run(
        [sys.executable, path, *arguments],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=50,
    )
    assert ran.returncode == 0, ran.stdout
    assert not ran.stdout
    traces = directory / "traces.jsonl"
    return list(read_trace_file(traces).spans) if traces.exists() else []


def assert_joined(spans: list[SpanRecord], **counts: int) -> None:
    """Assert that *counts* spans of `shop.<name>` are there, below the one `shop.main`, in one trace of one service."""
    (main,) = (span for span in spans if span.name == "shop.main")
    assert Counter(span.name for span in spans) == {"shop.main": 1, **{f"shop.{n}": c for n, c in counts.items()}}
    assert {span.trace_id for span in spans} == {main.trace_id}
    assert {span.parent_id for span in spans} == {None, main.span_id}
    assert {span.service for span in spans} == {"shop"}


@pytest.mark.parametrize("method", METHODS)
def test_executors_work_is_a_child_and_arrives(method: str, tmp_path: Path) -> None:
    program = """
    configure()
    pool = ContextExecutor(ProcessPoolExecutor(2, multiprocessing.get_context(sys.argv[1])))
    with pool:
        assert pool.submit(plain, 0).result()[1:] == (None, None)
        with traced_block("shop.main"):
            tracekit.set_baggage("tenant", "acme")
            assert [f.result() for f in [pool.submit(work, n) for n in range(4)]] == [0, 2, 4, 6]
            assert list(pool.map(work, range(6), chunksize=3, timeout=30)) == [0, 2, 4, 6, 8, 10]
            pid, tenant, trace_id = pool.submit(plain, 0).result()
            assert pid != os.getpid()
            assert tenant == "acme"
            assert trace_id == tracekit.current_trace_id()
        assert pool.submit(plain, 0).result()[1:] == (None, None)
    """
    assert_joined(run(tmp_path, program, method), work=10)


@pytest.mark.parametrize("method", METHODS)
def test_pools_work_is_a_child_and_arrives(method: str, tmp_path: Path) -> None:
    program = """
    configure()
    with traced_block("shop.main"), multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert pool.map(propagate(work), range(4)) == [0, 2, 4, 6]
        assert pool.apply_async(propagate(work), (4,)).get() == 8
        assert pool.apply(propagate(plain), (0,))[2] == tracekit.current_trace_id()
    """
    assert_joined(run(tmp_path, program, method), work=5)


@pytest.mark.parametrize("method", METHODS)
def test_process_is_a_child_and_arrives(method: str, tmp_path: Path) -> None:
    program = """
    configure()
    with traced_block("shop.main"):
        process = multiprocessing.get_context(sys.argv[1]).Process(target=propagate(work), args=(1,))
    process.start()
    process.join()
    assert process.exitcode == 0
    """
    assert_joined(run(tmp_path, program, method), work=1)


def test_forked_process_has_a_remote_parent(tmp_path: Path) -> None:
    program = """
    configure()
    with traced_block("shop.main"):
        process = multiprocessing.get_context("fork").Process(target=propagate(work), args=(1,))
        process.start()
        process.join()
    """
    spans = run(tmp_path, program)
    assert [span.name for span in spans if span.parent_is_remote] == ["shop.work"]


@pytest.mark.parametrize("method", METHODS)
def test_exceptions_and_cancellation_are_the_executors_own(method: str, tmp_path: Path) -> None:
    program = """
    from concurrent.futures import CancelledError
    configure()
    method = multiprocessing.get_context(sys.argv[1])
    inner = ProcessPoolExecutor(1, method)
    pool = ContextExecutor(inner)
    with traced_block("shop.main"):
        error = pool.submit(work, -1).exception()
        assert type(error) is LookupError and error.args == (-1,)
        assert "raise LookupError(number)" in str(error.__cause__)

        futures = [pool.submit(hold) for _ in range(10)]
        wait_for("started")
        pool.shutdown(wait=False, cancel_futures=True)
        try:
            futures[-1].result(30)
        except CancelledError:
            assert futures[-1].cancelled()
        open("release", "w").close()
        assert futures[0].result() == "released"
        try:
            pool.submit(work, 1)
        except RuntimeError as error:
            assert "after shutdown" in str(error)
    with ProcessPoolExecutor(1, method) as plain_pool:
        refused = [p.submit(lambda: 1).exception() for p in (plain_pool, ContextExecutor(plain_pool))]
        assert type(refused[0]) is type(refused[1])
        assert refused[0].args == refused[1].args
    """
    spans = run(tmp_path, program, method)
    (failed,) = (span for span in spans if span.status == "error")
    assert failed.description == "LookupError: -1"


def test_worker_is_configured_like_its_parent(tmp_path: Path) -> None:
    program = """
    configure()
    with ContextExecutor(ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))) as pool:
        with traced_block("shop.main"):
            pool.submit(work, 1).result()
    """
    assert_joined(run(tmp_path, program), work=1)
    assert (tmp_path / "traces.jsonl").read_text().count('"region"') == 2


def test_worker_with_a_set_up_of_its_own_keeps_it(tmp_path: Path) -> None:
    program = """
    configure()
    own = {"service": "packing", "exporter": "file:traces.jsonl"}
    from functools import partial
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=partial(tracekit.configure, **own)) as pool:
        with traced_block("shop.main"):
            ContextExecutor(pool).submit(work, 1).result()
    """
    spans = run(tmp_path, program)
    assert {(span.name, span.service) for span in spans} == {("shop.main", "shop"), ("shop.work", "packing")}
    assert len({span.trace_id for span in spans}) == 1


def test_sampler_that_cannot_be_pickled_leaves_the_decision_to_the_parent(tmp_path: Path) -> None:
    program = """
    from tracekit.sampling import RateLimited
    tracekit.configure(service="shop", exporter="file:traces.jsonl", sample=RateLimited(1e6))
    with ContextExecutor(ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))) as pool:
        with traced_block("shop.main"):
            pool.submit(work, 1).result()
    """
    assert_joined(run(tmp_path, program), work=1)


def test_work_whose_trace_is_not_sampled_leaves_nothing(tmp_path: Path) -> None:
    program = """
    tracekit.configure(exporter="file:traces.jsonl", sample={"shop.main": 0, "*": 1})
    with ContextExecutor(ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))) as pool:
        with traced_block("shop.main"):
            assert pool.submit(work, 1).result() == 2
    """
    assert run(tmp_path, program) == []


def test_exporter_that_cannot_be_pickled_is_said_once_and_costs_only_the_workers_spans(tmp_path: Path) -> None:
    program = """
    import threading
    from opentelemetry.sdk.trace.export import SpanExporter
    class Exporter(SpanExporter):
        def __init__(self):
            self.lock = threading.Lock()
        def export(self, spans): ...
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("tracekit").addHandler(handler)
    tracekit.configure(exporter=[Exporter(), "file:traces.jsonl"])
    with ContextExecutor(ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))) as pool:
        with traced_block("shop.main"):
            assert [pool.submit(work, n).result() for n in range(3)] == [0, 2, 4]
    (message,) = messages
    assert "exporter= of configure() cannot be pickled" in message, message
    """
    assert [span.name for span in run(tmp_path, program)] == ["shop.main"]


def test_loky_executors_work_is_a_child_and_arrives(tmp_path: Path) -> None:
    pytest.importorskip("loky")
    program = """
    import loky
    configure()
    with traced_block("shop.main"), ContextExecutor(loky.ProcessPoolExecutor(2)) as pool:
        assert [f.result() for f in [pool.submit(work, n) for n in range(4)]] == [0, 2, 4, 6]
        assert list(pool.map(lambda n: work(n), range(2))) == [0, 2]
        assert type(pool.submit(work, -1).exception()) is LookupError
    """
    assert_joined(run(tmp_path, program), work=7)


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblibs_work_is_a_child_and_arrives(backend: str, tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    program = """
    from joblib import Parallel, delayed
    configure()
    with traced_block("shop.main"):
        task = delayed(propagate(work))
        assert Parallel(n_jobs=2, backend=sys.argv[1])(task(n) for n in range(10)) == [n * 2 for n in range(10)]
    """
    assert_joined(run(tmp_path, program, backend), work=10)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="interpreters of one process came with Python 3.13")
def test_work_in_another_interpreter_is_a_child_and_arrives(tmp_path: Path) -> None:
    program = """
    import _interpreters, pickle, shop
    configure()
    with traced_block("shop.main"):
        data = pickle.dumps(propagate(shop.pack))
    other = _interpreters.create()
    code = f"import pickle, sys; sys.path[:0] = {sys.path!r}; assert pickle.loads({data!r})(4) == 8"
    assert _interpreters.exec(other, code) is None
    _interpreters.destroy(other)
    """
    (tmp_path / "shop.py").write_text(SHOP)
    assert_joined(run(tmp_path, program), pack=1)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="InterpreterPoolExecutor came with Python 3.14")
def test_interpreter_pools_work_is_a_child_and_arrives(tmp_path: Path) -> None:
    program = """
    import shop
    from concurrent.futures import InterpreterPoolExecutor
    configure()
    with traced_block("shop.main"), ContextExecutor(InterpreterPoolExecutor(2)) as pool:
        assert pool.submit(shop.pack, 4).result() == 8
        assert list(pool.map(shop.pack, range(2), buffersize=1)) == [0, 2]
    """
    (tmp_path / "shop.py").write_text(SHOP)
    assert_joined(run(tmp_path, program), pack=3)


def test_subprocess_continues_the_trace_of_its_environment(tmp_path: Path) -> None:
    program = """
    configure()
    if len(sys.argv) > 1:
        with tracekit.remote_parent(os.environ):
            work(1)
        return
    with traced_block("shop.main"):
        environment = tracekit.inject(dict(os.environ))
        subprocess.run([sys.executable, __file__, "child"], env=environment, check=True)
    assert "TRACEPARENT" not in os.environ
    """
    assert_joined(run(tmp_path, program), work=1)
