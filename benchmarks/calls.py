"""
What one call costs: plain, in an empty closure, with `@traced`, by hand as a guide shows it, with the raw decorator.

Recorded is with a batch processor and an exporter that discards; nothing is exported while it is measured, for the
queue is emptied between the rounds. "By hand" is always on the SDK's own provider.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager, nullcontext
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
BY_HAND_ROOT: Final = "sampled-out root, by hand"
TRACED_ROOT: Final = "sampled-out root, @traced"
BY_HAND_BELOW: Final = "below an unsampled parent, by hand"
TRACED_BELOW: Final = "below an unsampled parent, @traced"
BY_HAND_OFF: Final = "no provider, by hand"
RAW_OFF: Final = "no provider, raw decorator"
TRACED_OFF: Final = "no provider, @traced"

_EXTRACTORS: Final[dict[str, Any]] = {"order.count": arg("count"), "order.amount": lambda amount: amount}


def tables(effort: Effort) -> Iterator[Table]:
    """
    Measure three tables for each kind of callable.

    Apart, because a process has one provider: the interpreter adapts its code to the one kind of span that it meets.
    """
    # A full queue would be logged; the cases keep it from filling.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    rounds = effort.turns(70, 12)
    for kind in KINDS:
        recorded = BY_HAND if kind.spans_for_each else PLAIN
        left_out = BY_HAND_ROOT if kind.spans_for_each else PLAIN
        if effort.wants(kind.title):
            yield measure(kind.title, list(_recorded(kind)), recorded, _targets(kind, _RECORDED), rounds=rounds)
        if effort.wants(title := f"{kind.title}, over the SDK's provider"):
            yield measure(title, list(_over_sdk(kind)), recorded, _targets(kind, _OVER_SDK), rounds=rounds)
        if effort.wants(title := f"{kind.title}, not recorded"):
            yield measure(title, list(_left_out(kind)), left_out, _targets(kind, _LEFT_OUT), rounds=rounds)


_RECORDED: Final = (Target(EXTRACTORS, BY_HAND, 0.12), Target(BARE, RAW, 0.15), Target(TRACED, BY_HAND, 0.13))
_OVER_SDK: Final = (Target(TRACED, BY_HAND, 0.75), Target(EXTRACTORS, BY_HAND, 0.75))
_LEFT_OUT: Final = (
    Target(TRACED_ROOT, BY_HAND_ROOT, 0.12),
    Target(TRACED_BELOW, BY_HAND_BELOW, 0.06),
    Target(TRACED_OFF, CLOSURE, 2.5),
    Target(TRACED_OFF, RAW_OFF, 0.08),
)
_OF_ITEMS: Final = (Target(TRACED, PLAIN, 0.6, by="more"),)


def _targets(kind: Kind, of_calls: tuple[Target, ...]) -> tuple[Target, ...]:
    if kind in {ITEM, ASYNC_ITEM}:
        return _OF_ITEMS
    return () if kind.is_generator else of_calls


def _recorded(kind: Kind) -> Iterator[Case]:
    own = engine()
    yield from _plain(kind)
    yield from _stock(kind)
    # Wrapped once for each case: what a wrapper remembers must not be another provider's each round.
    yield _recorded_case(kind, TRACED, traced(kind.func), own)
    yield _recorded_case(kind, BARE, traced(capture=False)(kind.func), own)
    yield _recorded_case(kind, EXTRACTORS, traced(attributes=_EXTRACTORS)(kind.func), own)


def _over_sdk(kind: Kind) -> Iterator[Case]:
    sdk = stock()
    yield from _plain(kind)
    yield from _stock(kind)
    yield _recorded_case(kind, TRACED, traced(kind.func), sdk)
    yield _recorded_case(kind, BARE, traced(capture=False)(kind.func), sdk)
    yield _recorded_case(kind, EXTRACTORS, traced(attributes=_EXTRACTORS)(kind.func), sdk)


def _left_out(kind: Kind) -> Iterator[Case]:
    def case(name: str, func: Callable[..., Any], within: Callable[[], Any] = nullcontext) -> Case:
        return Case(name, partial(kind.repeat, func), within)

    func = kind.func
    sdk, own = stock(0), engine(0)
    by_hand = kind.write(sdk.get_tracer("benchmarks"))
    yield from _plain(kind)
    yield case(BY_HAND_ROOT, by_hand)
    yield case(TRACED_ROOT, traced(func), partial(made_by, own))
    yield case(BY_HAND_BELOW, by_hand, partial(_below_by_hand, sdk))
    yield case(TRACED_BELOW, traced(func), partial(_below_traced, own))
    yield case(BY_HAND_OFF, kind.write(trace.get_tracer("benchmarks")))
    if not kind.is_generator:
        yield case(RAW_OFF, trace.get_tracer("benchmarks").start_as_current_span("calls.raw")(func))
    yield case(TRACED_OFF, traced(func))


def _plain(kind: Kind) -> Iterator[Case]:
    yield Case(PLAIN, partial(kind.repeat, kind.func))
    yield Case(CLOSURE, partial(kind.repeat, kind.close(kind.func)))


def _stock(kind: Kind) -> Iterator[Case]:
    sdk = stock()
    tracer = sdk.get_tracer("benchmarks")
    yield _recorded_case(kind, BY_HAND, kind.write(tracer), sdk)
    if not kind.is_generator:
        yield _recorded_case(kind, RAW, tracer.start_as_current_span("calls.raw")(kind.func), sdk)


def _recorded_case(kind: Kind, name: str, func: Callable[..., Any], provider: TracerProvider) -> Case:
    most = MOST_SPANS if kind.spans_for_each else None
    return Case(name, partial(kind.repeat, func), partial(made_by, provider), provider.force_flush, most)


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
