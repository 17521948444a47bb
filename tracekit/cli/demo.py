"""`tracekit demo`: runs the order service of `examples/orders`, sends it requests and prints their traces."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator, Iterator
    from types import FrameType

_DESCRIPTION: Final = """\
Run two real services, each in a process of its own: orders (FastAPI, SQLAlchemy on SQLite, HTTPX) calls payments
(FastAPI). Send them a few requests and print the trace of each, joined from the spans of both. Needs no backend,
leaves no process and no file behind.
"""
_EPILOG: Final = """\
examples:
  tracekit demo
  tracekit demo --save traces.jsonl
  tracekit view --errors traces.jsonl      finds the bug in one of the requests
"""
_HEADER: Final = """\
Two services, each in a process of its own: orders (FastAPI, SQLAlchemy, HTTPX) calls payments (FastAPI).
Below are the requests they are sent, and the trace that each one leaves in both.
"""
_FOOTER: Final = """\
The code of both services: {directory}
Now yours: call tracekit.configure(service="...") once and write @tracekit.traced above a function.
"""
_SAVED: Final = """\
The spans are in {file}. One request has failed for a bug: tracekit view --errors {file}
"""
_NEEDED: Final = (
    "fastapi",
    "sqlalchemy.ext.asyncio",
    "aiosqlite",
    "httpx",
    "uvicorn",
    "opentelemetry.instrumentation.fastapi",
    "opentelemetry.instrumentation.httpx",
)
_SPANS: Final = "spans.jsonl"
_REQUEST_TIMEOUT_S: Final = 60.0
_CARD: Final = "4242 4242 4242 4242"


class _Request(NamedTuple):
    """A request to the order service, and what to see in its trace."""

    title: str
    method: str
    path: str
    order: dict[str, Any] | None
    expected_status: int


_REQUESTS: Final = (
    _Request(
        "An order is placed and paid",
        *("POST", "/orders"),
        {"customer": "Ada", "lines": [{"sku": "tea", "quantity": 2}, {"sku": "teapot", "quantity": 1}]},
        201,
    ),
    _Request(
        "A card is declined, which is expected: recorded, but orders.create has not failed",
        *("POST", "/orders"),
        {"customer": "Bob", "lines": [{"sku": "cup", "quantity": 9}]},
        402,
    ),
    _Request(
        "Payments has a bug, which breaks the order: the innermost error says what to mend",
        *("POST", "/orders"),
        {"customer": "Cid", "lines": [{"sku": "tea", "quantity": 1}], "currency": "CHF"},
        502,
    ),
    _Request("All orders are streamed: orders.export lasts as long as the stream", "GET", "/orders.csv", None, 200),
)


class _Answer(NamedTuple):
    """What came back, and when: nanoseconds since the epoch."""

    request: _Request
    status: str
    sent_ns: int
    received_ns: int


class DemoError(Exception):
    """The demo has not gone as it should."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does and takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.add_argument("--save", metavar="FILE", type=Path, help="keep the spans in FILE, for `tracekit view FILE`")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """
    Run the demo and return its exit status.

    Raises:
        ConfigurationError: Something is not installed, or the spans cannot be kept where they should.
    """
    _check_installed()
    file: Path | None = arguments.save
    if file is not None:
        _check_writable(file)
    from tracekit.cli.service import ServiceError

    examples = _examples()
    print(_HEADER, flush=True)
    try:
        # A directory of its own: the database, the spans and what the services write.
        with _termination_as_exit(), tempfile.TemporaryDirectory(prefix="tracekit-demo-") as directory:
            answers = _talk_to_services(examples, Path(directory))
            for number, text in enumerate(_scenes(answers, Path(directory) / _SPANS), start=1):
                print(f"{number}. {text}")
            if file is not None:
                file.write_bytes((Path(directory) / _SPANS).read_bytes())
    except (DemoError, ServiceError) as error:
        print(f"tracekit demo: {error}", file=sys.stderr)
        return 1
    if file is not None:
        print(_SAVED.format(file=file))
    print(_FOOTER.format(directory=examples / "orders"), end="")
    return 0


def _check_installed() -> None:
    missing: list[str] = []
    for name in _NEEDED:
        try:
            import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        msg = f"pip install 'tracekit[demo]' first (missing: {', '.join(missing)})"
        raise ConfigurationError(msg)


def _check_writable(file: Path) -> None:
    try:
        # Traces may hold personal data: what this makes, its owner alone may read.
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError as error:
        msg = f"cannot write to {str(file)!r} ({error.strerror}); expected a file in a directory that exists"
        raise ConfigurationError(msg) from error


def _examples() -> Path:
    """Return the directory of the examples: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent.parent
    return next(path for path in (package / "examples", package.parent / "examples") if (path / "orders").is_dir())


@contextmanager
def _termination_as_exit() -> Generator[None, None, None]:
    """Let SIGTERM end the block as Ctrl-C does, so that it cleans up."""

    def leave(signum: int, _frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _talk_to_services(examples: Path, directory: Path) -> list[_Answer]:
    """Start both services, send the requests, and stop the services, which writes their last spans."""
    from tracekit.cli.service import Service

    environment = {
        **_neutral_environment(),
        "OTEL_TRACES_EXPORTER": f"file:{directory / _SPANS}",
        "OTEL_METRICS_EXPORTER": "none",
    }
    with Service(
        "orders.payments:app", directory=examples, environment=environment, log=directory / "payments.log"
    ) as payments:
        environment["ORDERS_PAYMENTS_URL"] = payments.url
        environment["ORDERS_DATABASE_URL"] = f"sqlite+aiosqlite:///{directory / 'orders.db'}"
        with Service(
            "orders.app:app", directory=examples, environment=environment, log=directory / "orders.log"
        ) as orders:
            for service in (payments, orders):
                service.wait_until_ready()
            return list(_answers(orders.url))


def _neutral_environment() -> dict[str, str]:
    """Return the environment without what would make the demo another one: settings of all parts, proxies."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("OTEL_", "ORDERS_")) and not name.upper().endswith("_PROXY")
    }


def _answers(url: str) -> Iterator[_Answer]:
    """Send the requests, one after the other."""
    import httpx

    with httpx.Client(base_url=url, timeout=_REQUEST_TIMEOUT_S, trust_env=False) as client:
        for request in _REQUESTS:
            body = None if request.order is None else {**request.order, "card_number": _CARD}
            sent_ns = time.time_ns()
            try:
                response = client.request(request.method, request.path, json=body)
            except httpx.HTTPError as error:
                msg = f"{request.method} {request.path} got no answer: {error}"
                raise DemoError(msg) from error
            if response.status_code != request.expected_status:
                msg = f"{request.method} {request.path} was answered {response.status_code}: {response.text}"
                raise DemoError(msg)
            yield _Answer(request, f"{response.status_code} {response.reason_phrase}", sent_ns, time.time_ns())


def _scenes(answers: list[_Answer], spans: Path) -> Iterator[str]:
    """Yield, for each answer, what was asked and the tree of its trace."""
    from tracekit.export import TreeOptions, render_tree
    from tracekit.export.text import for_encoding, wants_color
    from tracekit.view.reading import read_trace_file

    traces = read_trace_file(spans).traces()
    options = TreeOptions(color=wants_color(sys.stdout))
    for answer in answers:
        request = answer.request
        what = f"{request.method} {request.path}"
        # They were sent one after the other.
        trace = next(
            (trace for trace in traces if answer.sent_ns <= trace[0].start_time_ns <= answer.received_ns), None
        )
        if trace is None:
            msg = f"{what} left no trace"
            raise DemoError(msg)
        tree = for_encoding(render_tree(trace, options), sys.stdout.encoding)
        yield f"{request.title}: {what} -> {answer.status}\n{tree}"
