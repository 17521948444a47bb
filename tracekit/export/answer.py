"""What a receiver may answer to one request, and what that means for the spans in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias, final


@final
@dataclass(frozen=True, slots=True)
class Taken:
    """The receiver has the spans, but for those it *rejected*."""

    rejected: int = 0
    message: str = ""


@final
@dataclass(frozen=True, slots=True)
class Refused:
    """The receiver will never take this request."""

    why: str


@final
@dataclass(frozen=True, slots=True)
class TooLarge:
    """The receiver takes smaller requests only."""

    why: str


@final
@dataclass(frozen=True, slots=True)
class Unavailable:
    """
    The receiver cannot take it now, or is not to be reached.

    Args:
        why: What happened.
        retry_after_s: When the receiver wants to be asked again, in seconds from now.
    """

    why: str
    retry_after_s: float | None = None


Answer: TypeAlias = Taken | Refused | TooLarge | Unavailable

_SHOWN: Final = 200


def taken(body: bytes) -> Answer:
    """Read the body of a success: an `ExportTraceServiceResponse`, which may say that spans were rejected."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes without types
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return Refused("the answer is no OTLP")
    return Taken(max(0, partial.rejected_spans), shown(partial.error_message))


def shown(text: str) -> str:
    """Return *text* as it may stand in a line of the log."""
    line = " ".join(text.split())
    return "".join(filter(str.isprintable, line[:_SHOWN]))
