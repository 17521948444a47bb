"""What holding a trace back costs: a trace of ten spans, left out, sampled, or held back and then dropped or kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode, set_span_in_context

from benchmarks.harness import Case, Effort, measure
from benchmarks.providers import Discard
from tracekit._stats import Counters
from tracekit.sampling import TailBuffer, TailPolicy, sampler_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.trace import Tracer

    from benchmarks.tables import Table

SPANS: Final = 10
# Below the size of an export batch: the processor's thread stays asleep while a round is measured.
MOST_TRACES: Final = 40

_NOTHING: Final = Context()
_ERROR: Final = Status(StatusCode.ERROR)


def tables(effort: Effort) -> Iterator[Table]:
    """Measure what is compared."""
    title = f"a trace of {SPANS} spans"
    if not effort.wants(title):
        return
    cases = [
        _case("left out", sample=0),
        _case("sampled", sample=1),
        _case("held back, dropped", sample=0, keep_errors=True),
        _case("held back, kept", sample=0, keep_errors=True, fails=True),
        _case("sampled, beside a tail buffer", sample=1, keep_errors=True),
    ]
    yield measure(title, cases, "sampled", rounds=effort.turns(100, 15))


def _case(name: str, *, sample: float, keep_errors: bool = False, fails: bool = False) -> Case:
    batch = BatchSpanProcessor(Discard(), schedule_delay_millis=3_600_000)
    provider = TracerProvider(sampler=sampler_from(sample, record_dropped=keep_errors), shutdown_on_exit=False)
    policy = TailPolicy(keep_errors=keep_errors)
    provider.add_span_processor(TailBuffer(policy, [batch], Counters()) if policy else batch)
    run = _traces(provider.get_tracer("benchmarks"), fails=fails)
    return Case(name, run, between=batch.force_flush, most=MOST_TRACES if name != "left out" else None)


def _traces(tracer: Tracer, *, fails: bool) -> Callable[[int], Any]:
    def run(times: int) -> None:
        for _ in range(times):
            root = tracer.start_span("root", _NOTHING)
            context = set_span_in_context(root, _NOTHING)
            for _ in range(SPANS - 1):
                tracer.start_span("child", context, attributes={"order.id": 7}).end()
            if fails:
                root.set_status(_ERROR)
            root.end()

    return run
