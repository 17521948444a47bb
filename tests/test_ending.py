"""However a process ends, its spans arrive and it ends as it would have without tracekit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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


def attributes_in(directory: Path) -> list[tuple[str, dict[str, Any]]]:
    lines = (directory / "traces.jsonl").read_text().splitlines()
    return [
        (span["name"], {item["key"]: next(iter(item["value"].values())) for item in span.get("attributes", ())})
        for line in lines
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def signal_when_ready(process: subprocess.Popen[str], signum: int) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signum)


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
    tracekit.configure(exporter=[Dead(), Dead(), "file:traces.jsonl"], timeout_s=1); work()
    """
    finish(start(tmp_path, program), 0, errors=True)
    assert spans_in(tmp_path) == {"shop.work": 1}


def test_sigterm_flushes_and_kills_as_before(tmp_path: Path) -> None:
    process = start(tmp_path, "configure(); work(); ready(); time.sleep(60)")
    signal_when_ready(process, signal.SIGTERM)
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
    signal_when_ready(process, signal.SIGTERM)
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
    signal_when_ready(process, signal.SIGTERM)
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


def test_signal_sent_to_a_child_that_has_not_begun_yet_kills_it(tmp_path: Path) -> None:
    program = """
    configure()
    for _ in range(30):
        child = os.fork()
        if not child:
            time.sleep(3)
            os._exit(7)
        os.kill(child, signal.SIGTERM)
        assert os.waitpid(child, 0)[1] == signal.SIGTERM
    assert not {signal.SIGTERM, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, [])
    """
    finish(start(tmp_path, program), 0)


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


def test_sighup_flushes_and_kills_as_before(tmp_path: Path) -> None:
    process = start(tmp_path, "configure(); work(); ready(); time.sleep(60)")
    signal_when_ready(process, signal.SIGHUP)
    finish(process, -signal.SIGHUP)
    assert spans_in(tmp_path) == {"shop.work": 1}


def test_programs_own_handler_of_sighup_means_no_end(tmp_path: Path) -> None:
    program = """
    handler = lambda *_: print("reloaded")
    signal.signal(signal.SIGHUP, handler); configure(); work()
    assert signal.getsignal(signal.SIGHUP) is handler
    os.kill(os.getpid(), signal.SIGHUP)
    """
    assert finish(start(tmp_path, program), 0) == "reloaded\n"
    assert spans_in(tmp_path) == {"shop.work": 1}


def test_ctrl_c_flushes_and_ends_as_before(tmp_path: Path) -> None:
    process = start(tmp_path, "configure(); work(); ready(); time.sleep(60)")
    signal_when_ready(process, signal.SIGINT)
    finish(process, -signal.SIGINT, errors=True)
    assert spans_in(tmp_path) == {"shop.work": 1}


HANGING = """
from opentelemetry.sdk.trace.export import SpanExporter
class Hanging(SpanExporter):
    def export(self, spans):
        print("exporting", flush=True)
        time.sleep(600)
tracekit.configure(exporter=Hanging(), timeout_s=600); work()
"""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGHUP, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGINT, signal.SIGINT),
    ],
)
def test_second_signal_gets_through_at_once(first: int, second: int, tmp_path: Path) -> None:
    process = start(tmp_path, HANGING + "ready(); time.sleep(600)")
    signal_when_ready(process, first)
    assert process.stdout is not None
    assert process.stdout.readline() == "exporting\n"
    process.send_signal(second)
    # Ctrl-C while SIGTERM waits is an exception in the handler, which leaves the program by it.
    assert process.wait(30) in (-first, -second)
    process.communicate()


def test_sigterm_is_not_lost_in_a_recursion_at_its_limit(tmp_path: Path) -> None:
    program = """
    configure(); work()
    sys.setrecursionlimit(60)
    def deeper():
        deeper()
    ready()
    while True:
        try:
            deeper()
        except RecursionError:
            pass
    """
    process = start(tmp_path, program)
    signal_when_ready(process, signal.SIGTERM)
    finish(process, -signal.SIGTERM)
    assert spans_in(tmp_path) == {"shop.work": 1}


def test_sigterm_that_interrupts_the_start_of_a_thread_is_not_stuck(tmp_path: Path) -> None:
    program = """
    tracekit.configure(exporter="file:traces.jsonl", timeout_s=1); work(); ready()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    while not signal.sigpending():
        pass
    # Held while any thread starts.
    with threading._active_limbo_lock:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        time.sleep(60)
    """
    process = start(tmp_path, program)
    signal_when_ready(process, signal.SIGTERM)
    finish(process, -signal.SIGTERM)


OPEN_SPANS = """
configure()
@tracekit.traced("shop.items")
def items():
    yield work()
    yield
@tracekit.traced("shop.serve")
def serve():
    serving.set()
    time.sleep(60)
serving = threading.Event()
threading.Thread(target=serve, daemon=True).start()
serving.wait()
left_off = items()
next(left_off)
with tracekit.traced_block("shop.main"):
    never = tracing.provider.get_tracer("t").start_span("shop.never")
    LEAVE
"""


@pytest.mark.engine("those that are open at the end of the process are lost")
@pytest.mark.parametrize(
    ("leave", "status", "open_blocks"),
    [("sys.exit(3)", 3, set[str]()), ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, {"shop.main"})],
    ids=["exit", "signal"],
)
def test_spans_open_at_the_end_arrive_marked(leave: str, status: int, open_blocks: set[str], tmp_path: Path) -> None:
    finish(start(tmp_path, OPEN_SPANS.replace("LEAVE", leave)), status)
    marked = {name for name, attributes in attributes_in(tmp_path) if attributes.get("tracekit.incomplete")}
    assert marked == {"shop.items", "shop.serve", "shop.never"} | open_blocks
    assert spans_in(tmp_path) == dict.fromkeys({*marked, "shop.work", "shop.main"}, 1)


@pytest.mark.engine("those that are open at the end of the process are lost")
def test_children_end_before_their_parents_that_are_open_at_the_end(tmp_path: Path) -> None:
    program = """
    configure()
    blocks = [tracekit.traced_block(f"shop.level{n}") for n in range(5)]
    for block in blocks: block.__enter__()
    """
    finish(start(tmp_path, program), 0)
    assert list(spans_in(tmp_path)) == [f"shop.level{n}" for n in reversed(range(5))]


@pytest.mark.engine("those that are open at the end of the process are lost")
def test_what_is_done_to_a_span_after_it_was_ended_for_its_owner_is_ignored(tmp_path: Path) -> None:
    program = """
    configure()
    block = tracekit.traced_block("shop.block", {"order.id": 1})
    span = block.__enter__()
    assert tracing.shutdown()
    span.set_attribute("late", 1); span.add_event("late"); span.update_name("late"); span.record_exception(KeyError())
    work()
    block.__exit__(None, None, None)
    assert tracing.stats.dropped == {"after_shutdown": 1}, tracing.stats
    assert (tracing.stats.sampled, tracing.stats.exported) == (2, 1)
    """
    finish(start(tmp_path, program), 0)
    [(name, attributes)] = attributes_in(tmp_path)
    assert (name, attributes["tracekit.incomplete"], attributes["order.id"]) == ("shop.block", True, "1")
    assert "late" not in attributes


def test_spans_that_are_gone_without_an_end_are_counted(tmp_path: Path) -> None:
    program = """
    configure()
    tracer = tracing.provider.get_tracer("t")
    for _ in range(3): tracer.start_span("forgotten")
    work()
    assert tracing.shutdown() is False
    assert tracing.stats.dropped == {"never_ended": 3}, tracing.stats
    assert (tracing.stats.sampled, tracing.stats.exported) == (4, 1)
    """
    finish(start(tmp_path, program), 0)


def test_open_spans_of_a_provider_of_the_users_arrive_too(tmp_path: Path) -> None:
    program = """
    from opentelemetry.sdk.trace import TracerProvider
    provider = TracerProvider(shutdown_on_exit=False)
    tracing = tracekit.configure(exporter="file:traces.jsonl", provider=provider)
    other = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("of another")
    span = provider.get_tracer("t").start_span("users")
    block = tracekit.traced_block("shop.block")
    block.__enter__()
    """
    finish(start(tmp_path, program), 0)
    assert spans_in(tmp_path) == {"users": 1, "shop.block": 1}


@pytest.mark.engine("those that are open at the end of the process are lost")
@pytest.mark.parametrize("provider", ["None", "TracerProvider(shutdown_on_exit=False)"])
def test_forked_child_does_not_end_the_spans_of_its_parent(provider: str, tmp_path: Path) -> None:
    program = f"""
    from opentelemetry.sdk.trace import TracerProvider
    tracekit.configure(exporter="file:traces.jsonl", provider={provider})
    parent, child = tracekit.traced_block("shop.parent"), tracekit.traced_block("shop.child")
    parent.__enter__()
    if not os.fork():
        child.__enter__()
        sys.exit(0)
    os.wait()
    parent.__exit__(None, None, None)
    """
    finish(start(tmp_path, program), 0)
    marks = {name: "tracekit.incomplete" in attributes for name, attributes in attributes_in(tmp_path)}
    assert marks == {"shop.parent": False, "shop.child": True}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before, Python ends no interpreter that has a thread")
def test_end_of_another_interpreter_exports_its_spans(tmp_path: Path) -> None:
    program = """
    inside = "import sys; sys.path[:0] = %r; import tracekit\\n" % sys.path
    inside += "tracekit.configure(exporter='file:traces.jsonl')\\n"
    inside += "with tracekit.traced_block('shop.inside'): pass"
    try:
        import _interpreters
        other = _interpreters.create("legacy")
        assert _interpreters.exec(other, inside) is None
    except ImportError:
        import _xxsubinterpreters as _interpreters
        other = _interpreters.create(isolated=False)
        _interpreters.run_string(other, inside)
    _interpreters.destroy(other)
    """
    finish(start(tmp_path, program), 0)
    assert spans_in(tmp_path) == {"shop.inside": 1}


@pytest.mark.slow
def test_first_process_of_a_container_lives_on_as_before(tmp_path: Path) -> None:
    program = """
    configure(); work()
    assert os.getpid() == 1
    os.kill(1, signal.SIGTERM)
    assert spans_so_far() == 1
    work()
    """
    helper = "spans_so_far = lambda: open('traces.jsonl').read().count('\"shop.work\"')\n"
    (tmp_path / "program.py").write_text(PROLOGUE + helper + textwrap.dedent(program))
    alone = ["unshare", "--pid", "--fork", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces to be had here")
    finish(run_in(tmp_path, [*alone, sys.executable, "program.py"]), 0)
    assert spans_in(tmp_path) == {"shop.work": 2}


def test_exit_functions_registered_before_configuring_are_traced(tmp_path: Path) -> None:
    program = """
    import atexit
    atexit.register(lambda: work())
    configure(); work()
    """
    finish(start(tmp_path, program), 0)
    assert spans_in(tmp_path) == {"shop.work": 2}


def test_import_and_decorating_start_no_thread_and_configuring_neither(tmp_path: Path) -> None:
    program = """
    for _ in range(2):
        assert threading.enumerate() == [threading.main_thread()]
        tracekit.configure(endpoint="http://127.0.0.1:9", protocol="http/protobuf")
    assert threading.enumerate() == [threading.main_thread()]
    """
    finish(start(tmp_path, program), 0)


def test_configuring_again_leaves_no_thread_behind(tmp_path: Path) -> None:
    program = """
    for _ in range(20):
        configure(); work(); tracing.flush()
    for thread in threading.enumerate():
        if thread.name == "tracekit-flush": thread.join()
    assert [thread.name for thread in threading.enumerate()].count("tracekit-export") <= 2
    """
    finish(start(tmp_path, program), 0)
    assert spans_in(tmp_path) == {"shop.work": 20}


@pytest.mark.engine("those that are open at the end of the process are lost")
def test_programs_that_close_their_event_loop_lose_nothing(tmp_path: Path) -> None:
    program = """
    import asyncio
    configure()
    @tracekit.traced("shop.stream")
    async def stream():
        yield 1
        yield 2
    @tracekit.traced("shop.task")
    async def task():
        await asyncio.sleep(60)
    async def main():
        waiting.append(asyncio.ensure_future(task()))
        await asyncio.sleep(0)
        left_off.append(stream())
        async for _ in left_off[0]:
            break
    waiting, left_off = [], []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    """
    finish(start(tmp_path, program), 0, errors=True)  # asyncio says that a task was destroyed
    assert spans_in(tmp_path) == {"shop.stream": 1, "shop.task": 1}


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
        with open("started", "a") as started:
            started.write("worker\\n")
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
    # The port is open before its workers are there.
    wait_until(lambda: (tmp_path / "started").read_text().count("\n") == (2 if options else 1))
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
    wait_until(lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close() is None)


def wait_until(reached: Callable[[], bool]) -> None:
    """Wait until *reached*; an OSError says that it is not."""
    deadline = time.monotonic() + 20
    while True:
        with suppress(OSError):
            if reached():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)
