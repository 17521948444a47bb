"""What a local receiver does with an OTLP request, over whichever protocol it came: keep its spans, and say so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from tracekit.view.protobuf import receive_message
from tracekit.view.requests import MALFORMED, Received, receive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )

    from tracekit.view.store import Store

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
# google.rpc.Code
INVALID_ARGUMENT: Final = 3
UNAVAILABLE: Final = 14


class MalformedRequestError(Exception):
    """A body that is no request: sent again it would be none either."""


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer, in the encoding of the request."""

    content_type: str
    body: bytes


@final
class Receiver:
    """
    Takes requests into *store*.

    Args:
        store: Where the spans go.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def take(self, content_type: str, body: bytes) -> Answer:
        """
        Keep the spans of a request over HTTP.

        Raises:
            MalformedRequestError: It is none.
        """
        received = _read_json(body) if content_type == JSON else receive_message(_read_protobuf(body))
        self._store.add(received.spans)
        if content_type == JSON:
            return Answer(JSON, json.dumps(_partial_success(received)).encode())
        return Answer(PROTOBUF, _response(received).SerializeToString())

    def take_message(self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
        """Keep the spans of a request over gRPC."""
        received = receive_message(request)
        self._store.add(received.spans)
        return _response(received)


def failure(content_type: str, code: int, message: str) -> Answer:
    """Return the body of an answer that says what is wrong: a `google.rpc.Status`."""
    if content_type != PROTOBUF:
        return Answer(JSON, json.dumps({"code": code, "message": message}).encode())
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # comes without stubs

    return Answer(PROTOBUF, Status(code=code, message=message).SerializeToString())


def _read_json(body: bytes) -> Received:
    try:
        return receive(json.loads(body))
    except MALFORMED as error:
        msg = f"no ExportTraceServiceRequest in JSON: {type(error).__name__}: {error}"
        raise MalformedRequestError(msg) from error


def _read_protobuf(body: bytes) -> ExportTraceServiceRequest:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes without stubs
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        request: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        msg = f"no ExportTraceServiceRequest in protobuf: {error}"
        raise MalformedRequestError(msg) from error
    return request


def _why(received: Received) -> str:
    return "; ".join(dict.fromkeys(received.rejections[:10]))


def _partial_success(received: Received) -> Mapping[str, Any]:
    if not received.rejections:
        return {}
    return {"partialSuccess": {"rejectedSpans": str(len(received.rejections)), "errorMessage": _why(received)}}


def _response(received: Received) -> ExportTraceServiceResponse:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTracePartialSuccess,
        ExportTraceServiceResponse,
    )

    if not received.rejections:
        return ExportTraceServiceResponse()
    return ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=len(received.rejections), error_message=_why(received))
    )
