"""A ratio of traces: what counts as one, which trace ids it keeps, and how one operation asks for its own."""

from __future__ import annotations

import random
import reprlib
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import create_key, set_value
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, get_current_span

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from tracekit.errors import TracekitError

OPERATION_RATIO_KEY: Final = create_key("tracekit-operation-ratio")

_LOW_64_BITS: Final = (1 << 64) - 1

# From the operating system: neither a program's `random.seed()` nor a fork makes two processes draw alike.
_from_system: Final = random.SystemRandom()
_draw: Final = _from_system.random


def number_of(value: object) -> float | None:
    """Return *value* as a float, None if it is no number; a bool is none."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def ratio_of(value: object, option: str, write: str, error: type[TracekitError]) -> float:
    """
    Return *value* as a ratio from 0 (nothing) to 1 (everything).

    Args:
        value: What the user gave.
        option: What it was given for: "sample", "sample['health.*']".
        write: What the user should write instead: "sample=0.1".
        error: What to raise.

    Raises:
        TracekitError: *value* is no number, or not between 0 and 1.
    """
    number = number_of(value)
    if number is not None and 0 <= number <= 1:
        return number
    msg = f"{option} is {reprlib.repr(value)}, expected a number from 0 (nothing) to 1 (everything). Write {write}."
    raise error(msg)


def samples(ratio: float, trace_id: int) -> bool:
    """
    Tell whether *ratio* keeps the trace *trace_id*: the same answer in every process and in every OpenTelemetry SDK.

    Source: trace SDK specification, TraceIdRatioBased.
    """
    return (trace_id & _LOW_64_BITS) < round(ratio * (_LOW_64_BITS + 1))


def keeps_operation(ratio: float, parent: SpanContext, trace_id: int) -> bool:
    """
    Tell whether an operation with a *ratio* of its own is sampled.

    At the root the trace id decides. Below a sampled parent each call draws anew, so that one trace keeps one in a
    hundred of its iterations rather than all or none. Below a parent that is not sampled nothing is.
    """
    if not parent.is_valid:
        return samples(ratio, trace_id)
    return parent.trace_flags.sampled and _draw() < ratio


def start_operation_span(
    tracer: Tracer, ratio: float, name: str, context: Context | None = None, **options: Any
) -> Span:
    """
    Start the span of an operation that has a *ratio* of its own, as `tracer.start_span` would.

    tracekit's sampler decides with the ratio where it is in charge. Under any other sampler the ratio comes first: what
    it leaves out becomes a span that is not sampled, and so does all below it; on what it keeps that sampler decides.
    """
    if getattr(getattr(tracer, "sampler", None), "reads_operation_ratio", False):
        return tracer.start_span(name, set_value(OPERATION_RATIO_KEY, float(ratio), context), **options)
    parent = get_current_span(context).get_span_context()
    trace_id = parent.trace_id if parent.is_valid else _from_system.getrandbits(128) or 1
    if keeps_operation(ratio, parent, trace_id):
        return tracer.start_span(name, context, **options)
    left_out = SpanContext(
        trace_id,
        _from_system.getrandbits(64) or 1,
        is_remote=False,
        trace_flags=TraceFlags(parent.trace_flags & ~TraceFlags.SAMPLED),
        trace_state=parent.trace_state,
    )
    return NonRecordingSpan(left_out)
