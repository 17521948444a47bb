"""The gRPC side of `tracekit serve`: OTLP comes in. Needs the extra `otlp`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

import grpc  # type: ignore[import-untyped]  # comes without stubs

from tracekit.errors import TracekitError
from tracekit.view.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracekit.view.store import Store

_MAX_BODY: Final = 16 * 1024 * 1024
_MAX_CALLS: Final = 64
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_BODY),
    # Two servers on one port would share the spans between them.
    ("grpc.so_reuseport", 0),
)
_SERVICES: Final = "opentelemetry.proto.collector"


class PortTakenError(TracekitError):
    """Something else listens there."""


@final
class GrpcServer:
    """
    Serves *store* on *hosts* and *port*.

    Args:
        store: The spans.
        hosts: The addresses to listen on; without the first one it does not start.
        port: The port; 0 for a free one.

    Raises:
        PortTakenError: The port is taken.
    """

    def __init__(self, store: Store, hosts: Sequence[str], port: int) -> None:
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="tracekit-grpc")
        self._server: Final[Any] = grpc.server(self._pool, options=_OPTIONS, maximum_concurrent_rpcs=_MAX_CALLS)
        for handler in _handlers(Receiver(store)):
            self._server.add_generic_rpc_handlers((handler,))
        try:
            self.port = self._listen(hosts[0], port)
        except RuntimeError as error:
            self._pool.shutdown()
            msg = f"cannot listen on port {port} of {hosts[0]}"
            raise PortTakenError(msg) from error
        for host in hosts[1:]:
            with suppress(RuntimeError):
                self._listen(host, self.port)
        self._server.start()

    def _listen(self, host: str, port: int) -> int:
        return int(self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))

    def close(self) -> None:
        """Take no more requests; those that are being taken have a second."""
        self._server.stop(1).wait()
        self._pool.shutdown()


def _handlers(receiver: Receiver) -> list[Any]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )

    def take(request: ExportTraceServiceRequest, _context: Any) -> ExportTraceServiceResponse:
        return receiver.take_message(request)

    def ignore(_request: bytes, _context: Any) -> bytes:
        # Metrics and logs are not kept; exporters that send them too should not be told of an error all the time.
        return b""

    # Its own types, where a checker finds any, know nothing of handlers of bytes.
    api: Any = grpc
    traces = api.unary_unary_rpc_method_handler(
        take,
        request_deserializer=ExportTraceServiceRequest.FromString,
        response_serializer=ExportTraceServiceResponse.SerializeToString,
    )
    ignored = api.unary_unary_rpc_method_handler(ignore)
    return [
        api.method_handlers_generic_handler(f"{_SERVICES}.{service}", {"Export": handler})
        for service, handler in (
            ("trace.v1.TraceService", traces),
            ("metrics.v1.MetricsService", ignored),
            ("logs.v1.LogsService", ignored),
        )
    ]
