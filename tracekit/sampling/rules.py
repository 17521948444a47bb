"""Rules that choose a ratio by the name and the attributes a trace starts with."""

from __future__ import annotations

import fnmatch
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast, final

from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from typing_extensions import override

from tracekit._ratio import ratio_of
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.sampling import SamplingResult
    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes

# Span names are few; the bound only guards against names made at run time.
_MAX_REMEMBERED: Final = 1_000


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    The traces that start with such a span, and what share of them to sample.

    Args:
        ratio: From 0 (none) to 1 (all), or a sampler: `RateLimited(5)`.
        name: Pattern of the span name (`*`, `?`, `[...]`; upper and lower case differ).
        attributes: Attributes the span must have at its start, where only the fixed ones are known. A string is a
            pattern as *name* is; any other value must be equal.

    Raises:
        ConfigurationError: One of them is of another type, or *ratio* is not between 0 and 1.
    """

    ratio: float | Sampler
    name: str = "*"
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        # Users without a type checker give anything.
        name = cast("object", self.name)
        attributes = cast("object", self.attributes)
        if not isinstance(name, str):
            msg = f"sample: a span name's pattern is {reprlib.repr(name)}, expected a str. Write 'health.*'."
            raise ConfigurationError(msg)
        if not isinstance(attributes, Mapping):
            msg = (
                f"Rule(name={name!r}): attributes is {reprlib.repr(attributes)}, expected a mapping. "
                "Write attributes={'http.route': '/health'}."
            )
            raise ConfigurationError(msg)
        if not isinstance(self.ratio, Sampler):
            ratio_of(self.ratio, f"sample: the ratio of {name!r}", f"{{{name!r}: 0.1}}", ConfigurationError)


@final
class RuleBased(ParentBased):
    """
    Samples new traces by the first rule that matches their first span; spans with a parent follow it.

    Traces that no rule matches are all sampled.

    Args:
        rules: Asked in this order.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        super().__init__(root=_FirstMatch(rules))

    @override
    def get_description(self) -> str:
        return self._root.get_description()


@final
class _FirstMatch(Sampler):
    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple((rule, re.compile(fnmatch.translate(rule.name)), _sampler_of(rule)) for rule in rules)
        self._by_name: dict[str, tuple[tuple[Mapping[str, object], Sampler], ...]] = {}

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
        candidates = self._by_name.get(name)
        if candidates is None:
            candidates = self._match(name)
        sampler = next((sampler for wanted, sampler in candidates if _has(attributes, wanted)), ALWAYS_ON)
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)

    @override
    def get_description(self) -> str:
        rules = (f"{rule.name}: {sampler.get_description()}" for rule, _, sampler in self._rules)
        return f"RuleBased{{{', '.join(rules)}}}"

    def _match(self, name: str) -> tuple[tuple[Mapping[str, object], Sampler], ...]:
        matching = tuple((rule.attributes, sampler) for rule, pattern, sampler in self._rules if pattern.match(name))
        if len(self._by_name) < _MAX_REMEMBERED:
            self._by_name[name] = matching
        return matching


def _sampler_of(rule: Rule) -> Sampler:
    return rule.ratio if isinstance(rule.ratio, Sampler) else TraceIdRatioBased(rule.ratio)


def _has(attributes: Attributes, wanted: Mapping[str, object]) -> bool:
    given = attributes or {}
    return all(key in given and _is_like(given[key], value) for key, value in wanted.items())


def _is_like(value: object, wanted: object) -> bool:
    if isinstance(wanted, str):
        return isinstance(value, str) and fnmatch.fnmatchcase(value, wanted)
    return value == wanted
