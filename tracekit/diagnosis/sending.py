"""The test span: made as any other, sent once, and what the receiver answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from tracekit.errors import TracekitError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracekit.diagnosis.report import Report
    from tracekit.export.answer import Refused, TooLarge, Unavailable
    from tracekit.export.connection import Connection
    from tracekit.export.sender import Transport

SPAN: Final = "tracekit.doctor"
_ADVICE: Final = (
    ("404", "The path is wrong: over HTTP it ends in /v1/traces"),
    ("401", "The receiver wants credentials: OTEL_EXPORTER_OTLP_HEADERS"),
    ("403", "The credentials are not enough: OTEL_EXPORTER_OTLP_HEADERS"),
    ("UNAUTHENTICATED", "The receiver wants credentials: OTEL_EXPORTER_OTLP_HEADERS"),
    ("PERMISSION_DENIED", "The credentials are not enough: OTEL_EXPORTER_OTLP_HEADERS"),
    ("UNIMPLEMENTED", "It is gRPC, but no receiver of traces: check host and port"),
    ("30", "It is sent elsewhere: write the address it ends at, https for one"),
    ("no OTLP", "Something else answers there: a proxy, a login page, a web server. Check host, port and path"),
    ("429", "It limits how much it takes"),
    ("RESOURCE_EXHAUSTED", "It limits how much it takes"),
)


def check_sending(
    report: Report, connection: Connection, options: Mapping[str, Any], variables: Mapping[str, str]
) -> None:
    """Send one span called `tracekit.doctor` and add what the receiver says to it."""
    from tracekit.export.answer import Taken

    try:
        body, trace_id = _request(options, variables)
        transport = _transport(connection)
    except TracekitError as error:
        report.add("span", "sent", "fail", f"no span can be made: {error}")
        return
    except ImportError as error:
        report.add("span", "sent", "fail", f"no span can be sent: {error}", "pip install 'tracekit[otlp]'")
        return
    started_s = time.monotonic()
    try:
        answer = transport.send(body, connection.timeout_s)
    finally:
        transport.close()
    took_ms = round((time.monotonic() - started_s) * 1000)
    data: dict[str, Any] = {"trace_id": trace_id, "milliseconds": took_ms}
    if not isinstance(answer, Taken):
        _add_failure(report, answer, data)
    elif answer.rejected:
        said = f": {answer.message}" if answer.message else ""
        message = f"the receiver answered, and rejected the span{said}"
        report.add("span", "sent", "fail", message, "What it says is all that is known", **data)
    else:
        said = f"; it says: {answer.message}" if answer.message else ""
        message = f"the receiver took the span {SPAN} of trace {trace_id} in {took_ms} ms{said}"
        report.add("span", "sent", "warn" if said else "ok", message, **data)


def _add_failure(report: Report, answer: Refused | TooLarge | Unavailable, data: Mapping[str, Any]) -> None:
    from tracekit.export.answer import Unavailable as NotNow

    what = "was not taken now" if isinstance(answer, NotNow) else "was refused"
    advice = next((advice for word, advice in _ADVICE if answer.why.startswith(word) or word in answer.why), "")
    report.add("span", "sent", "fail", f"the test span {what}: {answer.why}", advice, **data, answer=answer.why)


def _request(options: Mapping[str, Any], variables: Mapping[str, str]) -> tuple[bytes, str]:
    """Return a request with one span, of the service that is configured."""
    from tracekit._block import traced_block
    from tracekit._current import current_trace_id
    from tracekit._environment import Environment
    from tracekit.configuration import configure
    from tracekit.export.otlp import chunks

    environment = Environment(variables)
    attributes = environment.pairs("OTEL_RESOURCE_ATTRIBUTES") or {}
    named = environment.text("OTEL_SERVICE_NAME")
    given: dict[str, Any] = {"service": SPAN, "resource": attributes, "environment": options.get("environment")}
    for service in (attributes.get("service.name"), named, options.get("service")):
        if service:
            given["service"] = service
    with configure(exporter="memory", sample=1.0, **given) as tracing:
        with traced_block(SPAN):
            trace_id = current_trace_id() or ""
        spans = tracing.spans
    [request] = chunks(spans)
    return request.body, trace_id


def _transport(connection: Connection) -> Transport:
    from tracekit.export.endpoint import GRPC

    if connection.endpoint.protocol == GRPC:
        from tracekit.export.grpc import GrpcTransport

        return GrpcTransport(connection)
    from tracekit.export.http import HttpTransport

    return HttpTransport(connection, connection.tls_context())
