"""The decision at a span's start, made of what the user gave."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import get_current_span
from typing_extensions import override

from tracekit._diagnostics import report_failure
from tracekit._environment import Environment
from tracekit._ratio import OPERATION_RATIO_KEY, keeps_operation, number_of, ratio_of
from tracekit.errors import ConfigurationError
from tracekit.sampling.environment import sampler_from_environment
from tracekit.sampling.rules import Rule, RuleBased

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanContext, SpanKind, TraceState
    from opentelemetry.util.types import Attributes

_ALL_TRACES: Final = 1 << 64

Sample: TypeAlias = "float | Sampler | Mapping[str, float | Sampler] | Sequence[Rule]"


def sampler_from(
    sample: Sample | None, *, record_dropped: bool = False, variables: Environment | None = None
) -> HeadSampler:
    """
    Return the sampler that *sample*, or else the environment, asks for.

    Args:
        sample: A ratio of new traces (spans with a parent follow it); a sampler, used as it is; span-name patterns and
            their ratios, or rules, of which the first that matches a trace's first span decides; None: as
            `OTEL_TRACES_SAMPLER` says.
        record_dropped: Record, without sampling, what would be left out: a `TailBuffer` decides on it later.
        variables: The environment (None: the process's).

    Raises:
        ConfigurationError: *sample* or a variable is none of these.
    """
    sampler = sampler_from_environment(variables or Environment()) if sample is None else _chosen(sample)
    return HeadSampler(sampler, record_dropped=record_dropped)


def _chosen(sample: object) -> Sampler:
    given = sample
    if isinstance(sample, Sampler):
        return sample
    if number_of(sample) is not None:
        return ParentBasedTraceIdRatio(ratio_of(sample, "sample", "sample=0.1", ConfigurationError))
    rules: tuple[object, ...] = ()
    if isinstance(sample, Mapping):
        ratios = cast("Mapping[str, float | Sampler]", sample)
        rules = tuple(Rule(name=name, ratio=ratio) for name, ratio in ratios.items())
    elif isinstance(sample, Sequence):
        rules = tuple(cast("Sequence[object]", sample))
    chosen = [rule for rule in rules if isinstance(rule, Rule)]
    if not chosen or len(chosen) < len(rules):
        msg = (
            f"sample is {reprlib.repr(given)}, expected a ratio from 0 to 1, a Sampler, a mapping of span-name "
            "patterns to ratios, or a list of Rule. Write sample=0.1 or sample={'health.*': 0, '*': 0.1}."
        )
        raise ConfigurationError(msg)
    return RuleBased(chosen)


@final
class HeadSampler(Sampler):
    """
    Asks *sampler*, except where an operation has a ratio of its own; never raises.

    Where *sampler* fails, a span follows its parent, and a new trace is left out.

    Args:
        sampler: Any sampler.
        record_dropped: Record, without sampling, what would be left out.
    """

    # Read by `start_operation_span`.
    reads_operation_ratio: Final = True

    def __init__(self, sampler: Sampler, *, record_dropped: bool = False) -> None:
        self._given = sampler
        self._sampler = _keeping_subtrees_whole(sampler)
        self._record_dropped = record_dropped
        # Spans with a local parent need not be asked about: they are what it is.
        self.follows_local_parent: Final = not record_dropped and _follows_local_parent(self._sampler)
        self.follows_remote_parent: Final = self.follows_local_parent and _follows_remote_parent(self._sampler)
        # And a new trace need not be either, where the low half of its id says it: sampled if below this.
        self.root_bound: Final = _root_bound(self._sampler) if self.follows_local_parent else None

    @override
    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,  # the SDK's signature
    ) -> SamplingResult:
        ratio = parent_context.get(OPERATION_RATIO_KEY) if parent_context else None
        if isinstance(ratio, float):
            parent = get_current_span(parent_context).get_span_context()
            result = _result(parent, attributes, sampled=keeps_operation(ratio, parent, trace_id))
        else:
            try:
                result = self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)
                if result.decision is not Decision.DROP:
                    return result
            except Exception as error:  # noqa: BLE001  # the user's sampler
                report_failure(type(self._given).__name__, "should_sample", error)
                parent = get_current_span(parent_context).get_span_context()
                result = _result(parent, attributes, sampled=parent.trace_flags.sampled)
        if self._record_dropped and result.decision is Decision.DROP:
            # Samplers leave the attributes out of what they drop.
            return SamplingResult(Decision.RECORD_ONLY, attributes, result.trace_state)
        return result

    @override
    def get_description(self) -> str:
        try:
            return self._given.get_description()
        except Exception as error:  # noqa: BLE001  # the user's sampler
            report_failure(type(self._given).__name__, "get_description", error)
            return type(self._given).__name__


def _result(parent: SpanContext, attributes: Attributes, *, sampled: bool) -> SamplingResult:
    return SamplingResult(
        Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP,
        attributes if sampled else None,
        parent.trace_state if parent.is_valid else None,
    )


def _follows_local_parent(sampler: Sampler) -> bool:
    return (
        isinstance(sampler, ParentBased)
        and type(sampler).should_sample is ParentBased.should_sample
        and getattr(sampler, "_local_parent_sampled", None) is ALWAYS_ON
        and getattr(sampler, "_local_parent_not_sampled", None) is ALWAYS_OFF
    )


def _follows_remote_parent(sampler: Sampler) -> bool:
    return (
        getattr(sampler, "_remote_parent_sampled", None) is ALWAYS_ON
        and getattr(sampler, "_remote_parent_not_sampled", None) is ALWAYS_OFF
    )


def _root_bound(sampler: Sampler) -> int | None:
    root: object = getattr(sampler, "_root", None)
    if isinstance(root, TraceIdRatioBased) and type(root) is TraceIdRatioBased:
        return root.bound
    return _ALL_TRACES if root is ALWAYS_ON else 0 if root is ALWAYS_OFF else None


def _keeping_subtrees_whole(sampler: Sampler) -> Sampler:
    """
    Let spans with a local parent follow it, where *sampler* would decide for each span on its own.

    For a trace id all of its decisions are the same, so this changes nothing, except below an operation that was
    kept or left out by its own ratio.
    """
    if sampler in (ALWAYS_ON, ALWAYS_OFF) or type(sampler) is TraceIdRatioBased:
        return ParentBased(root=sampler, remote_parent_sampled=sampler, remote_parent_not_sampled=sampler)
    return sampler
