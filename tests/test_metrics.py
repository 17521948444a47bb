"""`configure(metrics=True)`: every call is measured, and nothing is where it is off."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util._once import Once

import tracekit
from tracekit import set_error, traced, traced_block
from tracekit._config import runtime
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from opentelemetry.sdk.metrics.export import HistogramDataPoint, MetricsData, NumberDataPoint
    from otlp_receiver import HttpReceiver, Receiver

DURATION: Final = "tracekit.operation.duration"
ERRORS: Final = "tracekit.operation.errors"


class NotFound(Exception):  # noqa: N818  # an outcome
    """Expected by `find`."""


@traced("shop.order")
def order() -> None: ...


@traced("shop.fail")
def fail(exc: BaseException) -> None:
    raise exc


@traced("shop.find", expected=NotFound)
def find() -> None:
    raise NotFound


def points(data: MetricsData, name: str) -> list[Any]:
    return [
        point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def durations(data: MetricsData) -> list[HistogramDataPoint]:
    return points(data, DURATION)


def errors(data: MetricsData) -> list[NumberDataPoint]:
    return points(data, ERRORS)


def counts(data: MetricsData) -> dict[str, int]:
    """Calls by operation, and `!operation error` for its errors."""
    found = {str((point.attributes or {})["tracekit.operation.name"]): 0 for point in durations(data)}
    for point in durations(data):
        found[str((point.attributes or {})["tracekit.operation.name"])] += point.count
    for number in errors(data):
        attributes = number.attributes or {}
        found[f"!{attributes['tracekit.operation.name']} {attributes['error.type']}"] = int(number.value)
    return found


@pytest.fixture
def users_reader() -> Iterator[InMemoryMetricReader]:
    """What a meter provider is read by that the program has set."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    set_meter_provider(provider)
    yield reader
    provider.shutdown()
    metrics_internal._METER_PROVIDER = None
    metrics_internal._PROXY_METER_PROVIDER = metrics_internal._ProxyMeterProvider()
    metrics_internal._METER_PROVIDER_SET_ONCE = Once()


def measuring(**arguments: Any) -> tracekit.Tracing:
    return tracekit.configure(exporter="memory", metrics=True, **arguments)


def test_calls_are_counted_and_timed_in_seconds() -> None:
    tracing = measuring()
    order()
    order()
    (point,) = durations(tracing.metrics)
    assert point.count == 2
    assert point.explicit_bounds[:3] == (0.005, 0.01, 0.025)
    (scope,) = tracing.metrics.resource_metrics[0].scope_metrics
    assert (scope.scope.name, [(metric.name, metric.unit) for metric in scope.metrics]) == (
        "tracekit",
        [(DURATION, "s")],
    )


def test_a_duration_is_that_of_the_span() -> None:
    tracing = measuring()

    @traced("shop.nap")
    def nap() -> None:
        # Long enough for the difference of two clocks not to matter.
        sum(range(2_000_000))

    nap()
    (point,) = durations(tracing.metrics)
    (span,) = tracing.spans
    assert span.start_time is not None
    assert span.end_time is not None
    assert point.sum == pytest.approx((span.end_time - span.start_time) / 1e9, rel=0.5)


def test_calls_that_are_not_sampled_are_counted_too() -> None:
    tracing = measuring(sample=0.0)
    order()
    with pytest.raises(ValueError, match="x"):
        fail(ValueError("x"))
    assert not tracing.spans
    assert counts(tracing.metrics) == {"shop.order": 1, "shop.fail": 1, "!shop.fail ValueError": 1}


def test_off_is_off() -> None:
    tracing = tracekit.configure(exporter="memory")
    order()
    assert runtime.settings.metrics is None
    with pytest.raises(ConfigurationError, match=re.escape('configure(exporter="memory", metrics=True)')):
        tracing.metrics  # noqa: B018


def test_off_loads_none_of_the_sdks_metrics() -> None:
    program = "import sys, tracekit; tracekit.configure(); print(*sys.modules, sep='\\n')"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "tracekit.configuration.metering" not in ran.stdout.split()


def test_nothing_is_measured_where_the_sdk_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    measuring()
    order()
    assert runtime.settings.metrics is None


@pytest.mark.parametrize(
    "exc",
    [
        *(ValueError("x"), KeyError("x"), KeyboardInterrupt(), SystemExit(1), NotFound()),
        *(SystemExit(0), SystemExit(None), GeneratorExit(), StopIteration(), asyncio.CancelledError()),
    ],
    ids=repr,
)
@pytest.mark.parametrize("expected", [(), (NotFound,)], ids=["", "expected"])
def test_what_is_an_error_on_the_span_is_one_in_the_metrics(exc: BaseException, expected: tuple[type, ...]) -> None:
    tracing = measuring(expected=expected)
    with pytest.raises(type(exc)):
        fail(exc)
    (span,) = tracing.spans
    on_span = (span.attributes or {}).get("error.type")
    assert [(number.attributes or {})["error.type"] for number in errors(tracing.metrics)] == (
        [] if on_span is None else [on_span]
    )
    (point,) = durations(tracing.metrics)
    assert (point.attributes or {}).get("error.type") == on_span


def test_expected_exceptions_of_an_operation_are_no_errors() -> None:
    tracing = measuring()
    with pytest.raises(NotFound):
        find()
    assert counts(tracing.metrics) == {"shop.find": 1}


@pytest.mark.parametrize("sample", [0.0, 1.0])
def test_set_error_is_counted(sample: float) -> None:
    tracing = measuring(sample=sample)

    @traced("shop.check")
    def check() -> None:
        set_error("out of stock")

    check()
    assert counts(tracing.metrics) == {"shop.check": 1, "!shop.check _OTHER": 1}


def test_attributes_are_few() -> None:
    tracing = measuring()

    @traced("shop.buy", attributes={"order.id": lambda order_id: order_id})
    def buy(order_id: int) -> None: ...

    for number in range(3):
        buy(number)
    assert [(point.attributes, point.count) for point in durations(tracing.metrics)] == [
        ({"tracekit.operation.name": "shop.buy"}, 3)
    ]


def test_series_are_bounded_whatever_the_names() -> None:
    tracing = measuring(sample=0.0)
    for number in range(2_100):
        with traced_block(f"shop.order-{number}"):
            pass
    found = durations(tracing.metrics)
    assert len(found) == 2_001
    assert [point.count for point in found if point.attributes == {"otel.metric.overflow": True}] == [100]


async def _coroutine() -> None: ...


def _generator() -> Iterator[int]:
    yield from range(3)


async def _async_generator() -> AsyncIterator[int]:
    yield 1


async def _consume(async_generator: AsyncIterator[int]) -> list[int]:
    return [item async for item in async_generator]


@pytest.mark.parametrize(
    ("func", "run"),
    [
        (lambda: None, lambda _result: None),
        (_coroutine, asyncio.run),
        (_generator, list),
        (_async_generator, lambda result: asyncio.run(_consume(result))),
    ],
    ids=["function", "coroutine function", "generator function", "async generator function"],
)
def test_every_kind_of_callable_is_measured(func: Callable[[], Any], run: Callable[[Any], Any]) -> None:
    tracing = measuring()
    run(traced("shop.work")(func)())
    assert counts(tracing.metrics) == {"shop.work": 1}


def test_a_generator_is_measured_from_its_first_step_to_its_end() -> None:
    tracing = measuring()
    steps = traced("shop.steps")(_generator)()
    next(steps)
    assert not durations(tracing.metrics)
    list(steps)
    assert counts(tracing.metrics) == {"shop.steps": 1}


def test_blocks_are_measured() -> None:
    tracing = measuring()
    with traced_block("shop.pack"):
        pass
    with pytest.raises(ValueError, match="x"), traced_block("shop.pack"):
        raise ValueError("x")  # noqa: EM101
    assert counts(tracing.metrics) == {"shop.pack": 2, "!shop.pack ValueError": 1}


def test_a_measurement_points_to_its_span() -> None:
    tracing = measuring()
    order()
    (point,) = durations(tracing.metrics)
    (span,) = tracing.spans
    assert span.context is not None
    assert [exemplar.span_id for exemplar in point.exemplars] == [span.context.span_id]


def test_the_resource_is_that_of_the_spans() -> None:
    tracing = measuring(service="shop")
    order()
    assert tracing.metrics.resource_metrics[0].resource == tracing.spans[0].resource


def test_the_resource_of_a_provider_of_the_users_is_taken() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    tracing = measuring(provider=provider)
    order()
    assert tracing.metrics.resource_metrics[0].resource == provider.resource


def test_configuring_again_begins_anew() -> None:
    before = measuring()
    order()
    after = measuring()
    order()
    assert (counts(before.metrics), counts(after.metrics)) == ({"shop.order": 1}, {"shop.order": 1})
    tracekit.configure(exporter="memory")
    order()
    assert counts(after.metrics) == {"shop.order": 1}


def test_a_call_under_way_while_configuring_is_counted_afterwards() -> None:
    before = measuring()
    with traced_block("shop.long"):
        after = measuring()
    assert (counts(before.metrics), counts(after.metrics)) == ({}, {"shop.long": 1})


def test_a_call_under_way_while_metrics_are_switched_is_harmless() -> None:
    measuring()
    with traced_block("shop.long"):
        tracekit.configure(exporter="memory")
    with traced_block("shop.long"):
        tracing = measuring()
    assert counts(tracing.metrics) == {}


def test_a_meter_provider_of_the_users_is_taken(users_reader: InMemoryMetricReader) -> None:
    tracing = measuring()
    order()
    measuring()
    order()
    data = users_reader.get_metrics_data()
    assert data is not None
    assert counts(data) == {"shop.order": 2}
    tracing.shutdown()
    assert not counts(tracing.metrics)


def test_a_failing_meter_provider_does_not_reach_the_caller(
    users_reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(MeterProvider, "get_meter", refuse)
    tracing = measuring()
    order()
    order()
    assert [span.name for span in tracing.spans] == ["shop.order", "shop.order"]
    (said,) = [record.getMessage() for record in caplog.records if "measuring" in record.getMessage()]
    assert said.startswith("tracekit: shop.order: measuring failed (OSError); the program goes on")


def test_metrics_go_where_spans_go(otlp: Receiver) -> None:
    protocol = "grpc" if type(otlp).__name__.startswith("Grpc") else "http/protobuf"
    tracing = tracekit.configure(
        service="shop", endpoint=otlp.endpoint, protocol=protocol, headers={"x-tenant": "7"}, metrics=True
    )
    order()
    with pytest.raises(ValueError, match="x"):
        fail(ValueError("x"))
    assert tracing.flush()
    (request,) = otlp.metrics
    assert request.points() == {
        (DURATION, ("shop.order",)): 1,
        (DURATION, ("shop.fail", "ValueError")): 1,
        (ERRORS, ("shop.fail", "ValueError")): 1,
    }
    assert request.headers["x-tenant"] == "7"
    assert request.resource["service.name"] == "shop"
    order()
    assert tracing.shutdown()
    assert otlp.metrics[-1].points()[DURATION, ("shop.order",)] == 2


def test_metrics_may_have_a_receiver_of_their_own(
    otlp_http: HttpReceiver, monkeypatch: pytest.MonkeyPatch, unused_endpoint: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{otlp_http.endpoint}/v1/metrics")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    tracing = tracekit.configure(
        exporter="memory", endpoint=unused_endpoint, protocol="grpc", headers={"x-key": "secret"}, metrics=True
    )
    order()
    assert tracing.flush()
    (request,) = otlp_http.metrics
    assert "x-key" not in request.headers


@pytest.fixture
def unused_endpoint() -> str:
    return "http://127.0.0.1:9"


def test_flush_says_if_metrics_were_not_delivered(unused_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    tracing = tracekit.configure(
        exporter="memory", endpoint=unused_endpoint, protocol="http/protobuf", timeout_s=0.1, metrics=True
    )
    order()
    assert not tracing.flush()
    assert not tracing.shutdown()


def test_beside_the_tree_stands_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    tracing = tracekit.configure(exporter="console", metrics=True)
    order()
    with pytest.raises(ValueError, match="x"):
        fail(ValueError("x"))
    tracing.flush()
    tracing.shutdown()
    table = re.sub(r" +\d[\d.]*[µm]?s", " DURATION", capsys.readouterr().err)
    assert table.count("Operation ") == 1
    assert "shop.order        1        0 DURATION DURATION\n" in table
    assert "shop.fail         1        1 DURATION DURATION\n" in table


def test_spans_only_exporters_say_that_metrics_stay(caplog: pytest.LogCaptureFixture, tmp_path: Any) -> None:
    tracekit.configure(exporter=f"file:{tmp_path}/spans.jsonl", metrics=True)
    order()
    assert "no metrics leave the process" in caplog.text


@pytest.mark.parametrize("arguments", [{"exporter": "none"}, {"exporter": "memory"}])
def test_a_place_that_is_known_or_wanted_is_no_warning(
    arguments: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    tracekit.configure(metrics=True, **arguments)
    order()
    assert not caplog.records


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_METRICS_EXPORTER", "carrier-pigeon"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "soon"),
    ],
)
def test_variable_that_cannot_be_read_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        tracekit.configure(exporter="console", metrics=True)


FORKING: Final = """
import os, sys, tracekit
tracing = tracekit.configure(endpoint=sys.argv[1], metrics=True)

@tracekit.traced("shop.order")
def order(): ...

order()
order()
child = os.fork()
order()
tracing.shutdown()
if not child:
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_measures_its_own_calls_only(otlp_http: HttpReceiver) -> None:
    command = [sys.executable, "-c", FORKING, otlp_http.endpoint]
    # The interval: the child's copy of the parent's reader has its chance to export.
    subprocess.run(command, check=True, timeout=30, env={**os.environ, "OTEL_METRIC_EXPORT_INTERVAL": "20"})
    last = {request.resource["process.pid"]: request for request in otlp_http.metrics}
    assert sorted(request.points()[DURATION, ("shop.order",)] for request in last.values()) == [1, 3]
