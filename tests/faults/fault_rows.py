"""
The faults of delivery and exit, each caused for real, for tracekit or for OpenTelemetry's own SDK and exporters.

A row is a program, a receiver that behaves in some way, and what must come of it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otlp_receiver import ACCEPT, Answer, GrpcReceiver, HttpReceiver, Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STACKS: Final = ("tracekit", "stock")
PROTOCOLS: Final = ("http/protobuf", "grpc")

TRACEKIT: Final = """
import tracekit
from opentelemetry import trace

def configure(**options):
    global tracing
    tracing = tracekit.configure(service="faults", **options)

def exporter_to_receiver():
    return "otlp"

def flush(timeout_s=5.0):
    return tracing.flush(timeout_s)

def shutdown():
    tracing.shutdown()

def say_stats():
    stats = tracing.stats
    print(json.dumps({"stats": {
        "sampled": stats.sampled, "exported": stats.exported, "spooled": stats.spooled, "queued": stats.queued,
        "dropped": dict(stats.dropped),
    }}), flush=True)
"""

# As its documentation shows it.
STOCK: Final = """
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

def exporter_to_receiver():
    if os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return OTLPSpanExporter()

def configure(exporter=None, **options):
    global provider
    provider = TracerProvider(resource=Resource.create({"service.name": "faults"}))
    for one in exporter or [exporter_to_receiver()]:
        provider.add_span_processor(one if hasattr(one, "on_end") else BatchSpanProcessor(one))
    trace.set_tracer_provider(provider)

def flush(timeout_s=5.0):
    return provider.force_flush(int(timeout_s * 1000))

def shutdown():
    provider.shutdown()

def say_stats():
    pass
"""

COMMON: Final = """
import atexit, json, multiprocessing, os, signal, sys, threading, time
{stack}
def make(count, prefix="span"):
    tracer = trace.get_tracer("faults")
    for number in range(count):
        tracer.start_span(f"{{prefix}}.{{number}}").end()

def make_one(_):
    make(1)

def configure_and_make():
    configure()
    make(2)

def say(**what):
    print(json.dumps(what), flush=True)

def main():
{body}

if __name__ == "__main__":
    main()
"""


@dataclass(frozen=True)
class Row:
    """
    One fault.

    Args:
        name: Which, as a test's id.
        body: The program's `main`; `configure`, `make`, `flush`, `shutdown`, `say` and `say_stats` are there.
        made: Spans it makes.
        arrived: How many of them must arrive with tracekit, each once (None: what is not counted as dropped).
        dropped: What `Tracing.stats` must say of the others, where the program says its stats.
        answers: What the receiver answers first.
        always: What it answers then.
        where: "receiver", "refused" (nobody listens), "black hole" (accepts connections and never answers), "tls" (an
            address for TLS, a receiver without).
        signum: Sent when the program says that it is ready.
        status: How the program must end; as it would without tracing.
        says: What it must say.
        environment: More variables.
        is_quick: Whether it is tested each time, over its first protocol, and not with the slow tests only.
        protocols: Which it is run with.
    """

    name: str
    body: str
    made: int
    arrived: int | None
    dropped: Mapping[str, int] | None = None
    answers: tuple[Answer, ...] = ()
    always: Answer = ACCEPT
    where: str = "receiver"
    signum: int | None = None
    status: int = 0
    says: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    is_quick: bool = False
    protocols: tuple[str, ...] = PROTOCOLS


@dataclass(frozen=True)
class Outcome:
    """What came of a row: spans that arrived (each counted once), how often one came twice, what was said, the end."""

    arrived: int
    repeated: int
    said: Mapping[str, Any]
    status: int | None
    took_s: float
    errors: str


def run(row: Row, stack: str, protocol: str, *, patience_s: float = 60.0) -> Outcome:
    """Run *row* on *stack*; what has not ended after *patience_s* is killed, and has no status."""
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        receiver: Receiver = GrpcReceiver() if protocol == "grpc" else HttpReceiver()
        cleanup.callback(receiver.close)
        receiver.answer(*row.answers)
        receiver.answer_always(row.always)
        path = directory / "program.py"
        body = textwrap.indent(textwrap.dedent(row.body), "    ")
        path.write_text(COMMON.format(stack=TRACEKIT if stack == "tracekit" else STOCK, body=body))
        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": cleanup.enter_context(_endpoint(row.where, receiver)),
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "SPOOL": str(directory / "spool"),
            **row.environment,
        }
        begun_s = time.monotonic()
        with path.with_name("errors").open("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, path], cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
            said: dict[str, Any] = {}
            try:
                if row.signum is not None:
                    assert process.stdout is not None
                    assert json.loads(process.stdout.readline()) == {"ready": True}
                    process.send_signal(row.signum)
                begun_s = time.monotonic() if row.signum is not None else begun_s
                output, _ = process.communicate(timeout=patience_s)
                status: int | None = process.returncode
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
                status = None
            took_s = time.monotonic() - begun_s
            errors.seek(0)
            for line in output.splitlines():
                said.update(json.loads(line))
            ids = [(span.trace_id, span.span_id) for span in receiver.spans]
            return Outcome(len(set(ids)), len(ids) - len(set(ids)), said, status, took_s, errors.read()[-3_000:])


class _endpoint:  # noqa: N801  # used as a function
    def __init__(self, where: str, receiver: Receiver) -> None:
        self._listener = socket.socket()
        self._where, self._receiver = where, receiver

    def __enter__(self) -> str:
        if self._where == "receiver":
            return self._receiver.endpoint
        if self._where == "tls":
            return self._receiver.endpoint.replace("http://", "https://")
        self._listener.bind(("127.0.0.1", 0))
        if self._where == "black hole":
            self._listener.listen(128)
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_exc: object) -> None:
        self._listener.close()


def _rows() -> Iterator[Row]:
    yield from _lost_data()
    yield from _ends()
    yield from _processes()
    yield from _hangs()


AT_THE_END: Final = "configure()\nmake(100)\nsay_stats()"
FLUSHED: Final = "configure()\nmake(300)\nsay(flushed=flush(20))\nsay_stats()"

HOSTILE: Final = """
from opentelemetry.trace import SpanKind, Status, StatusCode
configure()
tracer = trace.get_tracer("faults")

def hostile(label, span_name="hostile", attributes=None, event=None, status=None, error=None, end=None, **options):
    make(2, label)
    try:
        span = tracer.start_span(span_name, attributes=attributes, **options)
        if event: span.add_event(*event)
        if status: span.set_status(Status(StatusCode.ERROR, status))
        if error: span.record_exception(error)
        span.end(end)
    except Exception as error:
        print(label, repr(error), file=sys.stderr)
    flush(20)

def nested(depth):
    value = []
    for _ in range(depth): value = [value]
    return value

hostile("name", span_name="caf\\udce9")
hostile("event name", event=("caf\\udce9",))
hostile("status", status="caf\\udce9")
hostile("exception", error=FileNotFoundError("caf\\udce9.txt"))
hostile("attribute", attributes={"path": "caf\\udce9"})
hostile("name of bytes", span_name=b"name")
hostile("name of int", span_name=5)
hostile("time of event", event=("e", None, "now"))
hostile("negative time of event", event=("e", None, -1))
hostile("start of str", start_time="now")
hostile("end of float", end=1.5)
hostile("kind", kind=None)
hostile("big int", attributes={"n": 2**70})
hostile("bytes", attributes={"b": b"\\xff"})
hostile("deep", attributes={"deep": nested(49)})
"""
_HOSTILE_KINDS: Final = 15
_HTTP: Final = ("http/protobuf",)
_GRPC: Final = ("grpc",)


def _lost_data() -> Iterator[Row]:
    yield Row("C1-C5 hostile spans, 15 kinds", HOSTILE, 3 * _HOSTILE_KINDS, None, is_quick=True)
    refused = {"export_failed": 300}
    lost = {"says": {"flushed": False}, "arrived": 0, "dropped": refused}
    redirect = Answer.failure(302, "UNKNOWN", headers={"location": "http://127.0.0.1:9/"})
    yield Row("C6 redirect", FLUSHED, 300, is_quick=True, answers=(redirect,), protocols=_HTTP, **lost)
    login = Answer(body=b"<html>Log in", headers={"content-type": "text/html"})
    yield Row("C6 page of a proxy", FLUSHED, 300, answers=(login,), protocols=_HTTP, **lost)
    yield Row(
        "C6 partial success",
        FLUSHED,
        300,
        300,  # the receiver of this test keeps what it says that it rejects
        {"rejected": 300},
        answers=(Answer(rejected=300),),
        says={"flushed": False},
    )
    patient = "configure()\nmake(600)\nsay(flushed=flush(40))\nsay_stats()"
    away = tuple(Answer.failure(503, "UNAVAILABLE") for _ in range(5))
    yield Row("C7 away for five attempts", patient, 600, 600, {}, answers=away)
    for code, name in ((400, "INVALID_ARGUMENT"), (404, "UNIMPLEMENTED"), (500, "INTERNAL")):
        yield Row(f"C8 {code}", FLUSHED, 300, answers=(Answer.failure(code, name),), **lost)
    waiting = Answer(429, headers={"retry-after": "1"})
    yield Row("C9 come again in a second", patient, 600, 600, {}, answers=(waiting,), protocols=_HTTP)
    much = "configure()\nmake({count})\nsay(flushed=flush(60))\nsay_stats()"
    yield Row("C10 5,000 spans in a loop", much.format(count=5_000), 5_000, 5_000, {})
    yield Row("C10 100,000 spans in a loop", much.format(count=100_000), 100_000, 100_000, {}, protocols=_HTTP)
    slow_receiver = Answer(delay_s=0.1)
    yield Row("C11 10,000 spans, 0.1 s a batch", much.format(count=10_000), 10_000, 10_000, {}, always=slow_receiver)
    yield Row(
        "C12 a queue for ten spans",
        "configure()\nmake(1)\nflush(0.1)\nmake(100)\nsay(flushed=flush(20))\nsay_stats()",
        101,
        None,
        environment={"OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"},
        answers=(Answer(delay_s=0.5),),
    )


def _ends() -> Iterator[Row]:
    yield Row("C13 end of the program", AT_THE_END, 100, 100, is_quick=True)
    yield Row("C13 exit status", "configure()\nmake(100)\nsys.exit(3)", 100, 100, status=3)
    yield Row("C13 uncaught exception", "configure()\nmake(100)\n1 / 0", 100, 100, status=1)
    ready = "configure()\nmake(100)\nsay(ready=True)\ntime.sleep(60)"
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        yield Row(f"C13 {signum.name}", ready, 100, 100, signum=signum, status=-signum)
    kept = """
    configure(spool=os.environ["SPOOL"])
    make(100)
    if not os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    say(flushed=flush(20))
    os.kill(os.getpid(), signal.SIGKILL)
    """
    yield Row("C13 killed after a flush", kept, 100, 100, status=-signal.SIGKILL, says={"flushed": True})
    two = "configure(exporter=[exporter_to_receiver(), exporter_to_receiver()])\nmake(100)"
    yield Row("C17 two exporters", two, 100, 100)
    left_open = """
    configure()
    def in_thread():
        with trace.get_tracer("t").start_as_current_span("in a thread"):
            started.set()
            time.sleep(60)
    def generate():
        with trace.get_tracer("t").start_as_current_span("in a generator"):
            yield
    global generator, span
    started = threading.Event()
    threading.Thread(target=in_thread, daemon=True).start()
    started.wait()
    generator = generate()
    next(generator)
    span = trace.get_tracer("t").start_span("never ended")
    """
    yield Row("C18 open at the end", left_open, 3, 3, is_quick=True)
    registered = "atexit.register(make, 5)\nconfigure()\nmake(5)"
    yield Row("C18 traced by an exit function", registered, 10, 10, is_quick=True)
    raising = """
    from opentelemetry.sdk.trace import SpanProcessor
    class Raising(SpanProcessor):
        def shutdown(self): raise RuntimeError
        def force_flush(self, timeout_millis=0): raise RuntimeError
    configure(exporter=[Raising(), exporter_to_receiver()])
    make(100)
    """
    yield Row("C19 another processor fails", raising, 100, 100)
    impatient = """
    configure()
    make(300)
    begun = time.monotonic()
    kept = flush(0.2)
    say(flushed=kept, in_time=time.monotonic() - begun < 3)
    os._exit(0)
    """
    no_answer = {"flushed": False, "in_time": True}
    yield Row("C20 flush with little time", impatient, 300, 0, where="black hole", says=no_answer, is_quick=True)


def _processes() -> Iterator[Row]:
    for method in ("fork", "forkserver", "spawn"):
        context = f"method = multiprocessing.get_context({method!r})\nconfigure()\n"
        # What is spawned imports the program anew, and sets itself up.
        setup = "" if method == "fork" else ", initializer=configure"
        process = "processes = [method.Process(target=work) for _ in range(4)]\n"
        process += "for process in processes: process.start()\nfor process in processes: process.join()"
        pool = f"with method.Pool(2{setup}) as pool: pool.map(make_one, range(8))"
        executor = "from concurrent.futures import ProcessPoolExecutor\n"
        executor += f"with ProcessPoolExecutor(2, method{setup}) as pool: list(pool.map(make_one, range(8)))"
        for name, body in (("Process", process), ("Pool", pool), ("ProcessPoolExecutor", executor)):
            work = "def work():\n    make(2)" if method == "fork" else ""
            if name == "Process" and method != "fork":
                body = body.replace("target=work", "target=configure_and_make")  # noqa: PLW2901
            yield Row(
                f"C15 {name}, {method}",
                f"{work}\n{context}{body}",
                8,
                8,
                protocols={"fork": PROTOCOLS, "forkserver": _GRPC, "spawn": _HTTP}[method],
            )
    held = """
    configure()
    span = trace.get_tracer("t").start_span("span")
    def hold():
        with span._lock:
            held.set()
            let_go.wait(30)
    held, let_go = threading.Event(), threading.Event()
    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    child = os.fork()
    if not child:
        signal.alarm(8)
        span.set_attribute("in", "child")
        span.add_event("in child")
        make(1, "child")
        sys.exit(0)
    say(child=os.waitpid(child, 0)[1])
    let_go.set()
    span.end()
    """
    yield Row("A12 fork while a span is locked", held, 2, 2, says={"child": 0}, is_quick=True)


def _hangs() -> Iterator[Row]:
    for where in ("black hole", "refused", "tls"):
        yield Row(f"1d {where}, 100 spans", "configure()\nmake(100)", 100, 0, where=where, protocols=_HTTP)
    for where in ("black hole", "refused"):
        yield Row(f"1d {where}, 2,048 spans", "configure()\nmake(2048)", 2_048, 0, where=where, protocols=_HTTP)
    two = "configure(exporter=[exporter_to_receiver(), exporter_to_receiver()])\nmake(100)"
    yield Row("1d black hole, two exporters", two, 100, 0, where="black hole", protocols=_GRPC)
    closing = "configure()\nmake(600)\nshutdown()\nsay_stats()\nos._exit(0)"
    for name, options in (
        ("refused", {"where": "refused"}),
        ("black hole", {"where": "black hole"}),
        ("503", {"always": Answer.failure(503, "UNAVAILABLE")}),
        ("TLS", {"where": "tls"}),
    ):
        counted = {"shutdown": 600}
        yield Row(f"1d shutdown, {name}", closing, 600, 0, counted, protocols=_HTTP, **options)  # type: ignore[arg-type]


ROWS: Final = tuple(_rows())
