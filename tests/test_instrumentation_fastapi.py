"""FastAPI behind real servers: one span a request, named by its route, in whatever order things are set up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastapi
import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, WebSocket
from fastapi.responses import StreamingResponse
from libraries import captured_spans, served, tracer
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.routing import Host, Mount
from websockets.sync.client import connect

from tracekit._config import runtime
from tracekit.errors import InstrumentationError
from tracekit.instrumentation import instrument, instrumented, uninstrument
from tracekit.testing import capture_spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tracekit.testing import CapturedSpans

EARLY = FastAPI()


@EARLY.get("/early")
def early() -> None: ...


@pytest.fixture
def spans() -> Iterator[CapturedSpans]:
    with captured_spans() as spans:
        yield spans


def shop(done: threading.Event | None = None) -> FastAPI:  # noqa: C901  # a route a trap
    app, api, admin = FastAPI(), APIRouter(prefix="/api"), FastAPI()

    @api.get("/orders/{order_id}")
    def order(order_id: int) -> int:
        with tracer.start_as_current_span("work"):
            return order_id

    @app.get("/missing")
    def missing() -> None:
        raise HTTPException(404)

    @app.get("/boom")
    def boom() -> None:
        msg = "boom"
        raise ValueError(msg)

    def task() -> None:
        tracer.start_span("in background").end()

    def last() -> None:
        if done is not None:
            done.set()

    @app.get("/later")
    def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(task)
        tasks.add_task(last)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(3):
                with tracer.start_as_current_span("chunk"):
                    yield b"x"

        return StreamingResponse(body())

    @app.get("/health")
    @app.get("/api/v1/readyz")
    @app.get("/patients/{patient_id}/health")
    def health() -> None:
        tracer.start_span("SELECT 1").end()

    @app.websocket("/rooms/{room}")
    async def room(socket: WebSocket, room: str) -> None:
        await socket.accept()
        with tracer.start_as_current_span("message"):
            await socket.send_text(f"{room}: {await socket.receive_text()}")
        await socket.close()

    @admin.get("/users/{user_id}")
    def user(user_id: int) -> int:
        return user_id

    app.include_router(api)
    app.mount("/admin/{tenant}", admin)
    return app


def parents(spans: CapturedSpans) -> set[tuple[str, str | None]]:
    return {(span.name, getattr(span.parent, "name", None)) for span in spans}


def test_request_is_one_server_span_named_by_its_route(spans: CapturedSpans) -> None:
    app = shop()
    [state] = instrument("fastapi", app=app)
    assert state.is_wired
    with served(app) as url:
        httpx.get(f"{url}/api/orders/7?secret=1")
    assert parents(spans) == {("GET /api/orders/{order_id}", None), ("work", "GET /api/orders/{order_id}")}
    span = spans.one("GET /api/orders/{order_id}")
    assert (span.kind, span.status.status_code) == (SpanKind.SERVER, StatusCode.UNSET)
    assert span.attributes["http.route"] == "/api/orders/{order_id}"
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["url.path"] == "/api/orders/7"


@pytest.mark.parametrize(
    ("method", "path", "name", "status"),
    [
        ("GET", "/nowhere/7", "GET", 404),
        ("GET", "/missing", "GET /missing", 404),
        ("POST", "/api/orders/7", "POST /api/orders/{order_id}", 405),
        ("FROBNICATE7", "/nowhere", "HTTP", 404),
        ("GET", "/admin/acme/users/7", "GET /admin/{tenant}/users/{user_id}", 200),
        ("GET", "/admin/acme/nowhere/7", "GET /admin/{tenant}", 404),
        ("GET", "/api/orders/7/", "GET", 307),
    ],
)
def test_no_raw_path_gets_into_the_name(spans: CapturedSpans, method: str, path: str, name: str, status: int) -> None:
    app = shop()
    instrument("fastapi", app=app)
    with served(app) as url:
        assert httpx.request(method, url + path).status_code == status
    span = spans[-1]
    assert (span.name, span.status.status_code) == (name, StatusCode.UNSET)
    assert span.attributes["http.response.status_code"] == status


def test_host_routes_are_named_by_route_too(spans: CapturedSpans) -> None:
    inner = FastAPI()
    inner.get("/users/{user_id}")(lambda user_id: user_id)
    app = FastAPI(routes=[Host("127.0.0.1", app=inner)])
    instrument("fastapi", app=app)
    with served(app) as url:
        httpx.get(f"{url}/users/7")
    assert spans.names == ["GET /users/{user_id}"]


def test_failing_route_is_an_error_and_is_still_answered(spans: CapturedSpans) -> None:
    app = shop()
    instrument("fastapi", app=app)
    with served(app) as url:
        assert httpx.get(f"{url}/boom").status_code == 500
    [span] = spans
    assert (span.name, span.status.status_code) == ("GET /boom", StatusCode.ERROR)
    assert [event.name for event in span.events] == ["exception"]
    assert span.attributes["error.type"] == "500"


def test_streamed_body_is_inside_the_request_span(spans: CapturedSpans) -> None:
    app = shop()
    instrument("fastapi", app=app)
    with served(app) as url:
        assert httpx.get(f"{url}/stream").text == "xxx"
    assert parents(spans) == {("GET /stream", None), ("chunk", "GET /stream")}
    request = spans.one("GET /stream")
    assert all((span.end_time or 0) <= (request.end_time or 0) for span in spans)


def test_background_task_is_in_the_trace_but_not_in_the_duration_of_the_request(spans: CapturedSpans) -> None:
    done = threading.Event()
    app = shop(done)
    instrument("fastapi", app=app)
    with served(app) as url:
        httpx.get(f"{url}/later")
        assert done.wait(10)
    request, inside = spans.one("GET /later"), spans.one("in background")
    assert inside.trace_id == request.trace_id
    assert (request.end_time or 0) <= (inside.start_time or 0)
    # Older releases of the official instrumentation put no span of its own around the task.
    assert inside.parent in {request, *spans.all("BackgroundTask task")}


def test_websocket_connection_is_one_span(spans: CapturedSpans) -> None:
    app = shop()
    instrument("fastapi", app=app)
    with served(app) as url, connect(f"{url.replace('http', 'ws')}/rooms/blue") as socket:
        socket.send("hi")
        assert socket.recv() == "blue: hi"
    assert parents(spans) == {("HTTP /rooms/{room}", None), ("message", "HTTP /rooms/{room}")}


def test_health_checks_make_no_spans_and_neither_does_what_they_ask() -> None:
    exporter = InMemorySpanExporter()
    sampling_by_parent = TracerProvider()
    sampling_by_parent.add_span_processor(SimpleSpanProcessor(exporter))
    undo = runtime.use(provider=sampling_by_parent)
    app = shop()
    instrument("fastapi", app=app)
    with served(app) as url:
        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(f"{url}/api/v1/readyz").status_code == 200
        assert exporter.get_finished_spans() == ()
        httpx.get(f"{url}/patients/7/health")
    undo()
    names = [span.name for span in exporter.get_finished_spans()]
    assert names == ["SELECT 1", "GET /patients/{patient_id}/health"]


def test_excluded_urls_can_be_given_by_argument_and_environment(
    spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_EXCLUDED_URLS", "/missing")
    by_environment, by_argument = shop(), shop()
    instrument("fastapi", app=by_environment)
    instrument("fastapi", app=by_argument, excluded_urls="/health")
    for app in (by_environment, by_argument):
        with served(app) as url:
            httpx.get(f"{url}/missing")
            httpx.get(f"{url}/health")
    assert [name for name in spans.names if name.startswith("GET")] == ["GET /health", "GET /missing"]


def test_send_and_receive_spans_can_be_had_back(spans: CapturedSpans) -> None:
    app = shop()
    instrument("fastapi", app=app, exclude_spans=None)
    with served(app) as url:
        httpx.get(f"{url}/missing")
    assert "GET /missing http send" in spans.names


def test_trace_of_the_caller_goes_on(spans: CapturedSpans) -> None:
    app = shop()
    instrument("fastapi", app=app)
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with served(app) as url:
        httpx.get(f"{url}/missing", headers={"traceparent": f"00-{trace_id}-{span_id}-01"})
    [span] = spans
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (trace_id, span_id)


def test_global_call_covers_apps_made_and_classes_imported_before(spans: CapturedSpans) -> None:
    instrument("fastapi")
    later = fastapi.FastAPI()
    later.get("/later")(lambda: None)
    for app, path in ((EARLY, "/early"), (later, "/later")):
        with served(app) as url:
            httpx.get(url + path)
    assert spans.names == ["GET /early", "GET /later"]


def test_app_that_is_already_serving_can_be_instrumented(spans: CapturedSpans) -> None:
    one, two = shop(), shop()
    with served(one) as first, served(two) as second:
        httpx.get(f"{first}/missing")
        instrument("fastapi", app=one)
        httpx.get(f"{first}/missing")
        httpx.get(f"{second}/missing")
        instrument("fastapi")
        httpx.get(f"{second}/missing")
    assert spans.names == ["GET /missing"] * 2


def test_instrumenting_twice_and_in_both_ways_makes_one_span(spans: CapturedSpans) -> None:
    app = shop()
    for _ in range(2):
        instrument("fastapi", app=app)
        instrument("fastapi")
    with served(app) as url:
        httpx.get(f"{url}/missing")
    assert spans.names == ["GET /missing"]


@pytest.mark.parametrize("given", ["app", "all"])
def test_app_can_be_uninstrumented_and_instrumented_again(spans: CapturedSpans, given: str) -> None:
    app = shop()
    options: dict[str, Any] = {"app": app} if given == "app" else {}
    instrument("fastapi", **options)
    with served(app) as url:
        httpx.get(f"{url}/missing")
        uninstrument("fastapi", **options)
        uninstrument("fastapi", **options)
        assert instrumented() == ()
        httpx.get(f"{url}/missing")
        instrument("fastapi", **options)
        httpx.get(f"{url}/missing")
    assert len(spans) == 2


def test_one_app_can_be_left_out_of_all(spans: CapturedSpans) -> None:
    done = threading.Event()
    app, other = shop(), shop(done)
    instrument("fastapi")
    with served(app) as url, served(other) as other_url:
        httpx.get(f"{url}/missing")
        httpx.get(f"{other_url}/missing")
        tasks_are_traced = hasattr(BackgroundTask, "_otel_original_call")
        uninstrument("fastapi", app=app)
        httpx.get(f"{url}/missing")
        httpx.get(f"{other_url}/later")
        assert done.wait(10)
    assert ("BackgroundTask task" in spans.names) == tasks_are_traced
    assert [name for name in sorted(spans.names) if name.startswith("GET")] == ["GET /later"] + ["GET /missing"] * 2


@pytest.mark.parametrize("order", ["theirs first", "ours first", "theirs for all", "their middleware"])
def test_instrumentation_by_the_user_beside_ours_makes_no_second_span(
    spans: CapturedSpans, order: str, caplog: pytest.LogCaptureFixture
) -> None:
    quiet: Any = {"tracer_provider": runtime.provider, "exclude_spans": ["send", "receive"]}
    app = shop()
    try:
        if order == "theirs first":
            FastAPIInstrumentor.instrument_app(app, **quiet)
            [state] = instrument("fastapi", app=app)
            assert not state.is_wired
            assert "already instrumented" in state.reason
        elif order == "ours first":
            instrument("fastapi", app=app)
            FastAPIInstrumentor.instrument_app(app, **quiet)
        elif order == "theirs for all":
            FastAPIInstrumentor().instrument(**quiet)
            app = fastapi.FastAPI()
            app.get("/missing")(lambda: None)
            instrument("fastapi")
        else:
            app.add_middleware(OpenTelemetryMiddleware, **quiet)
            instrument("fastapi")
        with served(app) as url:
            httpx.get(f"{url}/missing")
    finally:
        uninstrument()
        if FastAPIInstrumentor().is_instrumented_by_opentelemetry:
            FastAPIInstrumentor().uninstrument()
        if getattr(app, "_is_instrumented_by_opentelemetry", False):
            FastAPIInstrumentor.uninstrument_app(app)
    assert len(spans) == 1


def test_app_mounted_in_an_instrumented_one_makes_no_second_span(spans: CapturedSpans) -> None:
    app = shop()
    instrument("fastapi")
    with served(app) as url:
        httpx.get(f"{url}/admin/acme/users/7")
    assert spans.names == ["GET /admin/{tenant}/users/{user_id}"]


def test_app_mounted_in_something_uninstrumented_has_its_span(spans: CapturedSpans) -> None:
    inner = FastAPI()
    inner.get("/users/{user_id}")(lambda user_id: user_id)
    instrument("fastapi")
    with served(Starlette(routes=[Mount("/v1", app=inner)])) as url:
        httpx.get(f"{url}/v1/users/7")
    assert spans.names == ["GET /users/{user_id}"]


def test_hook_and_headers_go_through_to_the_official_instrumentation(spans: CapturedSpans) -> None:
    app = shop()
    instrument(
        "fastapi",
        app=app,
        server_request_hook=lambda span, scope: span.set_attribute("app.root", scope["root_path"]),
        http_capture_headers_server_request=["x-shop"],
    )
    with served(app) as url:
        httpx.get(f"{url}/missing", headers={"x-shop": "7"})
    [span] = spans
    assert span.attributes["app.root"] == ""
    assert span.attributes["http.request.header.x_shop"] == ("7",)


def test_spans_follow_the_provider_of_the_moment(spans: CapturedSpans) -> None:
    app = shop()
    instrument("fastapi", app=app)
    with served(app) as url:
        httpx.get(f"{url}/missing")
        with capture_spans() as other:
            httpx.get(f"{url}/missing")
    assert (spans.names, other.names) == (["GET /missing"], ["GET /missing"])


def test_wrong_app_and_unknown_option_say_what_to_write(spans: CapturedSpans) -> None:
    with pytest.raises(InstrumentationError, match=r"given a Starlette; expected a FastAPI app.*app=app"):
        instrument("fastapi", app=Starlette())
    with pytest.raises(InstrumentationError, match=r"'exclude_url'.*It takes: .*excluded_urls"):
        instrument("fastapi", app=FastAPI(), exclude_url="x")
    with pytest.raises(InstrumentationError, match="'exclude_url'"):
        instrument("fastapi", exclude_url="x")
    assert instrumented() == ()


SERVICE = """
import json, os
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

class ToFile(SpanExporter):
    def export(self, spans):
        with open(os.environ["SPANS"], "a") as file:
            for span in spans:
                file.write(json.dumps([span.name, span.kind.name, os.getpid()]) + "\\n")

trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(ToFile()))

from tracekit.instrumentation import instrument
instrument("fastapi")
app, mounted = FastAPI(), FastAPI()

@app.get("/orders/{order_id}")
def order(order_id: int): return os.getpid()

@mounted.get("/users/{user_id}")
def user(user_id: int): return os.getpid()

app.mount("/admin", mounted)
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--workers", "2"], ["--reload"]], ids=" ".join)
def test_workers_and_reloaded_servers_make_one_span_a_request(options: list[str], tmp_path: Path) -> None:
    # The global provider is set here, so FastAPI would trace by itself as well.
    (tmp_path / "service.py").write_text(SERVICE, encoding="utf-8")
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", "0", *options]
    environment = {**os.environ, "SPANS": str(tmp_path / "spans"), "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True
    )
    assert server.stderr is not None
    try:
        url = ""
        for line in server.stderr:
            url = next((word for word in line.split() if word.startswith("http://")), url)
            if "startup complete" in line:
                break
        pids = {httpx.get(f"{url}/orders/{number}").json() for number in range(20)}
        httpx.get(f"{url}/admin/users/7")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.stderr.close()
        server.wait(20)
    lines = [json.loads(line) for line in (tmp_path / "spans").read_text(encoding="utf-8").splitlines()]
    assert sorted((name, kind) for name, kind, _ in lines) == [
        ("GET /admin/users/{user_id}", "SERVER"),
        *[("GET /orders/{order_id}", "SERVER")] * 20,
    ]
    assert pids <= {pid for *_, pid in lines}
    assert os.getpid() not in pids


def test_nothing_global_of_opentelemetry_is_touched(spans: CapturedSpans) -> None:
    before = dict(os.environ), trace.get_tracer_provider()
    instrument("fastapi", app=shop())
    assert (dict(os.environ), trace.get_tracer_provider()) == before
