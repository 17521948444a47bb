"""However a process ends, its spans arrive and it ends as it would have without tracekit."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks")

PROLOGUE = """
import os, signal, sys, threading, time
import tracekit

@tracekit.traced("shop.work")
def work(): ...

tracing = None
def configure():
    global tracing
    tracing = tracekit.configure(exporter="file:traces.jsonl")

def ready():
    print("ready", flush=True)
"""


def start(directory: Path, program: str) -> subprocess.Popen[str]:
    (directory / "program.py").write_text(PROLOGUE + textwrap.dedent(program))
    return run_in(directory, [sys.executable, "program.py"])


def run_in(directory: Path, command: Sequence[str]) -> subprocess.Popen[str]:
    # No batch goes out by itself: what arrives was flushed at the end.
    environment = {**os.environ, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    return subprocess.Popen(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str], status: int, *, errors: bool = False) -> str:
    output, error_output = process.communicate(timeout=30)
    assert process.returncode == status, error_output
    assert errors or not error_output
    return output


def spans_in(directory: Path) -> Counter[str]:
    path = directory / "traces.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(
        span["name"]
        for line in lines
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    )


def terminate_when_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)


def test_exit_flushes(tmp_path: Path) -> None:
    finish(start(tmp_path, "configure(); work(); sys.exit(3)"), 3)
    assert spans_in(tmp_path) == {"shop.work": 1}


def test_uncaught_error_flushes(tmp_path: Path) -> None:
    finish(start(tmp_path, "configure(); work(); 1 / 0"), 1, errors=True)
    assert spans_in(tmp_path) == {"shop.work": 1}


def test_exit_waits_for_a_dead_exporter_no_longer_than_its_time(tmp_path: Path) -> None:
    program = """
    from opentelemetry.sdk.trace.export import SpanExporter
    class Dead(SpanExporter):
        def export(self, spans):
            time.sleep(600)
    tracekit.configure(exporter=[Dead(), Dead(), "file:traces.jsonl"]); work()
    """
    finish(start(tmp_path, program), 0, errors=True)
    assert spans_in(tmp_path) == {"shop.work": 1}


def test_sigterm_flushes_and_kills_as_before(tmp_path: Path) -> None:
    process = start(tmp_path, "configure(); work(); ready(); time.sleep(60)")
    terminate_when_ready(process)
    finish(process, -signal.SIGTERM)
    assert spans_in(tmp_path) == {"shop.work": 1}


@pytest.mark.parametrize(
    ("handler", "status"),
    [
        ("lambda *_: sys.exit(7)", 7),
        ("lambda *_: os._exit(8)", 8),
        ("lambda *_: threading.Thread(target=lambda: (work(), os._exit(9))).start()", 9),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_programs_own_handler_is_called(handler: str, status: int, when: str, tmp_path: Path) -> None:
    install = f"signal.signal(signal.SIGTERM, {handler})"
    steps = [install, "configure()"] if when == "before" else ["configure()", install]
    process = start(tmp_path, "; ".join([*steps, "work()", "ready()", "time.sleep(60)"]))
    terminate_when_ready(process)
    finish(process, status)
    # A handler installed later, which leaves without any exit functions, leaves no chance.
    if when == "before" or status == 7:
        assert spans_in(tmp_path)["shop.work"] >= 1


def test_ignored_sigterm_stays_ignored(tmp_path: Path) -> None:
    program = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN); configure(); work()
    os.kill(os.getpid(), signal.SIGTERM)
    """
    finish(start(tmp_path, program), 0)
    assert spans_in(tmp_path) == {"shop.work": 1}


def test_asyncio_program_stops_in_its_own_way(tmp_path: Path) -> None:
    program = """
    import asyncio
    async def main():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        configure(); work(); ready()
        await stop.wait()
        work()
    asyncio.run(main())
    """
    process = start(tmp_path, program)
    terminate_when_ready(process)
    finish(process, 0)
    assert spans_in(tmp_path) == {"shop.work": 2}


def test_configuring_off_the_main_thread_works(tmp_path: Path) -> None:
    program = "thread = threading.Thread(target=configure); thread.start(); thread.join(); work()"
    finish(start(tmp_path, program), 0)
    assert spans_in(tmp_path) == {"shop.work": 1}


def test_shutdown_gives_sigterm_back(tmp_path: Path) -> None:
    program = """
    for _ in range(3):
        configure()
    tracing.shutdown()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    """
    finish(start(tmp_path, program), 0)


def test_time_limit_of_the_program_is_not_mistaken_for_a_failing_processor(tmp_path: Path) -> None:
    program = """
    from opentelemetry.sdk.trace import SpanProcessor
    class Slow(SpanProcessor):
        def on_end(self, span):
            time.sleep(60)
    def limit(*_):
        raise TimeoutError
    signal.signal(signal.SIGALRM, limit)
    tracekit.configure(exporter=Slow())
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        tracing.provider.get_tracer("t").start_span("x").end() if tracing else tracekit.current_span()
        from opentelemetry import trace
        trace.get_tracer("t").start_span("x").end()
    except TimeoutError:
        print("limited")
    """
    assert finish(start(tmp_path, program), 0) == "limited\n"


def test_forked_workers_flush(tmp_path: Path) -> None:
    program = """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    def main():
        fork = multiprocessing.get_context("fork")
        configure(); work()
        processes = [fork.Process(target=work) for _ in range(3)]
        for process in processes: process.start()
        for process in processes: process.join()
        with ProcessPoolExecutor(2, mp_context=fork) as pool:
            for future in [pool.submit(work) for _ in range(4)]: future.result()
        with fork.Pool(2) as pool:
            pool.map(lambda_free, range(4))
    def lambda_free(_):
        work()
    main()
    """
    process = start(tmp_path, program)
    finish(process, 0, errors=True)
    assert spans_in(tmp_path) == {"shop.work": 1 + 3 + 4 + 4}


APP = """
import tracekit
tracekit.configure(exporter="file:traces.jsonl")

@tracekit.traced("shop.request")
async def handle(send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

async def app(scope, receive, send):
    if scope["type"] == "http":
        await handle(send)
    elif scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        with tracekit.traced_block("lifespan.shutdown"):
            pass
        await send({"type": "lifespan.shutdown.complete"})
"""


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["single", "workers"])
def test_uvicorn_loses_no_span_on_sigterm(options: list[str], tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    (tmp_path / "app.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "critical", *options]
    process = run_in(tmp_path, command)
    wait_for(port)
    for _ in range(40):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/").close()
    process.send_signal(signal.SIGTERM)
    finish(process, 0 if options else -signal.SIGTERM)
    assert spans_in(tmp_path) == {"shop.request": 40, "lifespan.shutdown": 2 if options else 1}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return
