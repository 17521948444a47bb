"""HTTPX: all clients or one, never both at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast, final

import httpx
from typing_extensions import override

from tracekit.errors import InstrumentationError
from tracekit.instrumentation.wiring import Instrumented, Official

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

_OPTIONS: Final = frozenset(
    {
        "tracer_provider",
        "meter_provider",
        "request_hook",
        "response_hook",
        "async_request_hook",
        "async_response_hook",
    }
)


@final
class HTTPX(Official):
    """
    The official instrumentation, kept from making two spans of one request.

    All clients: it patches HTTPX's own transports. One client: it patches that client's transports, of whatever kind.
    """

    @override
    def wire_all(self, options: dict[str, Any]) -> Instrumented:
        if unknown := sorted(options.keys() - _OPTIONS):
            msg = f"instrument('httpx') does not take {unknown}. It takes: client, {', '.join(sorted(_OPTIONS))}."
            raise InstrumentationError(msg)
        return super().wire_all(options)

    @override
    def wire_target(self, kind: str, target: Any, options: dict[str, Any]) -> Instrumented:
        if not isinstance(target, (httpx.Client, httpx.AsyncClient)):
            msg = (
                f"instrument('httpx', {kind}=...) was given a {type(target).__name__}; expected an httpx.Client or "
                "httpx.AsyncClient. Write instrument('httpx', client=client)."
            )
            raise InstrumentationError(msg)
        if self.instrumentor.is_instrumented_by_opentelemetry and all(
            isinstance(transport, (httpx.HTTPTransport, httpx.AsyncHTTPTransport)) for transport in _transports(target)
        ):
            return Instrumented(self.name, self.all_wired, self.by, "all clients are instrumented already")
        return super().wire_target(kind, target, options)

    @override
    def unwire_target(self, target: Any) -> None:
        super().unwire_target(target)
        for transport in _transports(target):
            # The official call leaves the bound method of that time behind, which hides the client from wire_all().
            state = cast("dict[str, Any]", vars(transport))
            state.pop("handle_request", None)
            state.pop("handle_async_request", None)


def _transports(client: Any) -> Iterator[Any]:
    # HTTPX has no public name for them; the official instrumentation reads the same two.
    yield client._transport  # noqa: SLF001
    yield from (transport for transport in client._mounts.values() if transport is not None)  # noqa: SLF001


def make_wiring(entry_point: EntryPoint) -> HTTPX:
    """Return the wiring of HTTPX."""
    return HTTPX("httpx", entry_point)
