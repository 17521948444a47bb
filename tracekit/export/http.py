"""One attempt over OTLP/HTTP: a request is posted, and the answer read as the protocol has it."""

from __future__ import annotations

import gzip
import json
import time
from email.utils import parsedate_to_datetime
from http.client import BadStatusLine
from typing import TYPE_CHECKING, Any, Final, final

import urllib3
from urllib3.exceptions import HTTPError

from tracekit._version import __version__
from tracekit.export.answer import Answer, Refused, Taken, TooLarge, Unavailable, shown, taken
from tracekit.export.punctual import POOLS

if TYPE_CHECKING:
    import ssl

    from tracekit.export.connection import Connection

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_TOO_LARGE: Final = 413
_RETRYABLE: Final = (429, 502, 503, 504)
# An answer has a few bytes; a page of somebody else's is not read to its end.
_MAX_ANSWER_BYTES: Final = 65_536
# The type of the frame that a server of HTTP/2 begins with, whatever it is asked.
_SETTINGS: Final = "\x04"
# Nearly as small as the best, at a third of its time.
_GZIP_LEVEL: Final = 3


@final
class HttpTransport:
    """
    Connections to one receiver, kept open between requests.

    Args:
        connection: How to reach it.
        tls: What certificates are checked by; None without TLS.

    Source: OTLP specification 1.5, OTLP/HTTP.
    """

    def __init__(self, connection: Connection, tls: ssl.SSLContext | None) -> None:
        self._url: Final = connection.endpoint.url
        self._is_compressed: Final = connection.compression == "gzip"
        self._headers: Final[dict[str, str]] = {
            "user-agent": f"tracekit/{__version__}",
            "content-type": _PROTOBUF,
            **({"content-encoding": "gzip"} if self._is_compressed else {}),
            **connection.headers,
        }
        # Two: what is queued and what was kept on disk are sent by a thread each.
        options: dict[str, Any] = {"maxsize": 2, "retries": False, **({} if tls is None else {"ssl_context": tls})}
        proxy = connection.proxy
        self._pool: Final[urllib3.PoolManager] = (
            urllib3.PoolManager(**options)
            if proxy is None
            else urllib3.ProxyManager(
                proxy.url, proxy_headers=urllib3.make_headers(proxy_basic_auth=proxy.user_info), **options
            )
        )
        self._pool.pool_classes_by_scheme = POOLS

    def send(self, body: bytes, timeout_s: float) -> Answer:
        """Post *body* and return what the receiver answers within *timeout_s*."""
        content = gzip.compress(body, _GZIP_LEVEL) if self._is_compressed else body
        try:
            response = self._pool.request(
                "POST",
                self._url,
                body=content,
                headers=self._headers,
                timeout=urllib3.Timeout(total=timeout_s),
                redirect=False,
                preload_content=False,
            )
            try:
                answer = response.read(_MAX_ANSWER_BYTES, decode_content=True)
            finally:
                # The connection too, unless the answer was read to its end; then the pool has it back.
                response.close()
        except (HTTPError, OSError) as error:
            return Unavailable(_reason(error))
        return _read(response.status, response.reason or "", response.headers, answer)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._pool.clear()


def _read(status: int, reason: str, headers: Any, body: bytes) -> Answer:
    kind = str(headers.get("content-type", "")).partition(";")[0].strip().lower()
    if status // 100 == 2:  # noqa: PLR2004  # all of them: some receivers say 202 or 204
        return _read_success(kind, body)
    why = f"{status} {shown(reason)}"
    said = _said(kind, body)
    if said:
        why += f": {said}"
    if status == _TOO_LARGE:
        return TooLarge(why)
    if status in _RETRYABLE:
        return Unavailable(why, _retry_after_s(headers.get("retry-after")))
    return Refused(why)


def _read_success(kind: str, body: bytes) -> Answer:
    if not body:
        return Taken()
    if kind == _PROTOBUF:
        return taken(body)
    if kind == _JSON:
        return _taken_json(body)
    return Refused(f"the answer is no OTLP but {shown(kind) or 'of no type'}")


def _taken_json(body: bytes) -> Answer:
    """Read the answer of a receiver that answers in JSON whatever it was sent."""
    try:
        partial: dict[str, Any] = json.loads(body).get("partialSuccess") or {}
        return Taken(max(0, int(partial.get("rejectedSpans", 0))), shown(str(partial.get("errorMessage", ""))))
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
        return Refused("the answer is no OTLP")


def _said(kind: str, body: bytes) -> str:
    """Return the receiver's own words about a failure."""
    if kind == _PROTOBUF:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # both come without types
        from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

        try:
            return shown(Status.FromString(body).message)
        except DecodeError:
            return ""
    return shown(body.decode("utf-8", "replace")) if kind in (_JSON, "text/plain") else ""


def _retry_after_s(text: str | None) -> float | None:
    """Read seconds or a date of HTTP."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None


def _reason(error: BaseException) -> str:
    """Return what went wrong; never the message, which quotes the URL."""
    cause = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    if isinstance(cause, OSError) and cause.strerror:
        return shown(cause.strerror)
    if isinstance(cause, BadStatusLine) and str(cause)[3:4] == _SETTINGS:
        return 'it speaks gRPC: write protocol="grpc", or the port of HTTP'
    return type(error).__name__
