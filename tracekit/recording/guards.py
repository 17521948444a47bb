"""Keeping failures of plugged-in parts (samplers, id generators, processors) from the code that makes spans."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import TraceFlags

from tracekit._diagnostics import FORGIVEN, forgive, report_failure
from tracekit._fork import in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanContext, SpanKind, TraceState
    from opentelemetry.util.types import Attributes

    from tracekit._stats import Counters

_IDS_DRAWN: Final = 512
_LOW_64_BITS: Final = (1 << 64) - 1


def guarded(part: object, method: str) -> Callable[..., None]:
    """
    Return *part*'s *method* as a function that keeps its failures to itself.

    Except that there was no room on the stack to call it at all, so that it may be called again. Of parts that say
    `is_whole_or_not_at_all` every RecursionError means that.
    """
    call: Callable[..., object] = getattr(part, method)
    is_whole = getattr(part, "is_whole_or_not_at_all", False)

    def run(*args: object) -> None:
        try:
            call(*args)
        except RecursionError as error:
            trace = error.__traceback__
            if is_whole or (trace is not None and trace.tb_next is None):
                raise
            forgive(type(part).__name__, method, error)
        except FORGIVEN as error:
            forgive(type(part).__name__, method, error)

    return run


@final
class CountedSampler(Sampler):
    """
    Asks *sampler*, counts the spans it leaves out, and leaves out those it fails on.

    Args:
        sampler: Any sampler.
        counters: Where `not_sampled` is counted; `sampled` is counted when a span has started.
    """

    def __init__(self, sampler: Sampler, counters: Counters) -> None:
        self._sampler = sampler
        self._counters = counters
        self.reads_operation_ratio: Final = getattr(sampler, "reads_operation_ratio", False)
        self.follows_local_parent: Final[bool] = getattr(sampler, "follows_local_parent", False)
        self.follows_remote_parent: Final[bool] = getattr(sampler, "follows_remote_parent", False)
        self.root_bound: Final[int | None] = getattr(sampler, "root_bound", None)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,  # noqa: ARG002  # the SDK's signature
    ) -> SamplingResult:
        """Decide as *sampler* does."""
        try:
            result = self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)
            sampled = result.decision is Decision.RECORD_AND_SAMPLE
        except FORGIVEN as error:
            forgive(type(self._sampler).__name__, "should_sample", error)
            result, sampled = SamplingResult(Decision.DROP), False
        if not sampled:
            next(self._counters.not_sampled)
        return result

    def known_decision(self, parent: SpanContext | None, trace_id: int) -> bool | None:
        """Return whether a span below *parent* (None: the first of its trace) is sampled; None: the sampler knows."""
        if parent is None:
            return None if self.root_bound is None else (trace_id & _LOW_64_BITS) < self.root_bound
        follows = self.follows_remote_parent if parent[2] else self.follows_local_parent
        return bool(parent[3] & TraceFlags.SAMPLED) if follows else None

    def leave_out(self) -> None:
        """Count a span that was left out without asking."""
        next(self._counters.not_sampled)

    def get_description(self) -> str:
        """Describe *sampler*."""
        return self._sampler.get_description()


@final
class EntropyIdGenerator(IdGenerator):
    """Ids from the operating system: a program's `random.seed()` or a fork cannot make two traces share one."""

    def __init__(self) -> None:
        self._forget()
        in_forked_child(self._forget)

    def _forget(self) -> None:
        # Drawn ahead: asking the operating system each time takes 0.5 µs. `next` of an array's iterator is atomic.
        self.drawn = iter(array("Q"))

    def generate_span_id(self) -> int:
        """Return 64 random bits."""
        return next(self.drawn, 0) or self.draw()

    def generate_trace_id(self) -> int:
        """Return 128 random bits."""
        return self.generate_span_id() << 64 | self.generate_span_id()

    def draw(self) -> int:
        """Draw more, and return the first of them."""
        drawn = iter(array("Q", os.urandom(8 * _IDS_DRAWN)))
        self.drawn = drawn
        return next(drawn, 0) or 1

    def is_trace_id_random(self) -> bool:
        """Tell that it is."""
        return True


@final
class GuardedIdGenerator(IdGenerator):
    """Asks *generator*; where it fails or answers with no legal id, the id comes from the operating system."""

    def __init__(self, generator: IdGenerator) -> None:
        self._generator = generator
        self._fallback = EntropyIdGenerator()

    def generate_span_id(self) -> int:
        """Return a legal span id."""
        return self._legal("generate_span_id", 64) or self._fallback.generate_span_id()

    def generate_trace_id(self) -> int:
        """Return a legal trace id."""
        return self._legal("generate_trace_id", 128) or self._fallback.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """Tell whether *generator* says so."""
        try:
            return bool(self._generator.is_trace_id_random())
        except FORGIVEN as error:
            forgive(type(self._generator).__name__, "is_trace_id_random", error)
            return False

    def _legal(self, method: str, bits: int) -> int | None:
        try:
            made: object = getattr(self._generator, method)()
        except FORGIVEN as error:
            forgive(type(self._generator).__name__, method, error)
            return None
        if isinstance(made, int) and 0 < made < 1 << bits:
            return made
        report_failure(type(self._generator).__name__, method)
        return None
