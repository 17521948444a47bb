"""`tracekit demo` as a user runs it: real processes, real requests, and nothing left behind, whatever ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest.importorskip("fastapi", reason="needs the extra `demo`")
pytestmark = pytest.mark.timeout(180)

# For a machine that is busy; the demo takes three seconds.
DEADLINE_S: Final = 120.0

SPAN: Final = re.compile(r"(?P<guides>[│├└─ ]+)(?P<name>\S.*?) \([\d.]+(?:ns|µs|ms|s)\)(?P<rest>.*)")

TREES: Final = """
    [orders] POST /orders
      orders.create
        orders.validate
          SELECT products
        orders.save
          INSERT orders
          BATCH INSERT order_lines
        payment_gateway.charge
          POST
            [payments] POST /charges
              payments.to_euro
              payments.authorize
        orders.change_status
          UPDATE orders

    [orders] POST /orders
      orders.create
        orders.validate
          SELECT products
        orders.save
          INSERT orders
          INSERT order_lines
        payment_gateway.charge
          POST  ERROR
            [payments] POST /charges
              payments.to_euro
              payments.authorize
        orders.change_status
          UPDATE orders

    [orders] POST /orders  ERROR
      orders.create  ERROR
        orders.validate
          SELECT products
        orders.save
          INSERT orders
          INSERT order_lines
        payment_gateway.charge  ERROR
          POST  ERROR
            [payments] POST /charges  ERROR
              payments.to_euro  ERROR

    GET /orders.csv
      orders.export
        SELECT orders
"""


class Demo:
    """A demo that runs, in a process group and a temporary directory of its own."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self.process = process
        self.directory = directory

    def group(self) -> list[str]:
        """The demo's processes that have not ended."""
        command = ["ps", "-A", "-o", "pgid=,stat=,args="]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        found = [line.split(maxsplit=2) for line in lines]
        return [args for pgid, stat, args in found if int(pgid) == self.process.pid and not stat.startswith("Z")]

    def wait_for_services(self) -> None:
        wait_until(lambda: len(self.group()) == 3)

    def end(self) -> tuple[str, str]:
        """Wait for the end, and return what was written to stdout and stderr."""
        return self.process.communicate(timeout=DEADLINE_S)


@contextmanager
def demo(directory: Path, *arguments: object, **environment: str) -> Iterator[Demo]:
    environment = {**os.environ, "TMPDIR": str(directory), **environment}
    # A job in the background of a shell ignores SIGINT, and what it starts does too.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "tracekit", "demo", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    with process:
        try:
            yield Demo(process, directory)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def outline(output: str) -> str:
    """The names, levels and error marks of the trees in *output*; a blank line between trees."""
    lines: list[str] = []
    for line in output.splitlines():
        span = SPAN.fullmatch(line)
        if span:
            level = len(span["guides"]) // 3 - 1
            mark = "  ERROR" if span["rest"].startswith("  ERROR") else ""
            lines.append("  " * level + span["name"] + mark)
        elif line.startswith("Trace:"):
            lines.append("")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the demo of `output` keeps its spans in."""
    return tmp_path_factory.mktemp("saved") / "traces.jsonl"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, saved: Path) -> str:
    """What a demo prints that nobody disturbs."""
    with demo(tmp_path_factory.mktemp("demo"), "--save", saved) as running:
        out, err = running.end()
        assert (running.process.returncode, err) == (0, "")
        assert running.group() == []
        assert list(running.directory.iterdir()) == []
    return out


def test_each_trace_is_one_tree_of_both_services(output: str) -> None:
    assert outline(output) == textwrap.dedent(TREES).rstrip()


def test_each_request_is_named_with_its_answer(output: str) -> None:
    answers = re.findall(r"^\d\. .*: (\w+ /\S+ -> \d+)", output, re.MULTILINE)
    assert answers == ["POST /orders -> 201", "POST /orders -> 402", "POST /orders -> 502", "GET /orders.csv -> 200"]


@pytest.mark.parametrize(
    "said",
    [
        "orders.create .* order.channel=web order.currency=EUR order.lines_count=2 order.id=1 order.status=paid",
        "payment_gateway.charge .* order.id=1 payment.amount_cents=4800 payment.currency=EUR",
        "• payment_completed  order_id=1 transaction_id=[0-9a-f]{8} duration_ms=",
        '• payment_failed  order_id=2 error="insufficient funds"',
        "• exception CardDeclined: insufficient funds",
        "payments.to_euro .* ERROR KeyError: 'CHF'  amount_cents=450 currency=CHF",
        "orders.export .* generator.items=4",
    ],
)
def test_trees_say_what_happened(output: str, said: str) -> None:
    assert re.search(said, output)


def test_the_card_number_is_redacted(output: str) -> None:
    assert 'card_number="[redacted]"' in output
    assert "4242" not in re.sub(r"\b[0-9a-f]{32}\b|transaction_id=\S+|\d+ms\)|duration_ms=\S+|:\d+/", "", output)


def test_http_attributes_are_those_of_today(output: str) -> None:
    assert "http.response.status_code=200" in output
    assert not re.search(r"http\.(url|status_code|method)=", output)


def test_output_that_is_no_terminal_has_no_colours(output: str) -> None:
    assert "\x1b" not in output


def test_the_bug_is_found_in_the_spans_that_are_kept(output: str, saved: Path) -> None:
    assert f"tracekit view --errors {saved}" in output
    command = [sys.executable, "-m", "tracekit", "view", "--errors", "--limit", "1", str(saved)]
    lines = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.splitlines()
    failed, at, code, path = lines[-4:]
    assert failed == "Failed: KeyError: 'CHF'"
    assert re.fullmatch(r"    at: .*payments\.py:\d+ in to_euro", at)
    assert code == "        return round(amount_cents * RATES_TO_EUR[currency])"
    assert path.endswith("> POST > [payments] POST /charges > payments.to_euro")
    assert not [line for line in lines if "server.port" in line]


def test_a_place_where_nothing_can_be_kept_is_said_at_once(tmp_path: Path) -> None:
    with demo(tmp_path, "--save", tmp_path / "none" / "traces.jsonl") as running:
        out, err = running.end()
    assert (running.process.returncode, out) == (2, "")
    assert "cannot write to" in err


def test_settings_of_the_environment_do_not_change_the_demo(tmp_path: Path) -> None:
    environment = {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_SAMPLER": "always_off", "HTTP_PROXY": "http://127.0.0.1:9"}
    with demo(tmp_path, **environment) as running:
        out, _ = running.end()
    assert running.process.returncode == 0
    assert "payments.authorize" in out


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_services_too(tmp_path: Path, signum: signal.Signals, status: int) -> None:
    with demo(tmp_path) as running:
        running.wait_for_services()
        running.process.send_signal(signum)
        _, err = running.end()
        assert (running.process.returncode, err) == (status, "")
        assert running.group() == []
    assert list(tmp_path.iterdir()) == []


def test_services_end_even_if_the_demo_is_killed(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        running.wait_for_services()
        running.process.kill()
        running.end()
        wait_until(lambda: running.group() == [])


def test_a_service_that_does_not_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    # Enough for the demo to be content, not for the database.
    (broken / "aiosqlite.py").write_text("", encoding="utf-8")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with demo(temporary, PYTHONPATH=str(broken)) as running:
        _, err = running.end()
        assert running.process.returncode == 1
        assert running.group() == []
    assert err.startswith("tracekit demo: orders.app:app did not start: ")
    assert "aiosqlite" in err
    assert list(temporary.iterdir()) == []


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        assert running.process.stdout is not None
        running.process.stdout.readline()
        running.process.stdout.close()
        running.process.stdout = None
        _, err = running.end()
        assert (running.process.returncode, err) == (141, "")
        assert running.group() == []
