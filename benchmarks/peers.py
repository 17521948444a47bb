"""Other decorators, each measured only where it is installed (`pip install logfire`)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace.export import SpanExporter


@final
@dataclass(frozen=True, slots=True)
class Peer:
    """Another decorator, ready to use: its name, what decorates, and what empties its queue."""

    name: str
    decorate: Callable[[Any], Any]
    flush: Callable[[], object]


def peers(exporter: Callable[[], SpanExporter]) -> Iterator[Peer]:
    """Return the peers that are installed, recording arguments and exporting to an *exporter* each."""
    if find_spec("logfire"):
        yield _logfire(exporter())


def _logfire(exporter: SpanExporter) -> Peer:
    import logfire  # type: ignore[import-not-found,unused-ignore]
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # local: it must not become the provider of everybody.
    local = logfire.configure(
        local=True,
        send_to_logfire=False,
        console=False,
        metrics=False,
        additional_span_processors=[BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000)],
    )
    return Peer("logfire, recorded", local.instrument("calls.logfire"), local.force_flush)
