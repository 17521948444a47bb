"""`tracekit run`: the program is what it was without it, and it is traced, its worker processes too."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otlp_receiver import HttpReceiver

TRACEKIT: Final = [sys.executable, "-m", "tracekit", "run"]
WAIT_S: Final = 60
SHOP: Final = """
class Orders:
    def create(self, order_id):
        return load(order_id)

    def _check(self):
        pass


def load(order_id):
    return {"order_id": order_id}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A package `shop` with the module `shop.orders`, in an empty directory."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "orders.py").write_text(SHOP, encoding="utf-8")
    return tmp_path


def write(directory: Path, name: str, program: str) -> str:
    directory.joinpath(name).write_text(dedent(program), encoding="utf-8")
    return name


def environment(more: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | dict(more)


def execute(command: list[str], directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=directory,
        capture_output=True,
        encoding="utf-8",
        env=environment(variables),
        check=False,
        timeout=WAIT_S,
    )


def run(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return execute([*TRACEKIT, *arguments], directory, **variables)


def names_in(tree: str) -> list[str]:
    return re.findall(r"[├└]─ (\S+) \(", tree)


def test_functions_of_the_modules_a_script_imports_are_traced(shop: Path) -> None:
    write(shop, "main.py", "from shop.orders import Orders\nOrders().create(7)\n")
    ran = run(shop, "--trace", "shop.*", "main.py")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert names_in(ran.stderr) == ["orders.create", "orders.load"]
    assert "order_id=7" in ran.stderr
    assert ran.stderr.endswith("tracekit run: --trace shop.*: traced 2 functions in 1 module\n")


_LOOK: Final = """
    import json, os, sys
    main = sys.modules["__main__"]
    seen = {
        "argv": sys.argv, "path": sys.path, "name": __name__, "file": __file__, "package": __package__,
        "main": vars(main) is globals(), "spec": __spec__ and __spec__.name, "flags": repr(sys.flags),
        "warnings": sys.warnoptions, "parent": os.getppid(), "names": sorted(globals()),
    }
    print(json.dumps(seen))
    raise SystemExit(7)
"""


@pytest.mark.parametrize(
    "command", [["look.py"], ["./look.py", "-m", "x", "--service", "mine"], ["-m", "pkg", "--help"], ["-m", "pkg.look"]]
)
@pytest.mark.slow
def test_program_finds_itself_as_without_tracekit(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    for name in ("look.py", "pkg/look.py", "pkg/__main__.py", "pkg/__init__.py"):
        write(tmp_path, name, "" if name.endswith("__init__.py") else _LOOK)
    root = str(Path(__file__).parent.parent)
    python = [sys.executable, "-W", "error"]
    plain = execute([*python, *command], tmp_path, PYTHONPATH=root)
    for options in ([], ["--trace", "nothing.*", "--trace", "look.*"]):
        run = [*python, "-m", "tracekit", "run", "--exporter", "none", *options, *command]
        traced = execute(run, tmp_path, PYTHONPATH=root)
        assert (traced.returncode, traced.stdout) == (7, plain.stdout)
        assert bool(traced.stderr) == bool(options)  # that nothing matches


@pytest.mark.parametrize(
    "program",
    [
        "def fail():\n    raise ValueError('broken')\n\n\nfail()\n",
        pytest.param("def (\n", marks=pytest.mark.slow),
        pytest.param("raise KeyboardInterrupt", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("options", [[], pytest.param(["--trace", "main.none"], marks=pytest.mark.slow)])
def test_traceback_of_the_program_is_its_own(options: list[str], program: str, tmp_path: Path) -> None:
    write(tmp_path, "main.py", program)
    plain = execute([sys.executable, "main.py"], tmp_path)
    ran = run(tmp_path, "--exporter", "none", *options, "main.py")
    said = "".join(line for line in ran.stderr.splitlines(keepends=True) if not line.startswith("tracekit run: "))
    assert (ran.returncode, said) == (plain.returncode, plain.stderr)


_SCRIPT: Final = """
    from contextlib import contextmanager
    from functools import lru_cache

    class Orders:
        @staticmethod
        def price(order_id):
            return order_id

        @property
        def size(self):
            return 1

        async def create(self, order_id):
            with held():
                return self.price(order_id) + self.size

    @contextmanager
    def held():
        yield

    @lru_cache
    def cached():
        return 7

    def _hidden():
        return 7

    if __name__ == "__main__":
        import asyncio
        asyncio.run(Orders().create(cached() + _hidden()))
"""


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--trace", "*", "script.py"), ["orders.create", "script.held", "orders.price"]),
        pytest.param(
            ("--trace", "script.Orders", "script.py"), ["orders.create", "orders.price"], marks=pytest.mark.slow
        ),
        pytest.param(("--trace", "__main__._hidden", "script.py"), ["script._hidden"], marks=pytest.mark.slow),
        pytest.param(
            ("--trace", "script", "--exclude", "*.price", "-m", "script"),
            ["orders.create", "script.held"],
            marks=pytest.mark.slow,
        ),
        pytest.param(("--trace", "*", "-m", "json.tool", "--help"), [], marks=pytest.mark.slow),
        pytest.param(("--trace", "json.tool.*", "-m", "json.tool", "--help"), ["tool.main"], marks=pytest.mark.slow),
    ],
)
def test_functions_of_the_program_itself_are_traced(
    arguments: tuple[str, ...], names: list[str], tmp_path: Path
) -> None:
    write(tmp_path, "script.py", _SCRIPT)
    ran = run(tmp_path, *arguments)
    assert ran.returncode == 0, ran.stderr
    assert names_in(ran.stderr) == names


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "what to run is missing. Write tracekit run script.py"),
        (["nosuch"], 127, "nosuch: no such script or command"),
        (["nosuch.py"], 127, "nosuch.py: no such script or command"),
        (["--sample", "7", "main.py"], 2, "sample is 7.0, expected a number"),
        (["--endpoint", "ftp://x", "main.py"], 2, "the scheme 'ftp' is not known"),
        (["--instrument", "fatapi", "main.py"], 2, "no instrumentation 'fatapi' is installed. There are: fastapi, "),
        (["--trace", "shop/orders.py", "main.py"], 2, "Write --trace 'shop.orders.*'"),
    ],
)
def test_what_cannot_be_run_is_said_before_it_starts(
    arguments: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tracekit.cli import main

    write(tmp_path, "main.py", "print('started')")
    monkeypatch.chdir(tmp_path)
    assert main(["run", *arguments]) == status
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("tracekit run: ")
    assert message in said.err
    assert said.err.count("\n") == 1


@pytest.mark.slow
def test_wrong_variable_is_said_before_it_starts(tmp_path: Path) -> None:
    write(tmp_path, "main.py", "print('started')")
    ran = run(tmp_path, "main.py", OTEL_BSP_SCHEDULE_DELAY="soon")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "OTEL_BSP_SCHEDULE_DELAY='soon'" in ran.stderr


@pytest.mark.slow
def test_pattern_that_matches_nothing_is_told(shop: Path) -> None:
    write(shop, "main.py", "import shop.orders")
    ran = run(shop, "--exporter", "none", "--trace", "shap.*", "main.py")
    assert "--trace shap.*: no function matches, nothing was traced by it. No module of such a name" in ran.stderr
    ran = run(shop, "--exporter", "none", "--trace", "shop.orders.creat", "main.py")
    assert "It was looked for in shop, shop.orders: write MODULE.FUNCTION" in ran.stderr


@pytest.mark.slow
def test_patterns_choose_functions(shop: Path) -> None:
    write(shop, "main.py", "import json\nfrom shop.orders import Orders, load\nOrders().create(7)\njson.dumps([])\n")

    def traced(*options: str) -> list[str]:
        return names_in(run(shop, *options, "main.py").stderr)

    assert traced("--trace", "shop.orders.Orders") == ["orders.create"]
    assert traced("--trace", "shop.orders.lo*") == ["orders.load"]
    assert traced("--trace", "shop", "--exclude", "*.load") == ["orders.create"]
    # The program's own, neither the standard library nor what is installed.
    assert traced("--trace", "*") == ["orders.create", "orders.load"]
    assert traced("--trace", "json.dumps") == ["json.dumps"]
    assert run(shop, "--trace", "shop.*", "--no-arguments", "main.py").stderr.count("order_id") == 0


@pytest.mark.slow
def test_libraries_are_traced_once_they_are_imported(tmp_path: Path, otlp_http: HttpReceiver) -> None:
    write(
        tmp_path,
        "main.py",
        """
        import sys
        assert not {"httpx", "fastapi", "sqlalchemy"} & set(sys.modules)
        from sqlalchemy import create_engine, text
        with create_engine("sqlite://").connect() as connection:
            connection.execute(text("SELECT 1"))
        """,
    )
    arguments = ("--service", "shop", "--endpoint", otlp_http.endpoint, "--protocol", "http/protobuf")
    ran = run(tmp_path, "-v", *arguments, "main.py")
    assert ran.returncode == 0, ran.stderr
    assert "tracekit run: traces sqlalchemy by tracekit" in ran.stderr
    [span] = [span for span in otlp_http.wait_for_spans(1) if span.name.startswith("SELECT")]
    assert span.resource["service.name"] == "shop"
    for options in (("--instrument", "httpx"), ("--instrument", "none"), ("--no-instrument", "sqlalchemy")):
        assert names_in(run(tmp_path, *options, "main.py").stderr) == []
    assert names_in(run(tmp_path, "main.py", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="sqlalchemy").stderr) == []


@pytest.mark.slow
def test_sitecustomize_of_the_program_is_still_imported(shop: Path) -> None:
    write(shop, "sitecustomize.py", "number = 7")
    write(shop, "main.py", "import sitecustomize, sys; print(sitecustomize.__file__, sitecustomize.number)")
    plain = execute([sys.executable, "main.py"], shop, PYTHONPATH=str(shop))
    ran = run(shop, "--exporter", "none", "main.py", PYTHONPATH=str(shop))
    assert (ran.stdout, ran.stderr) == (plain.stdout, "")
    assert "sitecustomize.py 7" in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "service"),
    [
        (("main.py",), "main"),
        (("-m", "shop.worker"), "shop.worker"),
        (("python", "-W", "error", "main.py"), "main"),
        (("python", "-m", "shop.worker"), "shop.worker"),
        (("--service", "mine", "main.py"), "mine"),
    ],
)
def test_service_is_called_after_the_program(
    arguments: tuple[str, ...], service: str, shop: Path, otlp_http: HttpReceiver
) -> None:
    for name in ("main.py", "shop/worker.py"):
        write(shop, name, "import tracekit\nwith tracekit.traced_block('orders.create'): pass\n")
    ran = run(shop, "--endpoint", otlp_http.endpoint, "--protocol", "http/protobuf", *arguments)
    assert ran.returncode == 0, ran.stderr
    assert otlp_http.wait_for_spans(1)[0].resource["service.name"] == service


def test_a_directory_is_run_from_within(tmp_path: Path) -> None:
    here = tmp_path / "shop-here"
    here.mkdir()
    write(here, "__main__.py", "import tracekit\nwith tracekit.traced_block('orders.create'): pass\n")
    ran = run(here, "--exporter", "file:traces.jsonl", ".")
    assert ran.returncode == 0, ran.stderr
    assert '"shop-here"' in (here / "traces.jsonl").read_text(encoding="utf-8")


@pytest.mark.slow
def test_program_that_sets_tracing_up_itself_does_so(tmp_path: Path) -> None:
    write(
        tmp_path,
        "main.py",
        """
        import tracekit
        tracing = tracekit.configure(service="mine", exporter="memory")
        with tracekit.traced_block("orders.create"):
            pass
        print(tracing.spans[0].resource.attributes["service.name"])
        """,
    )
    ran = run(tmp_path, "--service", "ours", "main.py")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "mine\n", "")


@pytest.mark.slow
def test_python_without_tracekit_runs_the_program_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "main.py", "print('ran')")
    # As another Python would: what is installed here is not there.
    command = tmp_path / "other"
    command.write_text(f'#!/bin/sh\nPYTHONPATH="${{PYTHONPATH%%:*}}" exec "{sys.executable}" -S -c "{_SITE}" main.py\n')
    command.chmod(0o755)
    ran = run(tmp_path, "--exporter", "none", "./other")
    assert (ran.returncode, ran.stdout) == (0, "ran\n"), ran.stderr
    assert ran.stderr.startswith(f"tracekit run: {sys.executable} does not trace, tracekit cannot be imported there: ")


_SITE: Final = "import sitecustomize, runpy; runpy.run_path('main.py')"


# --- servers and workers

_ASGI: Final = """
    from shop.orders import Orders

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        Orders().create(7)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""
_WSGI: Final = """
    from shop.orders import Orders

    def app(environ, start_response):
        Orders().create(7)
        start_response("200 OK", [("content-type", "text/plain")])
        return [b"ok"]
"""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def started(shop: Path, otlp_http: HttpReceiver) -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def start(directory: Path, receiver: HttpReceiver, *command: str) -> subprocess.Popen[bytes]:
    options = ["--endpoint", receiver.endpoint, "--protocol", "http/protobuf", "--trace", "shop.*"]
    with directory.joinpath("log").open("wb") as log:
        return subprocess.Popen(
            [*TRACEKIT, *options, *command], cwd=directory, env=environment({}), stdout=log, stderr=subprocess.STDOUT
        )


def request(port: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=WAIT_S).close()
        except OSError:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        else:
            return


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "command"),
    [
        pytest.param(_ASGI, ("uvicorn", "served:app", "--port", "{port}"), id="uvicorn"),
        pytest.param(_ASGI, ("uvicorn", "served:app", "--port", "{port}", "--workers", "2"), id="uvicorn workers"),
        pytest.param(_WSGI, ("gunicorn", "served:app", "-b", "127.0.0.1:{port}", "-w", "2"), id="gunicorn"),
        pytest.param(
            _WSGI, ("gunicorn", "served:app", "-b", "127.0.0.1:{port}", "--preload", "-k", "gthread"), id="gthread"
        ),
        pytest.param(_WSGI, ("-m", "flask", "--app", "served:app", "run", "--port", "{port}"), id="flask"),
    ],
)
def test_server_and_its_workers_are_traced_until_sigterm(
    module: str,
    command: tuple[str, ...],
    shop: Path,
    port: int,
    otlp_http: HttpReceiver,
    started: list[subprocess.Popen[bytes]],
) -> None:
    write(shop, "served.py", _FLASK if "flask" in command else module)
    process = start(shop, otlp_http, *(word.format(port=port) for word in command))
    started.append(process)
    for _ in range(20):
        request(port)
    process.send_signal(signal.SIGTERM)
    status = process.wait(WAIT_S)
    log = shop.joinpath("log").read_text(encoding="utf-8")
    spans = otlp_http.wait_for_spans(40)
    assert {span.name for span in spans} - {"GET /"} == {"orders.create", "orders.load"}, log
    assert sum(span.name == "orders.create" for span in spans) >= 20
    service = "flask" if "flask" in command else "served"
    assert {span.resource["service.name"] for span in spans} == {service}
    # As without tracekit: gunicorn's and uvicorn's supervisors leave in order, one process dies of the signal.
    assert status in (0, -signal.SIGTERM, 128 + signal.SIGTERM), log
    assert "Traceback" not in log
    tellers = [line.rpartition("in process ")[2] for line in log.splitlines() if "traced 2 functions" in line]
    assert tellers
    assert len(tellers) == len(set(tellers)), log


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        pytest.param("shop.*", "traced 2 functions in 1 module"),
        pytest.param("shap.*", "no function matches, nothing was traced by it", marks=pytest.mark.slow),
    ],
)
def test_what_the_patterns_came_to_is_told_once_by_a_program_that_a_signal_ends(
    pattern: str, says: str, shop: Path
) -> None:
    program = """
        import os, signal, shop.orders

        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    """
    write(shop, "main.py", program)
    ran = run(shop, "--exporter", "none", "--trace", pattern, "main.py")
    assert ran.returncode == -signal.SIGTERM
    assert ran.stderr.count("tracekit run: --trace") == 1
    assert f"--trace {pattern}: {says}" in ran.stderr


_FLASK: Final = """
    from flask import Flask
    from shop.orders import Orders

    app = Flask(__name__)

    @app.get("/")
    def root():
        Orders().create(7)
        return "ok"
"""


@pytest.mark.slow
def test_celery_worker_is_traced_until_sigterm(
    shop: Path, otlp_http: HttpReceiver, started: list[subprocess.Popen[bytes]]
) -> None:
    write(
        shop,
        "tasks.py",
        """
        from celery import Celery
        from celery.signals import worker_ready
        from shop.orders import Orders

        app = Celery(broker="memory://")

        @app.task
        def create(order_id):
            Orders().create(order_id)

        @worker_ready.connect
        def send(**_):
            for number in range(10):
                create.delay(number)
        """,
    )
    process = start(shop, otlp_http, "celery", "-A", "tasks", "worker", "--pool", "solo", "--concurrency", "1")
    started.append(process)
    otlp_http.wait_for_spans(20)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0, shop.joinpath("log").read_text(encoding="utf-8")
    assert {span.name for span in otlp_http.spans} == {"orders.create", "orders.load"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_processes_that_the_program_starts_are_traced(method: str, shop: Path, otlp_http: HttpReceiver) -> None:
    write(
        shop,
        "main.py",
        f"""
        import multiprocessing, subprocess, sys
        from shop.orders import load

        if __name__ == "__main__":
            multiprocessing.set_start_method({method!r})
            process = multiprocessing.Process(target=load, args=(7,))
            process.start()
            process.join()
            subprocess.run([sys.executable, "-c", "from shop.orders import load; load(8)"], check=True)
        """,
    )
    options = ("--endpoint", otlp_http.endpoint, "--protocol", "http/protobuf", "--trace", "shop.*")
    ran = run(shop, *options, "main.py")
    assert ran.returncode == 0, ran.stderr
    spans = otlp_http.wait_for_spans(2)
    assert sorted(span.attributes["order_id"] for span in spans) == [7, 8]
    assert "no function matches" not in ran.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_signal_reaches_the_program_itself(tmp_path: Path) -> None:
    write(tmp_path, "main.py", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert run(tmp_path, "--exporter", "none", "main.py").returncode == -signal.SIGKILL
