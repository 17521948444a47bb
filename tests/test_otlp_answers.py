"""What a receiver answers, and what becomes of the spans: nothing is lost that it could still take."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from otlp_receiver import Answer, GrpcReceiver, HttpReceiver, Receiver

import tracekit
from tracekit._diagnostics import diagnostics
from tracekit.configuration import Tracing


@pytest.fixture(autouse=True)
def _forget_reports() -> Iterator[None]:
    diagnostics.reset()
    yield
    diagnostics.reset()


def tracing_to(receiver: Receiver, **options: Any) -> Tracing:
    protocol: Any = "grpc" if isinstance(receiver, GrpcReceiver) else "http/protobuf"
    return tracekit.configure(endpoint=receiver.endpoint, protocol=protocol, **{"timeout_s": 5, **options})


def end(*names: str) -> None:
    for name in names:
        with tracekit.traced_block(f"shop.{name}"):
            pass


def figures(tracing: Tracing) -> tuple[int, int, dict[str, int]]:
    stats = tracing.stats
    return stats.exported, stats.queued, dict(stats.dropped)


def names(receiver: Receiver) -> list[str]:
    return [span.name.removeprefix("shop.") for span in receiver.spans]


def retry_info(seconds: float) -> dict[str, bytes]:
    delay = Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=delay))
    return {"grpc-status-details-bin": Status(code=8, details=[detail]).SerializeToString()}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(429, "RESOURCE_EXHAUSTED", headers=retry_info(0.01)),
        Answer(502, "ABORTED"),
        Answer(503, "UNAVAILABLE"),
        Answer(504, "DEADLINE_EXCEEDED"),
        Answer(503, "CANCELLED"),
        Answer(503, "OUT_OF_RANGE"),
        Answer(503, "DATA_LOSS"),
        Answer(close=True),
        Answer(grpc="UNAVAILABLE", truncated=True),
    ],
    ids=["429", "502", "503", "504", "cancelled", "out of range", "data loss", "closed", "truncated"],
)
def test_what_the_receiver_cannot_take_now_is_sent_again(otlp: Receiver, answer: Answer) -> None:
    if isinstance(otlp, HttpReceiver):  # metadata of gRPC are no headers
        answer = Answer(answer.http, close=answer.close, truncated=answer.truncated)
    otlp.answer(answer)
    tracing = tracing_to(otlp)
    end("a", "b")
    assert tracing.flush(20)
    assert len(otlp.requests) == 2
    assert names(otlp)[-2:] == ["a", "b"]
    assert figures(tracing) == (2, 0, {})


@pytest.mark.parametrize(
    ("http", "grpc"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (404, "UNIMPLEMENTED"),
        (500, "INTERNAL"),
        (501, "RESOURCE_EXHAUSTED"),
        (302, "PERMISSION_DENIED"),
        (307, "NOT_FOUND"),
    ],
)
def test_what_the_receiver_refuses_is_counted_and_not_sent_again(
    otlp: Receiver, http: int, grpc: str, caplog: pytest.LogCaptureFixture
) -> None:
    otlp.answer(Answer(http, grpc, headers={"location": f"{otlp.endpoint}/v1/traces"} if http < 400 else {}))
    tracing = tracing_to(otlp)
    end("a", "b")
    assert not tracing.flush(20)
    end("c")
    assert tracing.flush(20)
    assert len(otlp.requests) == 2
    assert names(otlp) == ["c"]
    assert figures(tracing) == (1, 0, {"export_failed": 2})
    assert any(f"refused spans ({http}" in line or f"refused spans ({grpc}" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("kind", "body", "reasons"),
    [
        ("text/html; charset=utf-8", b"<html>Please log in", {"export_failed": 3}),
        ("application/x-protobuf", b"<html>Please log in", {"export_failed": 3}),
        ("application/json", b"[]", {"export_failed": 3}),
        ("application/json", b"[" * 60_000, {"export_failed": 3}),
        ("application/json", b'{"partialSuccess": {"rejectedSpans": 1e400}}', {"export_failed": 3}),
        ("application/json", b"{}", {}),
        ("application/json", b'{"partialSuccess": {"rejectedSpans": "2"}}', {"rejected": 2}),
        ("text/plain", b"", {}),
    ],
)
def test_only_an_answer_of_otlp_is_success(
    otlp_http: HttpReceiver, kind: str, body: bytes, reasons: dict[str, int]
) -> None:
    otlp_http.answer(Answer(body=body, headers={"content-type": kind}))
    tracing = tracing_to(otlp_http)
    end("a", "b", "c")
    assert tracing.flush(20) is not bool(reasons)
    assert figures(tracing) == (3 - sum(reasons.values()), 0, reasons)


def test_spans_that_the_receiver_rejects_are_counted_and_said_once(
    otlp: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    otlp.answer_always(Answer(rejected=2))
    tracing = tracing_to(otlp)
    for _ in range(3):
        end("a", "b", "c")
        assert not tracing.flush(20)
    assert figures(tracing) == (3, 0, {"rejected": 6})
    assert [line.partition("rejected spans ")[2] for line in caplog.messages if "rejected spans" in line] == [
        "(scripted)"
    ]


def test_a_request_that_is_too_large_is_sent_in_halves(otlp: Receiver) -> None:
    otlp.max_spans = 3
    tracing = tracing_to(otlp)
    end(*"abcdefghij")
    assert tracing.flush(20)
    assert names(otlp) == list("abcdefghij")
    assert figures(tracing) == (10, 0, {})


def test_a_span_that_is_too_large_by_itself_costs_only_itself(otlp: Receiver) -> None:
    otlp.answer(Answer(413, "OUT_OF_RANGE", details="Error, decoded message length too large: found 9 bytes"))
    otlp.answer(Answer(413, "RESOURCE_EXHAUSTED", details="gRPC message exceeds maximum size 8: 9"))
    tracing = tracing_to(otlp)
    end("a", "b")
    assert not tracing.flush(20)
    assert names(otlp) == ["b"]
    assert figures(tracing) == (1, 0, {"too_large": 1})


@pytest.mark.parametrize("said", ["seconds", pytest.param("date", marks=pytest.mark.slow)])
def test_the_receiver_says_when_to_come_again_and_no_flush_comes_earlier(otlp: Receiver, said: str) -> None:
    # Dates have no fractions.
    wait_s = 1 if said == "seconds" else 2
    headers: dict[str, Any] = {
        "retry-after": "1" if said == "seconds" else formatdate(time.time() + wait_s, usegmt=True)
    }
    if isinstance(otlp, GrpcReceiver):
        headers = retry_info(1) if said == "seconds" else {"google.rpc.retryinfo-bin": retry_delay(1)}
    otlp.answer(Answer(503, "UNAVAILABLE", headers=headers))
    tracing = tracing_to(otlp)
    end("a")
    assert not tracing.flush(0.1)
    assert tracing.flush(20)
    first, second = otlp.requests
    assert second.at_s - first.at_s >= 0.95
    assert figures(tracing) == (1, 0, {})


def retry_delay(seconds: int) -> bytes:
    return bytes(RetryInfo(retry_delay=Duration(seconds=seconds)).SerializeToString())


def test_a_flush_does_not_wait_for_the_next_attempt(otlp: Receiver) -> None:
    tracing = tracing_to(otlp)
    # The tenth attempt would be due in half a minute.
    otlp.answer(*[Answer(503, "UNAVAILABLE")] * 10)
    end("a")
    for _ in range(11):
        tracing.flush(0.01)
    assert tracing.flush(20)
    assert figures(tracing) == (1, 0, {})


def test_a_receiver_that_is_away_is_said_once_and_no_attempt_is_logged(
    otlp: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tracing = tracing_to(otlp)
    otlp.answer(*[Answer(503, "UNAVAILABLE")] * 2)
    end("a")
    assert tracing.flush(20)
    ours = [record for record in caplog.records if record.name.startswith(("tracekit", "opentelemetry"))]
    assert [record.levelname for record in ours] == ["WARNING", "INFO"]
    assert "takes no spans now (" in ours[0].getMessage()
    assert "takes spans again" in ours[1].getMessage()


def test_connections_are_kept_open(otlp: Receiver) -> None:
    tracing = tracing_to(otlp)
    for _ in range(3):
        end("a")
        assert tracing.flush(20)
    assert len({request.peer for request in otlp.requests}) == 1


def test_spans_wait_for_a_receiver_that_is_not_there_yet(otlp: Receiver) -> None:
    port = otlp.port
    otlp.close()
    tracing = tracing_to(otlp)
    end("a", "b")
    assert not tracing.flush(0.5)
    assert figures(tracing) == (0, 2, {})
    back = type(otlp)(port)
    try:
        assert tracing.flush(20)
        assert names(back) == ["a", "b"]
        assert figures(tracing) == (2, 0, {})
    finally:
        tracing.shutdown()
        back.close()


ANSWERS = {
    "accept": Answer(),
    "refuse": Answer(400, "INVALID_ARGUMENT"),
    "reject": Answer(rejected=1),
    "html": Answer(body=b"<html>", headers={"content-type": "text/html"}, grpc="UNKNOWN"),
    "busy": Answer(503, "UNAVAILABLE"),
    "large": Answer(413, "RESOURCE_EXHAUSTED", details="larger than max"),
    "close": Answer(close=True),
}


@given(steps=st.lists(st.sampled_from([*ANSWERS, "end", "end", "end", "flush"]), max_size=12))
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_span_is_accounted_for_whatever_is_answered(otlp: Receiver, steps: list[str]) -> None:
    otlp.forget()
    tracing = tracing_to(otlp)
    ended = 0
    for step in steps:
        if step == "end":
            end(*"ab")
            ended += 2
        elif step == "flush":
            tracing.flush(20)
        else:
            otlp.answer(ANSWERS[step])
        stats = tracing.stats
        assert stats.sampled == stats.exported + stats.queued + sum(stats.dropped.values()) == ended
    tracing.shutdown(20)
    stats = tracing.stats
    # What was rejected came, but counts as lost; what came on a connection that broke came again.
    assert stats.exported + stats.dropped.get("rejected", 0) == len({span.span_id for span in otlp.spans})
    assert (stats.queued, stats.spooled) == (0, 0)
    assert sum(stats.dropped.values()) == ended - stats.exported


def test_a_flush_after_the_end_is_false_where_a_span_came_too_late(otlp_http: HttpReceiver) -> None:
    tracing = tracing_to(otlp_http)
    end("a")
    tracing.shutdown()
    end("b")
    assert not tracing.flush()
    assert figures(tracing) == (1, 0, {"after_shutdown": 1})
