"""`tracekit doctor`: it finds what is wrong, says where each setting comes from, and shows no secret."""

from __future__ import annotations

import inspect
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from otlp_receiver import Answer, GrpcReceiver, HttpReceiver

from tracekit import configure
from tracekit._config import runtime
from tracekit.cli import main
from tracekit.diagnosis.settings import SETTINGS, VARIABLES
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otlp_receiver import Certificates, Receiver

SECRET: Final = "hunter2"
ROOT: Final = Path(__file__).parent.parent


class Diagnosis(NamedTuple):
    """What the doctor has found."""

    status: int
    report: dict[str, Any]

    def all(self, check: str) -> list[dict[str, Any]]:
        return [finding for finding in self.report["findings"] if finding["check"] == check]

    def one(self, check: str) -> dict[str, Any]:
        [found] = self.all(check)
        return found

    def told(self, check: str) -> tuple[str, str]:
        found = self.one(check)
        return found["status"], found["message"]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


class Doctor:
    """Runs the doctor in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capfd = capfd
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, **variables: str) -> Diagnosis:
        status, out = self._run("--json", *arguments, **variables)
        return Diagnosis(status, json.loads(out))

    def text(self, *arguments: str, **variables: str) -> str:
        """What a reader sees."""
        return self._run(*arguments, **variables)[1]

    def _run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        before = dict(os.environ)
        status = main(["doctor", *arguments])
        said = self._capfd.readouterr()
        # A receiver on gRPC, which is in this process too, logs there.
        assert not [line for line in said.err.splitlines() if not re.match(r"[IWE]\d{4} ", line)]
        assert dict(os.environ) == before
        return status, said.out


@pytest.fixture
def diagnose(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    return Doctor(capfd, monkeypatch)


def at(receiver: Receiver) -> tuple[str, ...]:
    protocol = "grpc" if isinstance(receiver, GrpcReceiver) else "http/protobuf"
    return "--endpoint", receiver.endpoint, "--protocol", protocol


# --- the report


@pytest.mark.engine("the doctor warns of them")
def test_report_as_json_keeps_its_shape(diagnose: Doctor) -> None:
    found = diagnose()
    assert found.status == 0
    assert list(found.report) == ["schema", "tracekit", "status", "findings"]
    assert (found.report["schema"], found.report["status"]) == (1, "ok")
    for finding in found.report["findings"]:
        assert list(finding) == ["check", "group", "status", "message", "advice", "data"]
        assert finding["check"].startswith(finding["group"] + ".")
        assert finding["status"] in ("ok", "info", "warn", "fail")


@pytest.mark.engine("the doctor warns of them")
def test_report_for_a_reader_has_a_line_a_finding(diagnose: Doctor) -> None:
    found, text = diagnose(OTEL_BSP_SCHEDULE_DELAY="soon"), diagnose.text("--verbose")
    lines = text.splitlines()
    for finding in found.report["findings"]:
        mark = "-" if finding["status"] == "info" else finding["status"]
        assert f"  {mark:4}  {finding['message']}" in lines
    assert lines[-1] == "1 problem"
    assert "\x1b" not in text


@pytest.mark.engine("the doctor warns of them")
def test_problems_come_first_and_defaults_are_hidden_from_a_reader(diagnose: Doctor) -> None:
    wrong = {"OTEL_SDK_DISABLED": "true", "OTEL_BSP_SCHEDULE_DELAY": "soon"}
    lines = diagnose.text("--service", "shop", **wrong).splitlines()
    assert lines[0] == "Problems"
    assert lines[1].startswith("  fail  environment variable OTEL_BSP_SCHEDULE_DELAY='soon'")
    assert "  warn  OTEL_SDK_DISABLED=true: no span is made" in lines[2:5]
    assert "  ok    service = shop  (option)" in lines
    assert not [line for line in lines if line.endswith("(default)")]
    hidden = [line for line in diagnose.text("--service", "shop", "--verbose").splitlines() if "(default)" in line]
    assert f"  -     {len(hidden)} defaults, shown with --verbose" in lines


def test_nothing_is_left_behind(diagnose: Doctor, otlp_http: HttpReceiver) -> None:
    before = runtime.settings
    diagnose()
    assert (runtime.provider, runtime.settings) == (None, before)
    assert otlp_http.requests == []


# --- versions and libraries


def test_versions_are_told(diagnose: Doctor) -> None:
    from importlib.metadata import version

    found = diagnose()
    assert found.one("versions.python")["data"]["executable"] == sys.executable
    assert found.told("versions.opentelemetry-sdk") == ("ok", f"opentelemetry-sdk {version('opentelemetry-sdk')}")
    assert found.one("versions.engine")["data"]["engine"] in ("tracekit", "sdk")
    assert found.one("versions.otlp")["status"] == "ok"


def test_old_and_missing_packages_are_told(diagnose: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Found before the installed ones.
    for name, version in (("wrapt", "1.2"), ("structlog", "20.1")):
        directory = tmp_path / f"{name}-{version}.dist-info"
        directory.mkdir()
        (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = diagnose()
    assert found.status == 1
    assert found.told("versions.wrapt")[0] == "fail"
    assert found.one("versions.wrapt")["advice"] == "pip install 'wrapt>=1.17'"
    assert found.told("versions.structlog") == (
        "fail",
        "extra structlog: structlog 20.1 (needed: structlog 24.1 or newer)",
    )


def test_libraries_that_are_and_could_be_traced_are_told(
    diagnose: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = tmp_path / "fastapi-0.1.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text("Metadata-Version: 2.1\nName: fastapi\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = diagnose()
    ready = {finding["data"]["name"] for finding in found.all("libraries.ready")}
    assert {"httpx", "sqlalchemy"} <= ready
    unsupported = found.one("libraries.unsupported")
    assert unsupported["status"] == "warn"
    assert "fastapi is not traced: opentelemetry-instrumentation-fastapi" in unsupported["message"]
    assert unsupported["message"].endswith("there is fastapi 0.1")
    possible = found.one("libraries.possible")
    assert possible["data"]["packages"]["flask"] == "opentelemetry-instrumentation-flask"
    assert "opentelemetry-instrumentation-flask" in possible["advice"]


# --- settings


def test_each_setting_is_told_with_its_source(diagnose: Doctor) -> None:
    found = diagnose(
        "--service", "shop", OTEL_SERVICE_NAME="other", OTEL_EXPORTER_OTLP_TIMEOUT="2500",
        OTEL_TRACES_SAMPLER_ARG="0.5", OTEL_TRACES_SAMPLER="traceidratio", OTEL_EXPORTER_OTLP_COMPRESSION="none",
        OTEL_EXPORTER_OTLP_TRACES_COMPRESSION="gzip", OTEL_BSP_MAX_QUEUE_SIZE="100", OTEL_PROPAGATORS=" ",
    )  # fmt: skip
    told = [finding["data"] for finding in found.report["findings"] if "source" in finding["data"]]
    sources = {data["name"]: (data["value"], data["source"]) for data in told}
    assert sources["service"] == ("shop", "option")
    assert sources["timeout_s"] == ("2.5 s", "OTEL_EXPORTER_OTLP_TIMEOUT")
    assert sources["compression"] == ("gzip", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION")
    assert sources["sample"] == ("traceidratio 0.5", "OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG")
    assert sources["OTEL_BSP_MAX_QUEUE_SIZE"] == ("100", "environment")
    assert sources["propagators"] == ("tracecontext, baggage", "default")
    assert sources["keep_errors"] == ("off", "default")


def test_settings_are_those_of_configure_and_of_its_documentation() -> None:
    assert {setting.name for setting in SETTINGS} == set(inspect.signature(configure).parameters)
    document = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", document, re.MULTILINE))
    for setting in SETTINGS:
        documented: list[str] = re.findall(r"`(OTEL_\w+)`", rows[setting.name])
        # Many attributes come from one variable, which is a setting of its own.
        expected = [name for name in documented if name != "OTEL_RESOURCE_ATTRIBUTES" or setting.name == "resource"]
        assert list(setting.variables) == expected, setting.name
    without = document[document.index("Variables without an argument") :].partition("\n\n")[0]
    assert set(re.findall(r"`(OTEL_\w+)`", without)) == set(VARIABLES)


def test_every_variable_that_cannot_be_read_is_named(diagnose: Doctor) -> None:
    bad = {
        "OTEL_BSP_SCHEDULE_DELAY": "soon",
        "OTEL_BSP_MAX_QUEUE_SIZE": "0",
        "OTEL_SPAN_EVENT_COUNT_LIMIT": "-1",
        "OTEL_TRACES_SAMPLER": "sometimes",
        "OTEL_TRACES_SAMPLER_ARG": "7",
        "OTEL_PROPAGATORS": "junk",
        "OTEL_TRACES_EXPORTER": "jaegr",
        "OTEL_METRICS_EXPORTER": "statsd",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "10s",
        "OTEL_EXPORTER_OTLP_HEADERS": SECRET,
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such.pem",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:port",
        "OTEL_RESOURCE_ATTRIBUTES": SECRET,
        "OTEL_SDK_DISABLED": "1",
    }
    found = diagnose(**bad)
    assert found.status == 1
    named = {finding["data"]["variable"] for finding in found.all("settings.variable")}
    assert named == set(bad)
    assert all(finding["status"] == "fail" for finding in found.all("settings.variable"))


def test_misspelt_variables_are_told_and_those_of_others_are_not(diagnose: Doctor) -> None:
    found = diagnose(
        OTEL_EXPORTER_OTLP_ENDPIONT="x",
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT="http://x",
        OTEL_PYTHON_LOG_LEVEL="info",
        OTEL_SDK_DISABLED="true",
    )
    assert found.told("settings.unknown_variable") == (
        "warn",
        "OTEL_EXPORTER_OTLP_ENDPIONT is set, but nothing reads it",
    )
    assert found.one("settings.unknown_variable")["advice"] == "Did you mean OTEL_EXPORTER_OTLP_ENDPOINT?"
    assert found.told("settings.disabled")[0] == "warn"
    assert found.status == 0


def test_no_secret_is_shown(diagnose: Doctor, otlp_http: HttpReceiver) -> None:
    place = otlp_http.endpoint.removeprefix("http://")
    variables = {
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={SECRET}, authorization=Basic%20{SECRET}",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://ann:{SECRET}@{place}/v1/traces",
        "OTEL_RESOURCE_ATTRIBUTES": f"db.password={SECRET},service.name=shop",
    }
    text = diagnose.text("--send", **variables)
    assert SECRET not in text
    assert "x-api-key=[redacted], authorization=[redacted]" in text
    assert "service.name=shop" in text
    assert otlp_http.one("tracekit.doctor").resource["service.name"] == "shop"
    assert otlp_http.requests[0].headers["x-api-key"] == SECRET
    variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] += f"?key={SECRET}"
    assert SECRET not in json.dumps(diagnose("--send", **variables).report)


# --- the receiver


def test_receiver_that_speaks_the_protocol_is_fine(otlp: Receiver, diagnose: Doctor) -> None:
    found = diagnose(*at(otlp))
    assert found.status == 0
    assert [found.one(f"receiver.{check}")["status"] for check in ("endpoint", "connection", "protocol")] == ["ok"] * 3
    assert otlp.requests == []


def test_receiver_of_the_other_protocol_is_told(otlp: Receiver, diagnose: Doctor) -> None:
    is_grpc = isinstance(otlp, GrpcReceiver)
    other = "http/protobuf" if is_grpc else "grpc"
    found = diagnose("--endpoint", otlp.endpoint, "--protocol", other)
    assert found.status == 1
    has, said = ("gRPC", "HTTP") if is_grpc else ("HTTP", "gRPC")
    assert found.told("receiver.protocol")[1].endswith(f"speaks {has}, and will be spoken to in {said}")
    assert f'protocol="{"grpc" if is_grpc else "http/protobuf"}"' in found.one("receiver.protocol")["advice"]


def test_closed_port_is_told(diagnose: Doctor) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = diagnose("--endpoint", f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert found.status == 1
    assert "Connection refused" in found.told("receiver.connection")[1]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_receiver_on_the_port_of_the_other_protocol_is_found(diagnose: Doctor) -> None:
    host = f"127.{os.getpid() % 250 + 1}.7.7"
    with socket.create_server((host, 4318)):
        found = diagnose("--endpoint", f"http://{host}:4317")
    advice = f"Something listens on port 4318: protocol http/protobuf at http://{host}:4318"
    assert found.one("receiver.connection")["advice"] == advice


def test_port_that_answers_nothing_is_told(diagnose: Doctor) -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        found = diagnose("--endpoint", f"http://127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
    assert found.told("receiver.protocol")[1].endswith("takes connections, but answers neither HTTP nor gRPC")


def test_name_that_does_not_resolve_is_told(diagnose: Doctor) -> None:
    found = diagnose("--endpoint", "http://nosuch.invalid:4318")
    assert found.told("receiver.name")[1].startswith("the name nosuch.invalid does not resolve")


def test_endpoint_that_makes_no_sense_is_told(diagnose: Doctor) -> None:
    found = diagnose("--endpoint", "http://localhost:4317", "--protocol", "http/protobuf")
    assert found.status == 1
    assert "4317 is the port of grpc, but the protocol is http/protobuf" in found.told("receiver.endpoint")[1]


def test_proxy_in_the_way_is_told(diagnose: Doctor, otlp_http: HttpReceiver) -> None:
    found = diagnose("--endpoint", "http://collector.example:4318", HTTP_PROXY=otlp_http.endpoint)
    assert found.told("receiver.proxy")[0] == "warn"
    assert found.one("receiver.proxy")["advice"].endswith("NO_PROXY=collector.example")
    found = diagnose("--endpoint", "http://collector.example:4318", HTTP_PROXY="http://127.0.0.1:1")
    assert found.told("receiver.proxy")[0] == "fail"


def test_spans_that_go_elsewhere_need_no_receiver(diagnose: Doctor) -> None:
    assert diagnose().told("receiver.exporter") == ("info", "spans go to: console")
    found = diagnose("--exporter", "none")
    assert found.told("receiver.exporter") == ("info", "spans go to: nowhere")
    assert not found.all("receiver.connection")


@pytest.fixture(params=[GrpcReceiver, HttpReceiver])
def secure(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Receiver]:
    """A receiver with TLS that wants a certificate of its clients."""
    receiver = request.param(tls=certificates)
    yield receiver
    receiver.close()


@pytest.mark.slow
def test_tls_is_told_with_what_is_missing(secure: Receiver, certificates: Certificates, diagnose: Doctor) -> None:
    found = diagnose(*at(secure))
    assert found.status == 1
    assert "is not trusted: " in found.told("receiver.tls")[1]
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in found.one("receiver.tls")["advice"]

    found = diagnose(*at(secure), OTEL_EXPORTER_OTLP_CERTIFICATE=certificates.authority)
    assert found.status == 1
    failed = [finding for finding in found.report["findings"] if finding["status"] == "fail"]
    assert "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" in failed[0]["advice"]

    found = diagnose(
        *at(secure),
        "--send",
        OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=certificates.client,
        OTEL_EXPORTER_OTLP_CLIENT_KEY=certificates.client_key,
    )
    assert found.status == 0, found.report
    # It is valid for two days more.
    assert (found.told("receiver.tls")[0], found.one("receiver.tls")["advice"]) == ("warn", "It is about to expire")
    assert found.told("receiver.protocol")[0] == "ok"
    assert found.told("span.sent")[0] == "ok"


@pytest.mark.slow
def test_tls_and_plain_text_mistaken_for_each_other_are_told(
    secure: Receiver, otlp: Receiver, diagnose: Doctor
) -> None:
    endpoint, protocol = at(secure)[1].replace("https:", "http:"), at(secure)[3]
    found = diagnose("--endpoint", endpoint, "--protocol", protocol)
    assert found.told("receiver.protocol")[1].endswith("speaks TLS, and will be spoken to without")
    endpoint, protocol = at(otlp)[1].replace("http:", "https:"), at(otlp)[3]
    found = diagnose("--endpoint", endpoint, "--protocol", protocol)
    assert found.told("receiver.tls")[1].endswith("speaks plain text, and will be spoken to with TLS")


# --- the test span


def test_span_is_sent_and_acknowledged(otlp: Receiver, diagnose: Doctor) -> None:
    found = diagnose(*at(otlp), "--send", "--service", "shop")
    assert found.status == 0
    assert found.told("span.sent")[0] == "ok"
    span = otlp.one("tracekit.doctor")
    assert span.resource["service.name"] == "shop"
    assert found.one("span.sent")["data"]["trace_id"] == span.trace_id


@pytest.mark.parametrize(
    ("answer", "message", "advice"),
    [
        (Answer(rejected=1), "the receiver answered, and rejected the span: scripted", ""),
        (Answer.failure(401, "UNAUTHENTICATED"), "was refused: ", "OTEL_EXPORTER_OTLP_HEADERS"),
        (Answer.failure(503, "UNAVAILABLE"), "was not taken now: ", ""),
    ],
)
def test_span_that_is_not_taken_is_told(
    answer: Answer, message: str, advice: str, otlp: Receiver, diagnose: Doctor
) -> None:
    otlp.answer(answer)
    found = diagnose(*at(otlp), "--send")
    assert found.status == 1
    assert found.told("span.sent")[0] == "fail"
    assert message in found.told("span.sent")[1]
    assert advice in found.one("span.sent")["advice"]


@pytest.mark.parametrize(
    ("answer", "message", "advice"),
    [
        (Answer(http=302, headers={"location": "https://elsewhere"}), "was refused: 302", "sent elsewhere"),
        (Answer(body=b"<html>", headers={"content-type": "text/html"}), "the answer is no OTLP", "a login page"),
        (Answer(http=404), "was refused: 404", "it ends in /v1/traces"),
    ],
)
def test_answer_of_something_else_is_told(
    answer: Answer, message: str, advice: str, otlp_http: HttpReceiver, diagnose: Doctor
) -> None:
    otlp_http.answer(answer)
    found = diagnose(*at(otlp_http), "--send")
    assert message in found.told("span.sent")[1]
    assert advice in found.one("span.sent")["advice"]


# --- running processes

_PROGRAM: Final = """
import os, sys, tracekit
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

class Refusing(SpanExporter):
    def export(self, spans):
        return SpanExportResult.FAILURE

tracing = tracekit.configure(service="shop", exporter=Refusing(), instrument=["httpx"])
for _ in range(3):
    with tracekit.traced_block("orders.create"):
        pass
tracing.flush()
child = os.fork() if sys.argv[1:] else 1
if child == 0:
    with tracekit.traced_block("orders.fork"):
        pass
print(os.getpid(), flush=True)
sys.stdin.readline()
if sys.argv[1:] and child:
    os.waitpid(child, 0)
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return what starts a program that loses three spans, and tells of it below `tmp_path`."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            env={**os.environ, "TRACEKIT_STATUS": str(tmp_path / "status")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such sockets")
def test_running_process_tells_what_became_of_its_spans(
    program: Callable[..., subprocess.Popen[str]], diagnose: Doctor, tmp_path: Path
) -> None:
    directory = tmp_path / "status"
    process = program()
    assert process.stdout is not None
    pid = process.stdout.readline().strip()
    assert (directory.stat().st_mode & 0o777, (directory / f"{pid}.sock").stat().st_mode & 0o777) == (0o700, 0o600)

    found = diagnose("--pid", pid, TRACEKIT_STATUS=str(directory))
    assert found.status == 0
    assert found.one("process.status")["data"]["pid"] == int(pid)
    assert "service='shop'" in found.told("process.status")[1]
    assert found.one("process.spans")["data"]["sampled"] == 3
    assert found.told("process.dropped") == ("warn", "dropped: 3 export_failed")
    assert found.one("process.instrumented")["data"]["name"] == "httpx"

    process.communicate("\n")
    assert list(directory.iterdir()) == []
    found = diagnose("--pid", pid)
    assert (found.status, found.told("process.status")[1]) == (1, f"process {pid} does not tell of its spans")
    assert diagnose("--pid", "all").told("process.status")[0] == "warn"


_SENDING: Final = """
import os, sys, tracekit

tracing = tracekit.configure(service="shop", endpoint=sys.argv[1], spool=sys.argv[2], protocol="http/protobuf")
for _ in range(2):
    with tracekit.traced_block("orders.create"):
        pass
    tracing.flush()
    print(os.getpid(), flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such sockets")
def test_running_process_tells_what_its_receiver_said_last(
    otlp_http: HttpReceiver, diagnose: Doctor, tmp_path: Path
) -> None:
    variables = {"TRACEKIT_STATUS": str(tmp_path / "status")}
    otlp_http.answer_always(Answer(http=401))
    process = subprocess.Popen(
        [sys.executable, "-c", _SENDING, otlp_http.endpoint, str(tmp_path / "spool")],
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        pid = process.stdout.readline().strip()
        status, message = diagnose("--pid", pid, **variables).told("process.receiver")
        assert status == "warn"
        assert message.startswith(f"{otlp_http.endpoint}/v1/traces refused spans (401")
        assert message.endswith(" s ago")
        otlp_http.answer_always(Answer(http=503))
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        message = diagnose("--pid", pid, **variables).told("process.receiver")[1]
        assert message.startswith(f"{otlp_http.endpoint}/v1/traces takes no spans now (503")
        assert message.endswith(" s ago; spans kept on disk: 1")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_process_tells_of_its_own_spans(
    program: Callable[..., subprocess.Popen[str]], diagnose: Doctor, tmp_path: Path
) -> None:
    process = program("fork")
    assert process.stdout is not None
    pids = {int(process.stdout.readline()), int(process.stdout.readline())}
    found = diagnose("--pid", "all", TRACEKIT_STATUS=str(tmp_path / "status"))
    assert {finding["data"]["pid"] for finding in found.all("process.status")} == pids
    started = {finding["data"]["pid"]: finding["data"]["started"] for finding in found.all("process.spans")}
    assert started == {process.pid: 3, (pids - {process.pid}).pop(): 1}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such sockets")
def test_socket_of_a_process_that_was_killed_is_cleared_away(
    program: Callable[..., subprocess.Popen[str]], diagnose: Doctor, tmp_path: Path
) -> None:
    process = program()
    assert process.stdout is not None
    pid = process.stdout.readline().strip()
    process.kill()
    process.wait()
    found = diagnose("--pid", "all", TRACEKIT_STATUS=str(tmp_path / "status"))
    assert found.told("process.status")[0] == "warn"
    assert not (tmp_path / "status" / f"{pid}.sock").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such sockets")
def test_directory_that_others_can_open_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv("TRACEKIT_STATUS", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"TRACEKIT_STATUS=.*chmod 700"):
        configure(exporter="none")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("TRACEKIT_STATUS", "0")
    configure(exporter="none")


@pytest.mark.skipif(sys.platform == "win32", reason="no such sockets")
def test_directory_that_leads_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Somebody else may have put the name up in the directory for temporary files.
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "tracekit").symlink_to(tmp_path / "own")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("TRACEKIT_STATUS", "1")
    with pytest.raises(ConfigurationError, match="TRACEKIT_STATUS='1'"):
        configure(exporter="none")
    assert list((tmp_path / "own").iterdir()) == []


def test_what_others_say_cannot_drive_the_terminal(diagnose: Doctor, otlp_grpc: GrpcReceiver) -> None:
    otlp_grpc.answer(Answer(grpc="INTERNAL", details="\x1b[2Jgone"))
    text = diagnose.text(*at(otlp_grpc), "--send", OTEL_SERVICE_NAME="\x1b[2Jshop")
    assert "gone" in text
    assert "\x1b" not in text


def test_process_id_that_is_none_is_a_wrong_argument(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--pid", "shop"]) == 2
    assert capfd.readouterr().err.startswith("tracekit doctor: --pid shop: expected the id of a process, or all")
