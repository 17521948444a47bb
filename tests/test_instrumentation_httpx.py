"""HTTPX against a real server: every kind of client and call, one span a request, the trace goes on at the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from libraries import captured_spans, served, tracer
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.trace import SpanKind, StatusCode

from tracekit._config import runtime
from tracekit.errors import InstrumentationError
from tracekit.instrumentation import instrument, instrumented, uninstrument
from tracekit.testing import capture_spans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracekit.testing import CapturedSpans


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the `traceparent` that came in, in three parts."""
    if scope["type"] != "http":
        return
    status = 500 if scope["path"] == "/boom" else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send(
        {"type": "http.response.body", "body": dict(scope["headers"]).get(b"traceparent", b""), "more_body": True}
    )
    await send({"type": "http.response.body", "body": b" ", "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})


@pytest.fixture
def spans() -> Iterator[CapturedSpans]:
    with captured_spans() as spans:
        yield spans


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(echo) as url:
        yield url


def traceparent(span: Any) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x} end"


def test_every_sync_request_is_one_client_span_that_the_server_continues(spans: CapturedSpans, url: str) -> None:
    [state] = instrument("httpx")
    assert state.is_wired
    answer = httpx.get(f"{url}/orders/7").text
    [span] = spans
    assert answer == traceparent(span)
    assert (span.name, span.kind, span.status.status_code) == ("GET", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.attributes["http.request.method"] == "GET"
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["url.full"] == f"{url}/orders/7"


@pytest.mark.anyio
async def test_concurrent_async_requests_keep_their_own_parents(spans: CapturedSpans, url: str) -> None:
    instrument("httpx")

    async def work(client: httpx.AsyncClient, number: int) -> None:
        with tracer.start_as_current_span(f"task {number}") as span:
            answer = (await client.get(url)).text
            assert f"{span.get_span_context().trace_id:032x}" in answer

    async with httpx.AsyncClient() as client:
        await asyncio.gather(*(work(client, number) for number in range(20)))
    tasks = {span.context.span_id for span in spans if span.name != "GET"}
    assert {span.parent.span_id for span in spans if span.parent} == tasks
    assert len(spans) == 40


def test_streamed_response_is_one_span_and_the_caller_keeps_his(spans: CapturedSpans, url: str) -> None:
    instrument("httpx")
    with tracer.start_as_current_span("download"), httpx.stream("GET", url) as response:
        for _ in response.iter_bytes():
            tracer.start_span("chunk").end()
    download = spans.one("download")
    assert spans.names.count("GET") == 1
    assert {span.parent.span_id for span in spans if span.parent} == {download.context.span_id}


@pytest.mark.anyio
async def test_streamed_async_response_is_one_span(spans: CapturedSpans, url: str) -> None:
    instrument("httpx")
    async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
        async for _ in response.aiter_bytes():
            pass
    assert spans.names == ["GET"]


def test_client_made_before_the_call_is_traced(spans: CapturedSpans, url: str) -> None:
    with httpx.Client() as client:
        instrument("httpx")
        client.get(url)
    assert spans.names == ["GET"]


def test_only_the_given_client_is_traced(spans: CapturedSpans, url: str) -> None:
    with httpx.Client() as one, httpx.Client() as two:
        instrument("httpx", client=one)
        instrument("httpx", client=one)
        one.get(url)
        two.get(url)
        assert spans.names == ["GET"]
        uninstrument("httpx", client=one)
        one.get(url)
        assert spans.names == ["GET"]


@pytest.mark.anyio
async def test_only_the_given_async_client_is_traced(spans: CapturedSpans, url: str) -> None:
    async with httpx.AsyncClient() as one, httpx.AsyncClient() as two:
        instrument("httpx", client=one)
        await one.get(url)
        await two.get(url)
        uninstrument("httpx")
        await one.get(url)
    assert spans.names == ["GET"]


@pytest.mark.parametrize("order", ["client first", "all first"])
def test_one_client_and_all_together_make_one_span(spans: CapturedSpans, url: str, order: str) -> None:
    with httpx.Client() as client:
        calls: list[dict[str, Any]] = [{"client": client}, {}]
        for options in calls if order == "client first" else reversed(calls):
            [state] = instrument("httpx", **options)
            assert state.is_wired
        client.get(url)
        httpx.get(url)
    assert spans.names == ["GET", "GET"]


def test_client_that_left_is_traced_with_all(spans: CapturedSpans, url: str) -> None:
    with httpx.Client() as client:
        instrument("httpx", client=client)
        uninstrument("httpx", client=client)
        instrument("httpx")
        client.get(url)
    assert spans.names == ["GET"]


@pytest.mark.anyio
async def test_client_with_a_transport_of_its_own_can_be_traced(spans: CapturedSpans) -> None:
    instrument("httpx")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(echo), base_url="http://shop") as client:
        await client.get("/")
        assert spans.names == []
        instrument("httpx", client=client)
        await client.get("/")
    assert spans.names == ["GET"]


def test_nothing_is_traced_after_uninstrument(spans: CapturedSpans, url: str) -> None:
    instrument("httpx")
    uninstrument("httpx")
    uninstrument("httpx")
    assert httpx.get(url).text == " end"
    assert spans.names == []
    assert instrumented() == ()


def test_failure_and_server_error_are_errors_and_reach_the_caller(spans: CapturedSpans, url: str) -> None:
    instrument("httpx")
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:1/")
    assert httpx.get(f"{url}/boom").status_code == 500
    assert [span.status.status_code for span in spans] == [StatusCode.ERROR] * 2
    assert [span.attributes["error.type"] for span in spans] == ["ConnectError", "500"]


def test_secrets_in_the_url_are_not_recorded(spans: CapturedSpans, url: str) -> None:
    instrument("httpx")
    httpx.get(url.replace("http://", "http://anna:hunter2@"))
    assert "hunter2" not in str(spans[0].attributes)


def test_instrumentation_by_the_user_beside_ours_makes_no_second_span(spans: CapturedSpans, url: str) -> None:
    theirs = HTTPXClientInstrumentor()
    theirs.instrument(tracer_provider=runtime.provider)
    try:
        [state] = instrument("httpx")
        assert not state.is_wired
        assert "already instrumented" in state.reason
        httpx.get(url)
        uninstrument("httpx")
        httpx.get(url)
    finally:
        theirs.uninstrument()
    assert spans.names == ["GET", "GET"]


def test_client_instrumented_by_the_user_is_left_to_him(spans: CapturedSpans, url: str) -> None:
    with httpx.Client() as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=runtime.provider)
        [state] = instrument("httpx", client=client)
        assert not state.is_wired
        client.get(url)
        instrument("httpx")
        client.get(url)
    assert spans.names == ["GET", "GET"]


def test_spans_follow_the_provider_of_the_moment(spans: CapturedSpans, url: str) -> None:
    instrument("httpx")
    with capture_spans() as other:
        httpx.get(url)
    httpx.get(url)
    assert (spans.names, other.names) == (["GET"], ["GET"])


def test_hooks_go_through_to_the_official_instrumentation(spans: CapturedSpans, url: str) -> None:
    instrument("httpx", request_hook=lambda span, request: span.update_name(f"GET {request.url.path}"))
    httpx.get(f"{url}/orders")
    assert spans.names == ["GET /orders"]


def test_wrong_client_and_unknown_option_say_what_to_write(spans: CapturedSpans) -> None:
    with pytest.raises(InstrumentationError, match=r"given a str; expected an httpx.Client .*client=client"):
        instrument("httpx", client="http://shop")
    with pytest.raises(InstrumentationError, match=r"does not take \['clinet'\]. It takes: client, "):
        instrument("httpx", clinet=1)
    assert instrumented() == ()
