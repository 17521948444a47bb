"""`configure()`: what each argument and variable does, what is refused, and that a pipeline can be swapped in use."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import propagate
from opentelemetry import trace as trace_api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from otlp_receiver import GrpcReceiver

import tracekit
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otlp_receiver import Receiver


@tracekit.traced("shop.order")
def order(amount: int = 1) -> int:
    return amount


def names(tracing: tracekit.Tracing) -> list[str]:
    return [span.name for span in tracing.spans]


# Exporters


def test_memory_keeps_spans_for_the_next_line() -> None:
    tracing = tracekit.configure(exporter="memory")
    order()
    assert names(tracing) == ["shop.order"]


def test_spans_without_memory_say_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match=re.escape('configure(exporter="memory")')):
        _ = tracekit.configure(exporter="none").spans


def test_auto_prints_the_tree_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    tracekit.configure()
    order()
    assert "shop.order" in capsys.readouterr().err


def test_none_makes_spans_for_nobody() -> None:
    tracing = tracekit.configure(exporter="none")
    order()
    assert tracing.flush()
    assert tracing.stats.started == tracing.stats.sampled == 1


def test_list_serves_every_exporter(tmp_path: Path) -> None:
    memory, path = InMemorySpanExporter(), tmp_path / "traces.jsonl"
    tracing = tracekit.configure(exporter=[memory, SimpleSpanProcessor(InMemorySpanExporter()), f"file:{path}"])
    order()
    assert tracing.flush()
    assert [span.name for span in memory.get_finished_spans()] == names(tracing) == ["shop.order"]
    assert "shop.order" in path.read_text()


def test_exporter_variable_chooses_for_auto(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "memory, none")
    tracing = tracekit.configure()
    order()
    assert names(tracing) == ["shop.order"]
    assert not capsys.readouterr().err
    tracekit.configure(exporter="console")
    order()
    assert "shop.order" in capsys.readouterr().err


def test_endpoint_makes_auto_send_over_otlp(otlp: Receiver) -> None:
    protocol = "grpc" if isinstance(otlp, GrpcReceiver) else "http/protobuf"
    tracing = tracekit.configure(service="orders", endpoint=otlp.endpoint, protocol=protocol)
    order()
    assert tracing.flush()
    assert otlp.one("shop.order").resource["service.name"] == "orders"
    assert otlp.endpoint.partition("://")[2] in repr(tracing)
    assert tracing.stats.exported == 1


def test_endpoint_variable_makes_auto_send_over_otlp(otlp_http: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp_http.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    tracing = tracekit.configure()
    order()
    assert tracing.shutdown()
    assert otlp_http.one("shop.order")


def test_endpoint_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.collector.trace.v1.trace_service_pb2", None)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'tracekit[otlp]'")):
        tracekit.configure(endpoint="http://localhost:4318")


def test_receiver_that_is_gone_costs_its_spans_and_says_so(otlp_http: Receiver) -> None:
    otlp_http.close()
    tracing = tracekit.configure(endpoint=otlp_http.endpoint, protocol="http/protobuf", timeout_s=0.2)
    order()
    assert tracing.flush(0.5) is False
    assert tracing.shutdown(0.5) is False
    stats = tracing.stats
    assert stats.sampled == 1 == sum(stats.dropped.values())


class Jammed(SpanExporter):
    """Takes spans when told to, not before."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.taken: list[str] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go.wait(30)
        self.taken += [span.name for span in spans]
        return SpanExportResult.SUCCESS


def test_flush_and_shutdown_keep_to_their_time_and_tell_the_truth() -> None:
    jammed = Jammed()
    tracing = tracekit.configure(exporter=[jammed, Jammed(), InMemorySpanExporter()])
    order()
    begun = time.monotonic()
    assert tracing.flush(0.1) is False
    assert tracing.shutdown(0.1) is False
    # Not the sum of all exporters' times, and not the exporter's own.
    assert time.monotonic() - begun < 5
    jammed.go.set()


def test_flush_is_false_when_a_span_was_lost() -> None:
    class Refusing(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.FAILURE

    tracing = tracekit.configure(exporter=Refusing())
    order()
    assert tracing.flush() is False
    assert sum(tracing.stats.dropped.values()) == 1
    assert tracing.flush() is True


def test_context_manager_shuts_down_at_its_end() -> None:
    with tracekit.configure(exporter="memory") as tracing:
        order()
    order()
    assert names(tracing) == ["shop.order"]
    assert tracing.stats.dropped == {"after_shutdown": 1}


# Strictness


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"exporter": "jaeger"}, "auto, otlp, console, file:PATH, memory, none"),
        ({"exporter": 7}, "exporter=7"),
        ({"exporter": []}, "exporter=[]"),
        ({"exporter": "file:"}, "exporter='file:'"),
        ({"exporter": InMemorySpanExporter}, "An instance is expected, not its class"),
        ({"service": 7}, "service=7"),
        ({"service": " "}, "service=' '"),
        ({"version": 1.0}, 'Write version="1.0.0"'),
        ({"environment": ()}, "environment=()"),
        ({"sample": 2}, "from 0"),
        ({"sample": "often"}, "sample"),
        ({"keep_errors": "yes"}, "keep_errors"),
        ({"keep_slower_than_s": -1}, "keep_slower_than_s"),
        ({"capture_arguments": None}, "capture_arguments=None"),
        ({"code_location": 1}, "code_location=1"),
        ({"redact": "password"}, "redact='password'"),
        ({"redact": [re.compile(b"x")]}, "redact="),
        ({"redact": [lambda name: True]}, "redact="),
        ({"expected": ValueError}, "expected=[NotFound]"),
        ({"expected": [int]}, "expected="),
        ({"propagators": ["tracecontext", "pigeon"]}, "'pigeon' is no propagator"),
        ({"propagators": ["ottrace"]}, "pip install opentelemetry-propagator-ot-trace"),
        ({"propagators": "tracecontext"}, "propagators='tracecontext'"),
        ({"propagators": []}, "propagators=[]"),
        ({"instrument": "fastapi"}, "instrument='fastapi'"),
        ({"instrument": ["no-such-library"]}, "no-such-library"),
        ({"provider": trace_api.NoOpTracerProvider()}, "provider="),
        ({"provider": SdkTracerProvider(shutdown_on_exit=False), "sample": 0.1}, "sample=0.1 cannot be changed"),
        ({"provider": SdkTracerProvider(shutdown_on_exit=False), "service": "x"}, "service='x' cannot be changed"),
        ({"id_generator": RandomIdGenerator}, "id_generator="),
        ({"spool": 7}, "spool=7: expected True or the path of a directory"),
        ({"spool": "/dev/null/x", "exporter": "otlp"}, "spool='/dev/null/x': spans cannot be kept there"),
        ({"spool": "/x/spool", "exporter": "memory"}, "spool='/x/spool': expected an exporter over OTLP"),
        (
            {"spool": "/x/spool", "endpoint": "http://a", "exporter": "console"},
            "spool='/x/spool': expected an exporter",
        ),
        (
            {"protocol": "grpc", "exporter": "none"},
            'Write endpoint="http://localhost:4318" or exporter="otlp" too, or leave it out.',
        ),
        ({"headers": {"x-api-key": "k"}, "exporter": "none"}, "headers=...: expected an exporter over OTLP"),
        ({"compression": "gzip", "exporter": "none"}, "compression='gzip': expected an exporter over OTLP"),
        ({"insecure": False, "exporter": "memory"}, "insecure=False: expected an exporter over OTLP"),
        ({"protocol": "http"}, "expected grpc or http/protobuf"),
        ({"protocol": "http", "endpoint": "http://a", "exporter": "memory"}, "expected grpc or http/protobuf"),
        ({"headers": ["x-api-key"]}, "expected a mapping"),
        ({"compression": "zstd"}, 'expected "gzip" or "none"'),
        ({"metrics": "yes"}, "metrics='yes': expected True or False"),
    ],
)
def test_wrong_argument_is_refused_and_the_earlier_pipeline_goes_on(arguments: dict[str, Any], says: str) -> None:
    before = tracekit.configure(exporter="memory")
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        tracekit.configure(**arguments)
    order()
    assert names(before) == ["shop.order"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_SDK_DISABLED", "1"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_EXPORTER", "otlp,carrier-pigeon"),
        ("OTEL_PROPAGATORS", "tracecontext,pigeon"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=x"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "abc"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "abc"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "1e3"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "1.5"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "unlimited"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "abc"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "abc"),
    ],
)
def test_variable_that_cannot_be_read_is_refused_by_name(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        tracekit.configure(exporter="memory")


@pytest.mark.parametrize("exporter", [None, "none", "console"])
def test_arguments_for_sending_are_no_error_where_no_variable_says_where(
    exporter: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if exporter is not None:
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporter)
    tracekit.configure(spool=tmp_path, protocol="grpc", headers={"x-api-key": "k"}, compression="gzip").shutdown()


def test_variables_for_sending_are_no_error_where_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key")
    tracekit.configure(endpoint="http://localhost:9", timeout_s=1, exporter="memory")


# Settings


def test_sampling_argument_beats_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    tracing = tracekit.configure(exporter="memory")
    order()
    assert (tracing.stats.started, tracing.stats.not_sampled) == (1, 1)
    tracing = tracekit.configure(exporter="memory", sample=1.0)
    order()
    assert (tracing.stats.started, tracing.stats.sampled, tracing.stats.exported) == (1, 1, 1)


def test_ratio_counts_every_span_once() -> None:
    tracing = tracekit.configure(exporter="memory", sample=0.5)
    for _ in range(200):
        order()
    stats = tracing.stats
    assert stats.started == 200 == stats.sampled + stats.not_sampled
    assert 0 < stats.sampled == stats.exported == len(tracing.spans) < 200


def test_kept_errors_are_in_the_books() -> None:
    @tracekit.traced
    def fail() -> None:
        raise KeyError

    tracing = tracekit.configure(exporter="memory", sample=0, keep_errors=True)
    order()
    with pytest.raises(KeyError):
        fail()
    assert (tracing.stats.started, tracing.stats.sampled, tracing.stats.exported) == (2, 1, 1)


def test_disabled_by_variable_makes_nothing_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracing = tracekit.configure(exporter="memory", instrument=["httpx"])
    assert tracing.provider is None
    order()
    assert not tracing.spans
    assert not tracing.stats.started
    assert tracing.flush()
    assert tracing.shutdown()
    assert isinstance(trace_api.get_tracer_provider(), trace_api.ProxyTracerProvider)


def test_disabled_later_stops_what_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tracekit.configure(exporter="memory")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracekit.configure(exporter="memory")
    order()
    assert not before.spans


def test_settings_reach_the_decorated_functions() -> None:
    class NotFoundError(Exception):
        pass

    @tracekit.traced
    def find(amount: int, iban: str, internal_note: str) -> None:
        raise NotFoundError

    def call() -> ReadableSpan:
        with pytest.raises(NotFoundError):
            find(1, "DE1", "x")
        return tracing.spans[-1]

    tracing = tracekit.configure(exporter="memory", redact=["iban", re.compile("^internal_")], expected=[NotFoundError])
    span = call()
    assert span.attributes is not None
    assert (span.attributes["amount"], span.attributes["iban"]) == (1, "[redacted]")
    assert span.attributes["internal_note"] == "[redacted]"
    assert span.status.is_unset
    tracing = tracekit.configure(exporter="memory", capture_arguments=False, code_location=True)
    span = call()
    assert span.attributes is not None
    assert "amount" not in span.attributes
    assert str(span.attributes["code.file.path"]).endswith("test_configuration.py")


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5")
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "2")
    tracing = tracekit.configure(exporter="memory")
    with tracekit.traced_block("shop.pack", {"text": "abcdefgh"}):
        for number in range(5):
            tracekit.add_event(f"event {number}")
    (span,) = tracing.spans
    assert span.attributes is not None
    assert len(str(span.attributes["text"])) == 5
    assert len(span.events) == 2


def test_propagators_are_chosen_and_put_back() -> None:
    before = propagate.get_global_textmap()
    tracekit.configure(exporter="memory", propagators=["baggage"])
    with tracekit.traced_block("shop.pack"):
        assert "traceparent" not in propagate_headers()
    tracekit.configure(exporter="memory")
    assert propagate.get_global_textmap() is before
    with tracekit.traced_block("shop.pack"):
        assert "traceparent" in propagate_headers()


def propagate_headers() -> dict[str, str]:
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def test_repr_shows_settings_and_no_secrets() -> None:
    sending: dict[str, Any] = {"endpoint": "http://localhost:9", "headers": {"api-key": "s3cr3t"}}
    tracing = tracekit.configure(service="orders", exporter="memory", sample=0.25, **sending)
    assert "orders" in repr(tracing)
    assert "memory" in repr(tracing)
    assert "0.25" in repr(tracing)
    assert "s3cr3t" not in repr(tracing)


# Again


def test_tracers_handed_out_before_follow_the_new_pipeline() -> None:
    early = trace_api.get_tracer("library")
    first = tracekit.configure(service="one", exporter="memory")
    early.start_span("a").end()
    second = tracekit.configure(service="two", exporter="memory", sample=ALWAYS_OFF)
    early.start_span("b").end()
    third = tracekit.configure(service="three", exporter="memory")
    early.start_span("c").end()
    order()
    assert [names(tracing) for tracing in (first, second, third)] == [["a"], [], ["c", "shop.order"]]
    assert {span.resource.attributes["service.name"] for span in third.spans} == {"three"}


def test_span_that_outlives_its_pipeline_goes_to_the_next_one_in_the_books_too() -> None:
    first = tracekit.configure(exporter="memory")
    with tracekit.traced_block("shop.pack"):
        second = tracekit.configure(exporter="memory")
    assert not first.spans
    assert names(second) == ["shop.pack"]
    assert (first.stats.started, second.stats.started, second.stats.exported) == (0, 1, 1)


def test_replaced_pipeline_is_flushed_and_shut_down(tmp_path: Path) -> None:
    tracekit.configure(exporter=f"file:{tmp_path / 'traces.jsonl'}")
    order()
    tracekit.configure(exporter="memory")
    assert "shop.order" in (tmp_path / "traces.jsonl").read_text()


def test_configuring_twenty_times_leaves_no_threads(tmp_path: Path) -> None:
    before = threading.active_count()
    for number in range(20):
        tracing = tracekit.configure(exporter=f"file:{tmp_path / str(number)}")
        order()
    assert threading.active_count() <= before + 1
    assert tracing.shutdown()
    assert threading.active_count() == before
    assert len(list(tmp_path.iterdir())) == 20


def test_one_exporter_can_be_given_again() -> None:
    memory = InMemorySpanExporter()
    processor = SimpleSpanProcessor(InMemorySpanExporter())
    for _ in range(3):
        tracing = tracekit.configure(exporter=[memory, processor])
        order()
    assert len(memory.get_finished_spans()) == 3
    tracing.shutdown()
    assert memory._stopped


def test_processor_added_to_the_provider_stays() -> None:
    added = InMemorySpanExporter()
    tracekit.configure(exporter="memory")
    provider = trace_api.get_tracer_provider()
    assert isinstance(provider, SdkTracerProvider)
    provider.add_span_processor(SimpleSpanProcessor(added))
    tracekit.configure(exporter="memory")
    order()
    assert len(added.get_finished_spans()) == 1


# Providers


def test_configured_provider_becomes_the_global_one() -> None:
    tracing = tracekit.configure(exporter="memory")
    assert trace_api.get_tracer_provider() is tracing.provider


def test_users_global_provider_stays_and_a_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    users = SdkTracerProvider(shutdown_on_exit=False)
    trace_api.set_tracer_provider(users)
    with caplog.at_level(logging.WARNING, "tracekit"):
        tracing = tracekit.configure(exporter="memory")
    assert trace_api.get_tracer_provider() is users
    assert "TracerProvider" in caplog.text
    order()
    assert names(tracing) == ["shop.order"]


def test_users_provider_gets_the_processors_and_keeps_its_own() -> None:
    own = InMemorySpanExporter()
    users = SdkTracerProvider(resource=Resource({"service.name": "mine"}), shutdown_on_exit=False)
    users.add_span_processor(SimpleSpanProcessor(own))
    for _ in range(3):
        tracing = tracekit.configure(provider=users, exporter="memory")
        order()
        assert names(tracing) == ["shop.order"]
    assert tracing.provider is trace_api.get_tracer_provider() is users
    assert len(own.get_finished_spans()) == 3
    assert tracing.spans[0].resource.attributes["service.name"] == "mine"
    assert len(users._active_span_processor._span_processors) == 2
    later = tracekit.configure(exporter="memory")
    order()
    assert (names(tracing), names(later)) == (["shop.order"], ["shop.order"])
    assert len(own.get_finished_spans()) == 3


def test_tracers_handed_out_before_follow_to_a_users_provider() -> None:
    early = trace_api.get_tracer("library")
    tracekit.configure(exporter="memory")
    users = SdkTracerProvider(resource=Resource({"service.name": "mine"}), shutdown_on_exit=False)
    tracing = tracekit.configure(provider=users, exporter="memory")
    early.start_span("a").end()
    assert [(span.name, span.resource.attributes["service.name"]) for span in tracing.spans] == [("a", "mine")]
    assert tracing.stats.started == 1


# Parts that fail


class Failing(SpanProcessor):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise self.error

    def on_end(self, span: ReadableSpan) -> None:
        raise self.error

    def shutdown(self) -> None:
        raise self.error

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(1)], ids=repr)
def test_failing_processor_costs_neither_the_caller_nor_the_others(error: BaseException) -> None:
    memory = InMemorySpanExporter()
    tracing = tracekit.configure(exporter=[Failing(error), memory])
    errors_before = tracing.stats.internal_errors
    assert order(5) == 5
    assert len(memory.get_finished_spans()) == 1
    assert tracing.flush() is False
    assert tracing.shutdown() is False
    assert memory._stopped
    assert tracing.stats.internal_errors - errors_before == 4


def test_ctrl_c_in_a_processor_is_the_programs() -> None:
    tracekit.configure(exporter=[Failing(KeyboardInterrupt())])
    with pytest.raises(KeyboardInterrupt):
        trace_api.get_tracer("t").start_span("a")


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(1)], ids=repr)
def test_failing_sampler_and_id_generator_let_the_body_run_once(error: BaseException) -> None:
    class FailingSampler(Sampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> Any:
            raise error

        def get_description(self) -> str:
            return "failing"

    class FailingIds(IdGenerator):
        def generate_span_id(self) -> int:
            raise error

        def generate_trace_id(self) -> int:
            return 1 << 200

    calls = []

    @tracekit.traced
    def work() -> None:
        calls.append(1)

    tracing = tracekit.configure(exporter="memory", sample=FailingSampler())
    work()
    assert tracing.stats.started == 1
    tracing = tracekit.configure(exporter="memory", id_generator=FailingIds())
    work()
    (span,) = tracing.spans
    assert span.context is not None
    assert span.context.is_valid
    assert len(calls) == 2
