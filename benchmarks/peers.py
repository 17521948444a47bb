"""
What other decorators cost, next to `@traced`: each measured only where it is installed (extra `bench`).

Each records the arguments if it can, and hands what it has made to an exporter that discards, or to none where it
has none of its own to replace. Peers that end the span of a generator before its first item, or leave it current in
the code that steps it, are not among the items.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, final

from benchmarks.callables import ASYNC_ITEM, FUNCTION, ITEM, Kind
from benchmarks.calls import BY_HAND, PLAIN, TRACED
from benchmarks.harness import Case, Effort, measure
from benchmarks.providers import MOST_SPANS, Discard, engine, made_by, stock
from benchmarks.tables import Table, Target
from tracekit import traced

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_NEVER_MS: Final = 3_600_000
# The only one here whose spans of generators are right; it drops what is sent and thrown.
_LANGFUSE: Final = "langfuse"
_TARGETS: Final = (Target(TRACED, _LANGFUSE, 1 / 3),)

# Some peers make a task of each item.
_loop: Final = asyncio.new_event_loop()


def _nothing() -> None:
    pass


@final
@dataclass(frozen=True, slots=True)
class Peer:
    """
    Another decorator, ready to use.

    Args:
        name: Its row in the table.
        decorate: The decorator.
        within: What its calls run inside: a transaction, where it records nothing outside of one.
        flush: Empties its queue.
        keeps_generators_right: Whether its spans of generators last to the end and never leak.
    """

    name: str
    decorate: Callable[[Any], Any]
    within: Callable[[], AbstractContextManager[object]] = nullcontext
    flush: Callable[[], object] = _nothing
    keeps_generators_right: bool = False


def tables(effort: Effort) -> Iterator[Table]:
    """Measure calls, and items of generators."""
    found = list(peers())
    if not found:
        print("No peer is installed: pip install 'tracekit[bench]'")
        return
    for kind in (FUNCTION, ITEM, replace(ASYNC_ITEM, repeat=_step_on_a_loop)):
        title = f"{kind.title}, next to peers"
        if effort.wants(title):
            baseline = BY_HAND if kind.spans_for_each else PLAIN
            targets = () if kind.spans_for_each else _TARGETS
            yield measure(title, list(_cases(kind, found)), baseline, targets, rounds=effort.turns(60, 10))


def _step_on_a_loop(func: Callable[..., Any], times: int) -> None:
    async def step() -> None:
        async for _ in func(times, 9.5):
            pass

    _loop.run_until_complete(step())


def _cases(kind: Kind, found: list[Peer]) -> Iterator[Case]:
    most = MOST_SPANS if kind.spans_for_each else None
    sdk, own = stock(), engine()
    yield Case(PLAIN, partial(kind.repeat, kind.func))
    by_hand = kind.write(sdk.get_tracer("benchmarks"))
    yield Case(BY_HAND, partial(kind.repeat, by_hand), between=sdk.force_flush, most=most)
    yield Case(TRACED, partial(kind.repeat, traced(kind.func)), partial(made_by, own), own.force_flush, most)
    for peer in found:
        if peer.keeps_generators_right or not kind.is_generator:
            run = partial(kind.repeat, peer.decorate(kind.func))
            yield Case(peer.name, run, peer.within, peer.flush, most)


def peers() -> Iterator[Peer]:
    """Return the peers that are installed."""
    for package, make in _PEERS.items():
        if find_spec(package):
            yield make()


def _logfire() -> Peer:
    import logfire  # type: ignore[import-not-found,unused-ignore]
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # local: it must not become the provider of everybody.
    local = logfire.configure(
        local=True,
        send_to_logfire=False,
        console=False,
        metrics=False,
        additional_span_processors=[BatchSpanProcessor(Discard(), schedule_delay_millis=_NEVER_MS)],
    )
    return Peer("logfire", local.instrument("calls.logfire"), flush=local.force_flush)


def _sentry() -> Peer:
    import sentry_sdk  # type: ignore[import-not-found,unused-ignore]

    class Nowhere(sentry_sdk.transport.Transport):  # type: ignore[misc,name-defined,unused-ignore]
        def capture_envelope(self, envelope: Any) -> None:
            pass

    # The default integrations would look into the other cases.
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0, transport=Nowhere, default_integrations=False
    )

    def transaction() -> AbstractContextManager[object]:
        started: AbstractContextManager[object] = sentry_sdk.start_transaction(name="calls")
        return started

    return Peer("sentry-sdk, no arguments, in a transaction", sentry_sdk.trace, transaction)


def _elastic() -> Peer:
    import elasticapm  # type: ignore[import-not-found,unused-ignore]

    client = elasticapm.Client(
        service_name="calls", disable_send=True, instrument=False, metrics_interval="0ms", central_config=False
    )

    @contextmanager
    def transaction() -> Generator[None]:
        client.begin_transaction("calls")
        try:
            yield
        finally:
            client.end_transaction("calls")

    return Peer("elastic-apm, no arguments, in a transaction", elasticapm.capture_span(), transaction)


def _datadog() -> Peer:
    # Before it is imported: it would look for an agent, and into other libraries.
    for variable in ("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "DD_REMOTE_CONFIGURATION_ENABLED"):
        os.environ[variable] = "false"
    from ddtrace.trace import TraceFilter, tracer  # type: ignore[import-not-found,unused-ignore]

    class DropAll(TraceFilter):  # type: ignore[misc,unused-ignore]
        def process_trace(self, trace: Any) -> None:
            pass

    tracer.configure(trace_processors=[DropAll()])
    return Peer("ddtrace, no arguments", tracer.wrap("calls.ddtrace"))


def _langfuse() -> Peer:
    import langfuse  # type: ignore[import-not-found,unused-ignore]
    from opentelemetry.sdk.trace import TracerProvider

    client = langfuse.Langfuse(
        public_key="pk",
        secret_key="sk",  # noqa: S106  # nobody's
        host="http://127.0.0.1:9",
        span_exporter=Discard(),
        tracer_provider=TracerProvider(shutdown_on_exit=False),
    )
    return Peer(_LANGFUSE, langfuse.observe(), flush=client.flush, keeps_generators_right=True)


_PEERS: Final[dict[str, Callable[[], Peer]]] = {
    "logfire": _logfire,
    "sentry_sdk": _sentry,
    "elasticapm": _elastic,
    "ddtrace": _datadog,
    "langfuse": _langfuse,
}
