"""Which spans are recorded and sampled: decided at a trace's start (head), or once it is known how it went (tail)."""

from __future__ import annotations

from tracekit._ratio import samples
from tracekit.sampling.environment import sampler_from_environment
from tracekit.sampling.head import HeadSampler, sampler_from
from tracekit.sampling.rate import RateLimited
from tracekit.sampling.rules import Rule, RuleBased
from tracekit.sampling.tail import TailBuffer, TailPolicy

__all__ = [
    "HeadSampler",
    "RateLimited",
    "Rule",
    "RuleBased",
    "TailBuffer",
    "TailPolicy",
    "sampler_from",
    "sampler_from_environment",
    "samples",
]
