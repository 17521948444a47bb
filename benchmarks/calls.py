"""
What one call costs: plain, in an empty closure, with `@traced`, by hand as a guide shows it, with the raw decorator.

Recorded is with a batch processor and an exporter that discards; nothing is exported while it is measured, for the
queue is emptied between the rounds. "By hand" is always on the SDK's own provider.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from benchmarks.callables import ASYNC_ITEM, ITEM, KINDS, Kind
from benchmarks.harness import Case, Effort, measure
from benchmarks.providers import MOST_SPANS, engine, made_by, stock
from benchmarks.tables import Table, Target
from tracekit import arg, traced, traced_block

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from opentelemetry.sdk.trace import TracerProvider

PLAIN: Final = "plain"
CLOSURE: Final = "empty closure"
BY_HAND: Final = "by hand"
RAW: Final = "raw decorator"
TRACED: Final = "@traced"
BARE: Final = "@traced, no attributes"
EXTRACTORS: Final = "@traced, two extractors"
OVER_SDK: Final = "@traced over the SDK's provider"
EXTRACTORS_OVER_SDK: Final = "@traced over the SDK's provider, two extractors"
BY_HAND_ROOT: Final = "sampled-out root, by hand"
TRACED_ROOT: Final = "sampled-out root, @traced"
BY_HAND_BELOW: Final = "below an unsampled parent, by hand"
TRACED_BELOW: Final = "below an unsampled parent, @traced"
BY_HAND_OFF: Final = "no provider, by hand"
RAW_OFF: Final = "no provider, raw decorator"
TRACED_OFF: Final = "no provider, @traced"

_OF_CALLS: Final = (
    Target(EXTRACTORS, BY_HAND, 0.12),
    Target(BARE, RAW, 0.15),
    Target(TRACED, BY_HAND, 0.13),
    Target(OVER_SDK, BY_HAND, 0.75),
    Target(EXTRACTORS_OVER_SDK, BY_HAND, 0.75),
    Target(TRACED_ROOT, BY_HAND_ROOT, 0.12),
    Target(TRACED_BELOW, BY_HAND_BELOW, 0.06),
    Target(TRACED_OFF, CLOSURE, 2.5),
    Target(TRACED_OFF, RAW_OFF, 0.08),
)
_OF_ITEMS: Final = (Target(TRACED, PLAIN, 0.6, by="more"), Target(OVER_SDK, PLAIN, 0.6, by="more"))

_EXTRACTORS: Final[dict[str, Any]] = {"order.count": arg("count"), "order.amount": lambda amount: amount}


def tables(effort: Effort) -> Iterator[Table]:
    """Measure a table for each kind of callable."""
    # A full queue would be logged; the cases keep it from filling.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    for kind in KINDS:
        if effort.wants(kind.title):
            baseline = BY_HAND if kind.spans_for_each else PLAIN
            yield measure(kind.title, list(_cases(kind)), baseline, _targets(kind), rounds=effort.turns(100, 15))


def _targets(kind: Kind) -> tuple[Target, ...]:
    if kind in {ITEM, ASYNC_ITEM}:
        return _OF_ITEMS
    return () if kind.is_generator else _OF_CALLS


def _cases(kind: Kind) -> Iterator[Case]:
    # Wrapped once for each case: what a wrapper remembers must not be another provider's each round.
    def case(name: str, func: Callable[..., Any]) -> Case:
        return Case(name, partial(kind.repeat, func))

    def recorded(name: str, func: Callable[..., Any], provider: TracerProvider) -> Case:
        most = MOST_SPANS if kind.spans_for_each else None
        return Case(name, partial(kind.repeat, func), partial(made_by, provider), provider.force_flush, most)

    def unsampled(name: str, func: Callable[..., Any], within: Callable[[], Any]) -> Case:
        return Case(name, partial(kind.repeat, func), within)

    func = kind.func
    sdk, own = stock(), engine()
    yield case(PLAIN, func)
    yield case(CLOSURE, kind.close(func))
    yield recorded(BY_HAND, kind.write(sdk.get_tracer("benchmarks")), sdk)
    if not kind.is_generator:
        yield recorded(RAW, sdk.get_tracer("benchmarks").start_as_current_span("calls.raw")(func), sdk)
    yield recorded(TRACED, traced(func), own)
    yield recorded(BARE, traced(capture=False)(func), own)
    yield recorded(EXTRACTORS, traced(attributes=_EXTRACTORS)(func), own)
    yield recorded(OVER_SDK, traced(func), sdk)
    yield recorded(EXTRACTORS_OVER_SDK, traced(attributes=_EXTRACTORS)(func), sdk)

    sdk_out, own_out = stock(0), engine(0)
    by_hand = kind.write(sdk_out.get_tracer("benchmarks"))
    yield unsampled(BY_HAND_ROOT, by_hand, partial(made_by, sdk_out))
    yield unsampled(TRACED_ROOT, traced(func), partial(made_by, own_out))
    yield unsampled(BY_HAND_BELOW, by_hand, partial(_below_by_hand, sdk_out))
    yield unsampled(TRACED_BELOW, traced(func), partial(_below_traced, own_out))

    yield case(BY_HAND_OFF, kind.write(trace.get_tracer("benchmarks")))
    if not kind.is_generator:
        yield case(RAW_OFF, trace.get_tracer("benchmarks").start_as_current_span("calls.raw")(func))
    yield case(TRACED_OFF, traced(func))


@contextmanager
def _below_by_hand(provider: TracerProvider) -> Generator[None]:
    with provider.get_tracer("benchmarks").start_as_current_span("calls.parent"):
        yield


@contextmanager
def _below_traced(provider: TracerProvider) -> Generator[None]:
    with ExitStack() as stack:
        stack.enter_context(made_by(provider))
        stack.enter_context(traced_block("calls.parent"))
        yield
