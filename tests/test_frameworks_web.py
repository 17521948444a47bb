"""FastAPI, Starlette, Flask and Django call traced functions as plain ones, and find in them what they look for."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import flask
import pytest
from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tracekit import traced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

    from tracekit.testing import CapturedSpans


class Item(BaseModel):
    name: str
    price: float


@traced("deps.tenant")
def tenant(x_tenant: Annotated[str, Header()] = "none") -> str:
    return x_tenant


@traced("deps.user")
async def user(tenant: Annotated[str, Depends(tenant)]) -> str:
    return f"user of {tenant}"


@traced("deps.session")
def session() -> Iterator[str]:
    log.append("session opened")
    try:
        yield "session"
    finally:
        log.append("session closed")


@traced("deps.connection")
async def connection() -> AsyncIterator[str]:
    log.append("connection opened")
    try:
        yield "connection"
    except HTTPException:
        log.append("connection saw the error")
        raise
    finally:
        log.append("connection closed")


class Pager:
    @traced("deps.page")
    def __call__(self, page: int = 1) -> int:
        return page


log: list[str] = []
app = FastAPI()


@app.post("/items/{item_id}")
@traced
def create_item(item_id: int, item: Item, dry: bool = False) -> Item:
    log.append(f"{item_id} {dry}")
    return item


@app.get("/whoami")
@traced
async def who_am_i(user: Annotated[str, Depends(user)], page: Annotated[int, Depends(Pager())]) -> dict[str, Any]:
    return {"user": user, "page": page}


@app.get("/held")
@traced
async def held(session: Annotated[str, Depends(session)], connection: Annotated[str, Depends(connection)]) -> list[str]:
    log.append("handled")
    return [session, connection]


@app.get("/refused")
@traced
async def refused(connection: Annotated[str, Depends(connection)]) -> None:
    raise HTTPException(409, connection)


@traced("stream.numbers")
async def numbers() -> AsyncIterator[str]:
    for number in range(3):
        yield f"{number};"
        await asyncio.sleep(0)


@traced("stream.letters")
def letters() -> Iterator[str]:
    yield from "abc"


@app.get("/numbers")
@traced
async def stream_numbers() -> StreamingResponse:
    return StreamingResponse(numbers())


@app.get("/letters")
@traced
def stream_letters() -> StreamingResponse:
    return StreamingResponse(letters())


@traced("mail.send")
def send_mail(to: str) -> None:
    log.append(f"mail to {to}")


@traced("mail.send_async")
async def send_mail_async(to: str) -> None:
    log.append(f"mail to {to}, async")


@app.post("/signup")
@traced
async def sign_up(tasks: BackgroundTasks) -> None:
    tasks.add_task(send_mail, "ada")
    tasks.add_task(send_mail_async, to="bob")


@app.websocket("/echo")
@traced
async def echo(websocket: WebSocket, suffix: str = "") -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text() + suffix)
    await websocket.close()


@pytest.fixture
def client() -> Iterator[TestClient]:
    log.clear()
    with TestClient(app) as client:
        yield client


def test_fastapi_reads_path_query_body_and_response_model_of_a_traced_route(
    client: TestClient, spans: CapturedSpans
) -> None:
    response = client.post("/items/7?dry=true", json={"name": "tea", "price": 2.5})
    assert response.json() == {"name": "tea", "price": 2.5}
    assert log == ["7 True"]
    assert spans.one("test_frameworks_web.create_item").attributes["item_id"] == 7
    assert client.post("/items/seven", json={}).status_code == 422


def test_fastapi_documents_a_traced_route_as_a_plain_one() -> None:
    plain = FastAPI()
    for route, method in (("/items/{item_id}", "post"), ("/whoami", "get"), ("/held", "get")):
        endpoint = next(found.endpoint for found in app.routes if getattr(found, "path", None) == route)
        plain.add_api_route(route, endpoint.__wrapped__, methods=[method.upper()])
        assert app.openapi()["paths"][route] == plain.openapi()["paths"][route]


def test_fastapi_resolves_traced_dependencies_of_traced_dependencies(client: TestClient, spans: CapturedSpans) -> None:
    assert client.get("/whoami?page=3", headers={"x-tenant": "acme"}).json() == {"user": "user of acme", "page": 3}
    assert spans.names == ["deps.tenant", "deps.user", "deps.page", "test_frameworks_web.who_am_i"]


def test_fastapi_holds_traced_yield_dependencies_open_for_the_handler(client: TestClient, spans: CapturedSpans) -> None:
    assert client.get("/held").json() == ["session", "connection"]
    assert log == ["session opened", "connection opened", "handled", "connection closed", "session closed"]
    assert {span.name for span in spans} == {"deps.session", "deps.connection", "test_frameworks_web.held"}
    assert spans.one("test_frameworks_web.held").parent is None


def test_fastapi_throws_the_error_of_the_handler_into_a_traced_yield_dependency(
    client: TestClient, spans: CapturedSpans
) -> None:
    assert client.get("/refused").status_code == 409
    assert log == ["connection opened", "connection saw the error", "connection closed"]
    assert spans.one("deps.connection").attributes["error.type"] == "fastapi.exceptions.HTTPException"


@pytest.mark.parametrize(("path", "text"), [("/numbers", "0;1;2;"), ("/letters", "abc")])
def test_a_streamed_response_has_one_span_from_first_to_last_chunk(
    path: str, text: str, client: TestClient, spans: CapturedSpans
) -> None:
    assert client.get(path).text == text
    assert spans.one(f"stream{path.replace('/', '.')}").attributes["generator.items"] == 3


def test_background_tasks_run_traced(client: TestClient, spans: CapturedSpans) -> None:
    assert client.post("/signup").status_code == 200
    assert log == ["mail to ada", "mail to bob, async"]
    assert spans.one("mail.send").attributes["to"] == "ada"
    assert spans.one("mail.send_async").attributes["to"] == "bob"


def test_a_websocket_handler_runs_traced(client: TestClient, spans: CapturedSpans) -> None:
    with client.websocket_connect("/echo?suffix=!") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello!"
    assert spans.one("test_frameworks_web.echo").attributes["suffix"] == "!"


def test_starlette_awaits_coroutine_endpoints_and_runs_others_in_threads(spans: CapturedSpans) -> None:
    @traced("pages.sync")
    def sync_page(request: Request) -> PlainTextResponse:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return PlainTextResponse("sync")

    @traced("pages.async")
    async def async_page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.query_params["q"])

    client = TestClient(Starlette(routes=[Route("/sync", sync_page), Route("/async", async_page)]))
    assert client.get("/sync").text == "sync"
    assert client.get("/async?q=async").text == "async"
    assert spans.names == ["pages.sync", "pages.async"]


def test_flask_names_and_calls_traced_views(spans: CapturedSpans) -> None:
    site = flask.Flask("site")

    @site.get("/orders/<int:order_id>")
    @traced("site.show_order")
    def show_order(order_id: int) -> dict[str, Any]:
        return {"id": order_id, "url": flask.url_for("show_order", order_id=8)}

    @site.get("/letters")
    @traced("site.stream")
    def stream() -> flask.Response:
        return flask.Response(letters())

    @site.before_request
    @traced("site.before")
    def before() -> None:
        flask.g.seen = True

    @site.errorhandler(404)
    @traced("site.not_found")
    def not_found(error: Exception) -> tuple[str, int]:
        return "nothing here", 404

    client = site.test_client()
    assert client.get("/orders/7").json == {"id": 7, "url": "/orders/8"}
    assert client.get("/letters").text == "abc"
    assert client.get("/nowhere").text == "nothing here"
    assert spans.one("site.show_order").attributes["order_id"] == 7
    assert spans.one("stream.letters").attributes["generator.items"] == 3
    assert len(spans.all("site.before")) == 3


@traced("views.sync")
def sync_view(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(f"sync {number}")


@traced("views.async")
async def async_view(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse("async")


urlpatterns = [path("sync/<int:number>", sync_view), path("async", async_view)]


@pytest.fixture
def django() -> None:
    import django

    if not django_settings.configured:
        django_settings.configure(SECRET_KEY=uuid.uuid4().hex, ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)
        django.setup()


@pytest.mark.usefixtures("django")
def test_django_calls_traced_views(spans: CapturedSpans) -> None:
    from django.test import override_settings

    with override_settings(ROOT_URLCONF=__name__):
        assert Client().get("/sync/3").content == b"sync 3"
        assert Client().get("/async").content == b"async"
    assert spans.one("views.sync").attributes["number"] == 3
    assert spans.one("views.async")


@pytest.mark.anyio
@pytest.mark.usefixtures("django")
async def test_django_awaits_traced_coroutine_views_in_its_own_loop(spans: CapturedSpans) -> None:
    from django.test import override_settings

    with override_settings(ROOT_URLCONF=__name__):
        assert (await AsyncClient().get("/async")).content == b"async"
        assert (await AsyncClient().get("/sync/4")).content == b"sync 4"
    assert spans.names == ["views.async", "views.sync"]
