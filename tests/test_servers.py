"""Every span of every worker of real servers arrives, whatever ends them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from otlp_receiver import Receiver

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals and forks")]

WAIT_S: Final = 40.0

APP: Final = """
import os
import tracekit

tracekit.configure(service="web")

@tracekit.traced("web.request")
def handle():
    return str(os.getpid()).encode()

def wsgi(environ, start_response):
    body = handle()
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        body = handle()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
    elif scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
"""

GUNICORN: Final = ("gunicorn", "app:wsgi", "--bind", "127.0.0.1:PORT", "--workers", "2", "--no-control-socket")


def environment_for(receiver: Receiver, protocol: str = "http/protobuf") -> dict[str, str]:
    # No batch goes out by itself: what arrives was exported at the end.
    return {
        **os.environ,
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "PYTHONWARNINGS": "ignore",
    }


def wait_until(reached: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    """Wait until *reached*, while *process* runs; an OSError says that it is not."""
    deadline = time.monotonic() + WAIT_S
    while True:
        with suppress(OSError):
            if reached():
                return
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def serve(
    directory: Path, command: Sequence[str], receiver: Receiver, protocol: str
) -> tuple[subprocess.Popen[str], int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    (directory / "app.py").write_text(APP)
    process = subprocess.Popen(
        [sys.executable, "-m", *[part.replace("PORT", str(port)) for part in command]],
        cwd=directory,
        env=environment_for(receiver, protocol),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process, port


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
        return response.read().decode()


@pytest.mark.parametrize(
    ("command", "workers", "protocol", "signum", "status"),
    [
        pytest.param((*GUNICORN, "-k", "sync"), 2, "http/protobuf", signal.SIGTERM, 0, id="gunicorn-sync"),
        pytest.param((*GUNICORN, "-k", "sync"), 2, "grpc", signal.SIGTERM, 0, id="gunicorn-sync-grpc"),
        pytest.param((*GUNICORN, "-k", "sync"), 2, "http/protobuf", signal.SIGINT, 0, id="gunicorn-sync-quick"),
        pytest.param(
            (*GUNICORN, "-k", "gthread", "--preload"), 2, "grpc", signal.SIGTERM, 0, id="gunicorn-gthread-preload"
        ),
        pytest.param((*GUNICORN, "-k", "gevent"), 2, "http/protobuf", signal.SIGTERM, 0, id="gunicorn-gevent"),
        pytest.param((*GUNICORN, "-k", "gevent"), 2, "grpc", signal.SIGTERM, 0, id="gunicorn-gevent-grpc"),
        pytest.param(
            (*GUNICORN, "-k", "gevent", "--preload"),
            2,
            "http/protobuf",
            signal.SIGTERM,
            0,
            id="gunicorn-gevent-preload",
        ),
        pytest.param(
            (*GUNICORN, "-k", "uvicorn.workers.UvicornWorker"),
            2,
            "http/protobuf",
            signal.SIGTERM,
            0,
            id="gunicorn-uvicorn",
        ),
        pytest.param(
            ("uvicorn", "app:asgi", "--port", "PORT"), 1, "grpc", signal.SIGTERM, -signal.SIGTERM, id="uvicorn"
        ),
        pytest.param(
            ("uvicorn", "app:asgi", "--port", "PORT"),
            1,
            "http/protobuf",
            signal.SIGINT,
            0,
            id="uvicorn-ctrl-c",
        ),
        pytest.param(
            ("uvicorn", "app:asgi", "--port", "PORT", "--workers", "2"),
            2,
            "http/protobuf",
            signal.SIGTERM,
            0,
            id="uvicorn-workers",
        ),
    ],
)
def test_every_span_of_every_worker_arrives(
    command: tuple[str, ...],
    workers: int,
    protocol: str,
    signum: int,
    status: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    app = "app:asgi" if "uvicorn" in command[-1] else command[1]
    receiver: Receiver = request.getfixturevalue("otlp_grpc" if protocol == "grpc" else "otlp_http")
    process, port = serve(tmp_path, (command[0], app, *command[2:]), receiver, protocol)
    served: Counter[str] = Counter()

    def all_have_served() -> bool:
        # Together: one worker alone would be quick enough for all that come one after the other.
        served[get(port)] += 1
        return len(served) == workers and served.total() >= 20

    try:
        wait_until(all_have_served, process)
        process.send_signal(signum)
        output, _ = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert process.returncode == status, output
    assert Counter(str(span.resource["process.pid"]) for span in receiver.spans) == served


TASKS: Final = """
import celery
import tracekit

app = celery.Celery("shop", broker="filesystem://")
app.conf.update(
    task_ignore_result=True,
    broker_transport_options={"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"},
)
tracekit.configure(service="worker")

@app.task
@tracekit.traced("shop.task")
def task(number):
    with open("done", "a") as done:
        done.write(f"{number}\\n")
"""


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_every_span_of_celery_arrives(pool: str, otlp_http: Receiver, tmp_path: Path) -> None:
    pytest.importorskip("celery")
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "queue").mkdir()
    (tmp_path / "control").mkdir()
    environment = environment_for(otlp_http)
    send = "import tasks; [tasks.task.apply_async((n,), ignore_result=True) for n in range(12)]"
    subprocess.run([sys.executable, "-c", send], cwd=tmp_path, env=environment, check=True)
    # Children are replaced as they go.
    recycling = ["--max-tasks-per-child", "2"] if pool == "prefork" else []
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", pool, "-c", "2", *recycling, *quiet],
        cwd=tmp_path,
        env={**environment, "C_FORCE_ROOT": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until(lambda: (tmp_path / "done").read_text().count("\n") == 12, process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert Counter(span.name for span in otlp_http.spans) == {"shop.task": 12}
    if pool == "prefork":
        assert len({span.resource["process.pid"] for span in otlp_http.spans}) >= 6
