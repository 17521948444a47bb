"""
What tracing takes from the throughput of a FastAPI route, with the official FastAPI instrumentation in both stacks.

A server in a process of its own, a load generator in another (wrk where it is installed), spans sent over OTLP/HTTP to
a third. The route makes one span of its own, with two attributes.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.request import urlopen

from benchmarks.harness import Effort, take_turns
from benchmarks.receiver import program, receiver
from benchmarks.stacks import STOCK, TRACEKIT, set_up
from benchmarks.tables import Table, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NONE: Final = "none"
_STOCK_WITHOUT_IO: Final = "stock-without-io"
_UNTRACED: Final = "untraced"
_BY_HAND: Final = "by hand, FastAPIInstrumentor"
_BY_HAND_WITHOUT_IO: Final = "by hand, FastAPIInstrumentor without send and receive spans"
_TRACED: Final = '@traced, instrument("fastapi")'
_STACKS: Final = {
    _UNTRACED: _NONE,
    _BY_HAND: STOCK,
    _BY_HAND_WITHOUT_IO: _STOCK_WITHOUT_IO,
    _TRACED: TRACEKIT,
}

_CONNECTIONS: Final = 16
_SECONDS: Final = 2
_SECONDS_QUICK: Final = 1
_PATH: Final = "/orders/7?amount=9.5"


def tables(effort: Effort) -> Iterator[Table]:
    """Measure each stack."""
    if not effort.wants("a FastAPI route"):
        return
    seconds = _SECONDS_QUICK if effort.quick else _SECONDS
    with ExitStack() as stack:
        there = stack.enter_context(receiver())
        servers = {
            name: "http://127.0.0.1:" + stack.enter_context(program("benchmarks.fastapi", tracing, there.endpoint))
            for name, tracing in _STACKS.items()
        }
        for server in servers.values():
            _requests_per_second(server + _PATH, 1)  # warm
        runs = take_turns(
            {name: partial(_load, server, seconds) for name, server in servers.items()},
            effort.turns(7, 2),
        )

    rates = {name: [run[0] for run in of_stack] for name, of_stack in runs.items()}
    yield Table("requests of a FastAPI route in a second", "requests", rates, _UNTRACED)
    cpu = {name: [run[1] for run in of_stack] for name, of_stack in runs.items()}
    yield Table("a request of a FastAPI route: processor time of the server", "µs", cpu, _UNTRACED)
    lost = {
        name: [100 * (1 - mine / theirs) for mine, theirs in zip(rates[name], rates[_UNTRACED], strict=True)]
        for name in (_BY_HAND, _BY_HAND_WITHOUT_IO, _TRACED)
    }
    targets = [Target(_TRACED, _BY_HAND, 0.5)]
    yield Table("throughput of a FastAPI route lost by tracing", "%", lost, _BY_HAND, targets)


def _load(server: str, seconds: int) -> tuple[float, float]:
    """Return the requests a second, and the processor time in microseconds of one."""
    before_s = _processor_time_s(server)
    rate = _requests_per_second(server + _PATH, seconds)
    return rate, (_processor_time_s(server) - before_s) / (rate * seconds) * 1e6


def _processor_time_s(server: str) -> float:
    with urlopen(server + "/processor-time") as answer:  # noqa: S310  # our own
        return float(answer.read())


def _requests_per_second(url: str, seconds: int) -> float:
    if wrk := shutil.which("wrk"):
        command = [wrk, "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        if found is None or "Non-2xx" in done.stdout:
            raise RuntimeError(done.stdout)
        return float(found.group(1))
    command = [sys.executable, "-m", "benchmarks.fastapi", "load", url, str(seconds)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def serve(tracing: str, endpoint: str) -> None:
    """Serve the route, traced as *tracing* says, until the standard input ends."""
    import uvicorn
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/processor-time", response_class=PlainTextResponse)
    async def processor_time() -> str:
        return str(time.process_time())

    create, shutdown = _traced(tracing, app, endpoint)

    @app.get("/orders/{order_id}")
    async def order(order_id: int, amount: float) -> dict[str, float]:
        return {"order": await create(order_id, amount)}

    # By its protocol: asyncio sends small answers at once only on a socket that says it is TCP.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False))
    serving = threading.Thread(target=server.run, args=([listening],))
    serving.start()
    print(listening.getsockname()[1], flush=True)
    sys.stdin.read()
    server.should_exit = True
    serving.join()
    shutdown()


def _traced(tracing: str, app: Any, endpoint: str) -> tuple[Callable[[int, float], Any], Callable[[], object]]:
    """Return the work of the route, and what ends the tracing."""
    from benchmarks.callables import coroutine_function, write_coroutine_function

    if tracing == _NONE:
        return coroutine_function, lambda: None
    if tracing == TRACEKIT:
        from tracekit import traced
        from tracekit.instrumentation import instrument

        shutdown = set_up(TRACEKIT, endpoint)
        instrument("fastapi", app=app)
        return traced(coroutine_function), shutdown
    from opentelemetry import trace
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    shutdown = set_up(STOCK, endpoint)
    FastAPIInstrumentor.instrument_app(app, exclude_spans=["send", "receive"] if tracing == _STOCK_WITHOUT_IO else None)
    return write_coroutine_function(trace.get_tracer("benchmarks")), shutdown


def load(url: str, seconds: float) -> None:
    """Ask for *url* over a few connections; print the requests a second."""
    from http.client import HTTPConnection
    from urllib.parse import urlsplit

    place, until, answers = urlsplit(url), time.monotonic() + seconds, [0] * _CONNECTIONS

    def ask(number: int) -> None:
        connection = HTTPConnection(place.netloc)
        while time.monotonic() < until:
            connection.request("GET", f"{place.path}?{place.query}")
            with connection.getresponse() as response:
                response.read()
            answers[number] += response.status == 200  # noqa: PLR2004  # OK

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(answers) / seconds)


def main() -> None:
    """Serve, or load a server."""
    first, *others = sys.argv[1:]
    if first == "load":
        load(others[0], float(others[1]))
    else:
        serve(first, others[0])


if __name__ == "__main__":
    main()
