"""Ids of the current span on log records (stdlib, structlog, loguru), and log records as events of the span."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
import logging.handlers
import queue
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from tracekit import current_span_id, current_trace_id, traced, traced_block
from tracekit._config import runtime
from tracekit._diagnostics import diagnostics
from tracekit.logs import EventHandler, add_trace_context, install, loguru_patcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIELDS: Final = {"trace_id", "span_id", "trace_sampled", "service"}


@pytest.fixture(autouse=True)
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    undo = runtime.use(provider=provider)
    yield exporter
    undo()
    provider.shutdown()


@pytest.fixture
def installed() -> Iterator[None]:
    undo = install()
    yield
    undo()


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record)


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("shop.orders")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.handlers.clear()
    logger.propagate = True


@pytest.fixture
def records(log: logging.Logger, installed: None) -> list[logging.LogRecord]:
    handler = Records()
    log.addHandler(handler)
    return handler.seen


@pytest.fixture
def formatted(log: logging.Logger) -> Callable[[logging.Formatter], io.StringIO]:
    def to(formatter: logging.Formatter) -> io.StringIO:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        log.addHandler(handler)
        return stream

    return to


def _ids(record: logging.LogRecord) -> tuple[str, str]:
    return (record.trace_id, record.span_id)  # type: ignore[attr-defined]


def _current_ids() -> tuple[str | None, str | None]:
    return (current_trace_id(), current_span_id())


# The standard library


def test_a_record_has_the_ids_of_the_span_it_was_made_in(log: logging.Logger, records: list[Any]) -> None:
    with traced_block("orders.create"):
        expected = _current_ids()
        log.info("created %d", 7)
    (record,) = records
    assert _ids(record) == expected
    assert (record.trace_sampled, record.service) == (True, "shop")
    assert record.getMessage() == "created 7"


def test_a_record_made_outside_any_span_has_no_field_of_ours(log: logging.Logger, records: list[Any]) -> None:
    log.info("before")
    with traced_block("orders.create"):
        pass
    log.info("after")
    assert not [FIELDS & record.__dict__.keys() for record in records if FIELDS & record.__dict__.keys()]


def test_a_span_that_is_not_sampled_still_has_its_ids_on_records(log: logging.Logger, records: list[Any]) -> None:
    undo = runtime.use(provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
    with traced_block("orders.create"):
        expected = _current_ids()
        log.info("created")
    undo()
    assert expected[0] is not None
    assert _ids(records[0]) == expected
    assert records[0].trace_sampled is False


def test_exception_handlers_inside_and_outside_the_span_have_its_ids(log: logging.Logger, records: list[Any]) -> None:
    @traced
    def fail() -> None:
        ids.append(_current_ids())
        try:
            _ = {}["first"]
        except KeyError:
            log.exception("inside")
        int("second")

    ids: list[Any] = []
    try:
        fail()
    except ValueError as error:
        log.exception("outside, about the exception")
        log.warning("outside, about it by name", exc_info=error)
        log.info("outside, about something else")
    assert [_ids(record) for record in records[:3]] == ids * 3
    assert "trace_id" not in records[3].__dict__


def test_an_exception_no_span_has_recorded_brings_no_ids(log: logging.Logger, records: list[Any]) -> None:
    try:
        int("seven")
    except ValueError:
        log.exception("failed")
    assert "trace_id" not in records[0].__dict__


def test_records_behind_a_queue_have_the_ids_of_the_span_that_logged(log: logging.Logger, installed: None) -> None:
    handler = Records()
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    log.addHandler(logging.handlers.QueueHandler(records))
    listener = logging.handlers.QueueListener(records, handler)
    with traced_block("orders.create"):
        expected = _current_ids()
        log.info("created")
    with traced_block("orders.other"):
        listener.start()
        listener.stop()
    assert _ids(handler.seen[0]) == expected


def test_each_thread_and_task_logs_with_its_own_span(log: logging.Logger, records: list[Any]) -> None:
    barrier = threading.Barrier(4)
    expected: dict[str, Any] = {}

    def work(name: str) -> None:
        with traced_block(f"orders.{name}"):
            barrier.wait(30)
            expected[name] = _current_ids()
            log.info(name)

    async def task(name: str) -> None:
        with traced_block(f"orders.{name}"):
            await asyncio.sleep(0)
            expected[name] = _current_ids()
            log.info(name)

    async def tasks() -> None:
        await asyncio.gather(*(task(f"task {number}") for number in range(4)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [f"thread {number}" for number in range(4)]))
    asyncio.run(tasks())
    assert {record.getMessage(): _ids(record) for record in records} == expected
    assert len(set(expected.values())) == 8


def test_a_pool_thread_without_a_span_logs_without_ids(log: logging.Logger, records: list[Any]) -> None:
    with traced_block("orders.create"), ThreadPoolExecutor(1) as pool:
        pool.submit(log.info, "elsewhere").result()
    assert "trace_id" not in records[0].__dict__


@pytest.mark.parametrize(
    "formatter",
    [
        logging.Formatter("%(trace_id)s %(span_id)s %(service)s %(trace_sampled)s %(message)s"),
        logging.Formatter("{trace_id} {span_id} {service} {trace_sampled} {message}", style="{"),
        logging.Formatter("$trace_id $span_id ${service} $trace_sampled $message", style="$"),
    ],
    ids="%{$",
)
def test_format_strings_show_a_dash_without_a_span(
    log: logging.Logger, installed: None, formatted: Callable[..., io.StringIO], formatter: logging.Formatter
) -> None:
    stream = formatted(formatter)
    log.info("before")
    with traced_block("orders.create"):
        trace_id, span_id = _current_ids()
        log.info("created")
    assert stream.getvalue().splitlines() == ["- - - - before", f"{trace_id} {span_id} shop True created"]


def test_a_format_strings_own_defaults_and_mistakes_stay(
    log: logging.Logger, installed: None, formatted: Callable[..., io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    stream = formatted(logging.Formatter("%(trace_id)s %(message)s", defaults={"trace_id": "none"}))
    log.info("before")
    assert stream.getvalue() == "none before\n"
    formatted(logging.Formatter("%(trace_id)s %(order_id)s"))
    log.info("again")
    assert "Formatting field not found in record: 'order_id'" in capsys.readouterr().err


def test_fields_given_as_extra_win(log: logging.Logger, records: list[Any]) -> None:
    with traced_block("orders.create"):
        log.info("created", extra={"service": "billing", "trace_id": "mine", "order_id": 7})
        with pytest.raises(KeyError, match="overwrite"):
            log.info("created", extra={"name": "refused by logging itself"})  # noqa: G101  # on purpose
    log.info("after", extra={"service": "billing"})
    assert (records[0].service, records[0].trace_id, records[0].order_id) == ("billing", "mine", 7)
    assert len(records[0].span_id) == 16
    assert records[1].service == "billing"
    assert "span_id" not in records[1].__dict__


def test_the_line_that_logged_is_still_the_callers(log: logging.Logger, records: list[Any]) -> None:
    log.info("here")
    assert records[0].funcName == "test_the_line_that_logged_is_still_the_callers"
    assert records[0].pathname == __file__


def test_a_record_factory_that_was_there_goes_on_working(log: logging.Logger) -> None:
    plain = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = plain(*args, **kwargs)
        record.tenant = "acme"
        return record

    logging.setLogRecordFactory(factory)
    undo = install()
    handler = Records()
    log.addHandler(handler)
    try:
        with traced_block("orders.create"):
            log.info("created")
    finally:
        undo()
        assert logging.getLogRecordFactory() is factory
        logging.setLogRecordFactory(plain)
    assert handler.seen[0].tenant == "acme"  # type: ignore[attr-defined]
    assert "trace_id" in handler.seen[0].__dict__


def test_installing_twice_is_installing_once_and_undo_puts_everything_back() -> None:
    def hooks() -> tuple[Any, ...]:
        return (logging.getLogRecordFactory(), logging.Logger.makeRecord, logging.Formatter.formatMessage)

    before = hooks()
    undo = install()
    installed = hooks()
    assert install() is undo
    assert hooks() == installed
    assert all(now is not then for now, then in zip(installed, before, strict=True))
    undo()
    undo()
    assert hooks() == before


def test_undo_leaves_a_factory_chained_since_alone(log: logging.Logger) -> None:
    plain = logging.getLogRecordFactory()
    undo = install()
    ours = logging.getLogRecordFactory()
    logging.setLogRecordFactory(partial(ours))
    handler = Records()
    log.addHandler(handler)
    undo()
    try:
        with traced_block("orders.create"):
            log.info("created")
    finally:
        logging.setLogRecordFactory(plain)
    assert "trace_id" not in handler.seen[0].__dict__


@pytest.mark.parametrize("order", ["install first", "dictConfig first"])
def test_dict_config_may_come_before_or_after(order: str) -> None:
    code = f"""
import logging, logging.config
from opentelemetry.sdk.trace import TracerProvider
from tracekit import traced_block
from tracekit._config import runtime
from tracekit.logs import install

runtime.use(provider=TracerProvider())
if {order == "install first"}:
    install()
logging.config.dictConfig({{
    "version": 1,
    "formatters": {{"line": {{"format": "%(name)s %(trace_id)s %(message)s"}}}},
    "handlers": {{"out": {{"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "line"}}}},
    "root": {{"level": "INFO", "handlers": ["out"]}},
}})
install()
logging.getLogger("shop").info("start")
with traced_block("orders.create") as span:
    logging.getLogger("shop").info("created")
    print(format(span.get_span_context().trace_id, "032x"))
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)
    start, created, trace_id = run.stdout.splitlines()
    assert (start, created) == ("shop - start", f"shop {trace_id} created")
    assert not run.stderr


class PlainJson(logging.Formatter):
    """A JSON formatter as people write it: everything a record has besides the standard fields."""

    STANDARD: Final = {*logging.makeLogRecord({}).__dict__, "message"}

    def format(self, record: logging.LogRecord) -> str:
        more = {key: value for key, value in record.__dict__.items() if key not in self.STANDARD}
        return json.dumps({"message": record.getMessage(), **more})


def _json_formatters() -> list[logging.Formatter]:
    formatters: list[logging.Formatter] = [PlainJson()]
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ImportError:
        return formatters
    return [*formatters, JsonFormatter("%(message)s")]


@pytest.mark.parametrize("formatter", _json_formatters(), ids=lambda formatter: type(formatter).__name__)
def test_json_has_the_fields_exactly_where_there_is_a_span(
    log: logging.Logger, installed: None, formatted: Callable[..., io.StringIO], formatter: logging.Formatter
) -> None:
    stream = formatted(formatter)
    log.info("before")
    with traced_block("orders.create"):
        trace_id, span_id = _current_ids()
        log.info("created", extra={"order_id": 7})
    before, created = map(json.loads, stream.getvalue().splitlines())
    assert before == {"message": "before"}
    assert created == {
        "message": "created",
        "order_id": 7,
        "trace_id": trace_id,
        "span_id": span_id,
        "trace_sampled": True,
        "service": "shop",
    }


def test_uvicorns_loggers_show_the_ids(installed: None) -> None:
    logs = pytest.importorskip("uvicorn.logging")
    stream = io.StringIO()
    access, server = logging.getLogger("uvicorn.access"), logging.getLogger("uvicorn.error")
    formats = {
        access: logs.AccessFormatter("%(trace_id)s %(status_code)s %(request_line)s", use_colors=False),
        server: logs.DefaultFormatter("%(levelprefix)s %(trace_id)s %(message)s", use_colors=True),
    }
    for logger, formatter in formats.items():
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        server.info("started")
        with traced_block("GET /orders"):
            trace_id = current_trace_id()
            access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:5", "GET", "/orders", "1.1", 200)
    finally:
        for logger in formats:
            logger.handlers.clear()
            logger.propagate = True
    assert stream.getvalue().splitlines()[0].endswith(" - started")
    assert stream.getvalue().splitlines()[1].startswith(f"{trace_id} 200 OK")


def test_a_record_is_made_whatever_the_current_span_does(log: logging.Logger, records: list[Any]) -> None:
    class Broken(trace_api.NonRecordingSpan):
        def get_span_context(self) -> Any:
            raise RuntimeError

    before = diagnostics.internal_errors
    with trace_api.use_span(Broken(trace_api.INVALID_SPAN_CONTEXT)):
        log.info("created")
    assert records[0].getMessage() == "created"
    assert diagnostics.internal_errors > before


# structlog


@pytest.fixture
def structured() -> Iterator[list[dict[str, Any]]]:
    structlog = pytest.importorskip("structlog")
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[add_trace_context, capture], cache_logger_on_first_use=False)
    yield capture.entries
    structlog.reset_defaults()


def test_structlog_events_have_the_ids_exactly_where_there_is_a_span(structured: list[Any]) -> None:
    import structlog

    log = structlog.get_logger()
    log.info("before")
    with traced_block("orders.create"):
        trace_id, span_id = _current_ids()
        log.info("created", order_id=7, service="billing")
    assert not FIELDS & structured[0].keys()
    assert structured[1] == {
        "event": "created",
        "log_level": "info",
        "order_id": 7,
        "service": "billing",
        "trace_id": trace_id,
        "span_id": span_id,
        "trace_sampled": True,
    }


def test_structlog_in_an_exception_handler_after_the_span_has_its_ids(structured: list[Any]) -> None:
    import structlog

    @traced
    def fail() -> None:
        ids.append(current_trace_id())
        raise ValueError

    ids: list[Any] = []
    try:
        fail()
    except ValueError as error:
        structlog.get_logger().exception("failed")
        structlog.get_logger().error("failed", exc_info=error)
        structlog.get_logger().error("something else")
    assert [entry.get("trace_id") for entry in structured] == [*ids, *ids, None]


def test_structlogs_async_methods_log_with_the_callers_span(structured: list[Any]) -> None:
    import structlog

    async def create() -> None:
        with traced_block("orders.create"):
            ids.append(current_trace_id())
            await structlog.stdlib.get_logger().ainfo("created")

    ids: list[Any] = []
    structlog.configure(wrapper_class=structlog.stdlib.BoundLogger)
    asyncio.run(create())
    assert [entry["trace_id"] for entry in structured] == ids


def test_structlogs_formatter_shows_the_ids_a_foreign_record_was_made_with(
    log: logging.Logger, installed: None
) -> None:
    structlog = pytest.importorskip("structlog")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[add_trace_context],
        )
    )
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    log.addHandler(logging.handlers.QueueHandler(records))
    listener = logging.handlers.QueueListener(records, handler)
    with traced_block("orders.create"):
        trace_id, span_id = _current_ids()
        log.info("created")
    listener.start()
    listener.stop()
    line = json.loads(stream.getvalue())
    assert (line["trace_id"], line["span_id"], line["service"]) == (trace_id, span_id, "shop")


# loguru


def test_loguru_records_have_the_ids_exactly_where_there_is_a_span() -> None:
    loguru = pytest.importorskip("loguru")
    seen: list[dict[str, Any]] = []

    @traced
    def fail() -> None:
        ids.append(current_trace_id())
        raise ValueError

    ids: list[Any] = []
    loguru.logger.configure(
        handlers=[{"sink": lambda message: seen.append(message.record), "format": "{message}"}],
        patcher=loguru_patcher,
    )
    try:
        loguru.logger.info("before")
        with traced_block("orders.create"):
            ids.append(current_trace_id())
            loguru.logger.bind(service="billing").info("created")
        try:
            fail()
        except ValueError:
            loguru.logger.exception("failed")
    finally:
        loguru.logger.configure(handlers=[], patcher=lambda record: None)
    before, created, failed = (record["extra"] for record in seen)
    assert not FIELDS & before.keys()
    assert (created["trace_id"], created["service"], created["trace_sampled"]) == (ids[0], "billing", True)
    assert failed["trace_id"] == ids[1]


def test_a_loguru_format_may_name_the_fields_with_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    loguru = pytest.importorskip("loguru")
    stream = io.StringIO()
    loguru.logger.configure(
        handlers=[{"sink": stream, "format": "{extra[trace_id]} {message}"}],
        extra={"trace_id": "-"},
        patcher=loguru_patcher,
    )
    try:
        loguru.logger.info("before")
        with traced_block("orders.create"):
            trace_id = current_trace_id()
            loguru.logger.info("created")
    finally:
        loguru.logger.configure(handlers=[], extra={}, patcher=lambda record: None)
    assert stream.getvalue() == f"- before\n{trace_id} created\n"
    assert not capsys.readouterr().err


# Records as events


@pytest.fixture
def as_events(log: logging.Logger) -> logging.Logger:
    log.addHandler(EventHandler())
    return log


def _events(exporter: InMemorySpanExporter) -> list[Any]:
    (span,) = exporter.get_finished_spans()
    return [event for event in span.events if event.name == "log"]


def test_a_record_becomes_an_event_of_the_current_span(
    as_events: logging.Logger, exporter: InMemorySpanExporter
) -> None:
    as_events.info("before")
    with traced_block("orders.create"):
        as_events.warning("low on %s", "stock")
    (event,) = _events(exporter)
    assert dict(event.attributes) == {
        "log.level": "WARNING",
        "log.logger": "shop.orders",
        "log.message": "low on stock",
    }


def test_an_events_message_is_bounded(as_events: logging.Logger, exporter: InMemorySpanExporter) -> None:
    with traced_block("orders.create"):
        as_events.info("x" * 1_000_000)
    assert len(_events(exporter)[0].attributes["log.message"]) <= 2_048


def test_a_logged_exception_is_in_the_event_and_its_stack_trace_once(
    as_events: logging.Logger, exporter: InMemorySpanExporter
) -> None:
    with traced_block("orders.create"):
        try:
            int("seven")
        except ValueError as error:
            as_events.exception("handled")
            with suppress(ValueError), traced_block("orders.inner"):
                raise
            as_events.info("again", exc_info=error)
    outer = next(span for span in exporter.get_finished_spans() if span.name == "orders.create")
    first, again = (event.attributes for event in outer.events if event.name == "log" and event.attributes)
    assert first["exception.type"] == again["exception.type"] == "ValueError"
    assert "seven" in str(first["exception.message"])
    assert "test_logs.py" in str(first["exception.stacktrace"])
    assert "exception.stacktrace" not in again, "the inner span has it"


def test_a_level_keeps_lower_records_out(log: logging.Logger, exporter: InMemorySpanExporter) -> None:
    log.addHandler(EventHandler(logging.WARNING))
    with traced_block("orders.create"):
        log.info("no")
        log.warning("yes")
    assert [event.attributes["log.message"] for event in _events(exporter)] == ["yes"]


def test_a_filter_keeps_records_out(log: logging.Logger, exporter: InMemorySpanExporter) -> None:
    handler = EventHandler()
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    log.addHandler(handler)
    with traced_block("orders.create"):
        log.info("a secret")
        log.info("yes")
    assert [event.attributes["log.message"] for event in _events(exporter)] == ["yes"]


@pytest.fixture
def _everything_as_events() -> Iterator[None]:
    handler = EventHandler()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield
    root.removeHandler(handler)
    root.setLevel(level)


class Talking:
    """Logs while it is turned into a string."""

    def __str__(self) -> str:
        logging.getLogger("shop.talking").warning("being printed")
        return "talking"


def _handle(message: str, *args: object) -> None:
    """Give a record to the root's `EventHandler` alone: pytest's own handlers render messages too."""
    handler = next(handler for handler in logging.getLogger().handlers if isinstance(handler, EventHandler))
    handler.handle(logging.makeLogRecord({"name": "shop", "levelname": "INFO", "msg": message, "args": args}))


def _in_time(work: Callable[[], object]) -> None:
    """Run *work* on a thread; a deadlock fails instead of hanging the tests."""
    errors: list[BaseException] = []
    context = trace_api.get_current_span()

    def run() -> None:
        try:
            with trace_api.use_span(context):
                work()
        except BaseException as error:  # noqa: BLE001  # shown below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "deadlock"
    assert not errors


@pytest.mark.usefixtures("_everything_as_events")
def test_a_message_that_logs_while_it_is_rendered_makes_one_event(exporter: InMemorySpanExporter) -> None:
    with traced_block("orders.create"):
        _in_time(lambda: _handle("%s", Talking()))
    assert [event.attributes["log.message"] for event in _events(exporter)] == ["talking"]


@pytest.mark.usefixtures("_everything_as_events")
@pytest.mark.parametrize(
    "change",
    [
        lambda span: span.set_attribute("odd", Talking()),
        lambda span: span.set_attribute("odd", object()),
        lambda span: span.add_event("odd", {"odd": Talking()}),
        lambda span: span.set_attributes({f"key {number}": number for number in range(300)}),
        lambda span: [span.add_event("e") for _ in range(300)],
        lambda span: (span.end(), span.set_attribute("late", 1), span.add_event("late")),
        lambda span: span.set_attribute("bad", [1, "mixed", None, Talking()]),
    ],
)
def test_the_sdk_logging_with_its_span_locked_is_no_deadlock(change: Any) -> None:
    with traced_block("orders.create") as span:
        _in_time(lambda: change(span))


@pytest.mark.usefixtures("_everything_as_events")
def test_what_tracekit_and_opentelemetry_log_makes_no_event(exporter: InMemorySpanExporter) -> None:
    with traced_block("orders.create"):
        for name in ("tracekit", "tracekit.export", "opentelemetry", "opentelemetry.sdk.trace"):
            logging.getLogger(name).warning("ours")
        logging.getLogger("tracekit_user").warning("theirs")
    assert [event.attributes["log.logger"] for event in _events(exporter)] == ["tracekit_user"]


@pytest.mark.usefixtures("_everything_as_events")
def test_a_message_that_waits_for_a_lock_whose_holder_logs_is_no_deadlock() -> None:
    lock = threading.Lock()
    holder_has_it, message_wants_it = threading.Event(), threading.Event()

    class Locking:
        def __str__(self) -> str:
            message_wants_it.set()
            with lock:
                return "got it"

    def hold() -> None:
        with lock:
            holder_has_it.set()
            message_wants_it.wait(20)
            logging.getLogger("shop").info("holding")

    def both() -> None:
        holder = threading.Thread(target=hold, daemon=True)
        holder.start()
        holder_has_it.wait(20)
        _handle("%s", Locking())
        holder.join(20)
        assert not holder.is_alive()

    with traced_block("orders.create"):
        _in_time(both)


@pytest.mark.usefixtures("_everything_as_events")
def test_a_message_that_cannot_be_rendered_costs_only_its_event(exporter: InMemorySpanExporter) -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    before = diagnostics.internal_errors
    with traced_block("orders.create"):
        _handle("%s", Hostile())
        _handle("%d", "no number")
        _handle("fine")
    assert [event.attributes["log.message"] for event in _events(exporter)] == ["fine"]
    assert diagnostics.internal_errors == before + 2


def test_logging_can_be_shut_down_with_the_handler() -> None:
    logging.shutdown([EventHandler])


def test_neither_structlog_nor_loguru_is_imported() -> None:
    code = "import sys, tracekit.logs; print({'structlog', 'loguru', 'opentelemetry.sdk'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_the_example_finds_the_lines_of_the_order_that_failed() -> None:
    example = Path(__file__).parent.parent / "examples" / "logs" / "orders.py"
    run = subprocess.run([sys.executable, "-W", "error", example], check=True, capture_output=True, text=True)
    command, *lines = run.stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [line["message"] for line in found] == [
        "order 3 received",
        "stock reserved for order 3",
        "charging order 3",
        "order 3 failed: card declined",
    ]
    assert {line["trace_id"] for line in found} == {command.split()[2]}
    assert found[3]["span_id"] == found[2]["span_id"], "where it failed"
