"""Code that interrupts the making of a span, or runs because of it, may use spans too: nothing hangs or recurses."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import tracekit
from tracekit import add_event, current_span, lifecycle, record_exception, set_attribute, traced, traced_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


@pytest.fixture
def tracing() -> Iterator[tracekit.Tracing]:
    with tracekit.configure(exporter="memory") as tracing:
        yield tracing


@pytest.fixture
def add_handler() -> Iterator[Callable[[logging.Handler], None]]:
    root, added = logging.getLogger(), []

    def add(handler: logging.Handler) -> None:
        added.append(handler)
        root.addHandler(handler)

    yield add
    for handler in added:
        root.removeHandler(handler)


class SpanHandler(logging.Handler):
    """A log handler as programs write them: each record becomes an event, and an attribute, of the current span."""

    def emit(self, record: logging.LogRecord) -> None:
        span = current_span()
        span.add_event("log", {"message": record.getMessage()})
        span.set_attribute(f"log.{len(record.getMessage())}", record.getMessage())
        add_event("log")
        set_attribute("unknown", object())


def _in_time(run: Callable[[], None]) -> None:
    """Call *run* in a thread of its own: one that hangs fails the test and not the whole suite."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001  # raised again below
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it hangs"
    if raised:
        raise raised[0]


@pytest.mark.engine("a log handler that is told of a value finds the lock of the attributes taken")
@pytest.mark.parametrize(
    "log",
    [
        pytest.param(lambda span: span.set_attribute("odd", object()), id="attribute of an unknown type"),
        pytest.param(lambda span: [span.set_attribute(f"key{n}", n) for n in range(200)], id="attributes past it"),
        pytest.param(lambda span: span.set_attributes({f"key{n}": n for n in range(300)}), id="many at once"),
        pytest.param(lambda span: (span.end(), span.set_attribute("late", 1)), id="attribute of an ended span"),
        pytest.param(lambda span: (span.end(), span.add_event("late")), id="event of an ended span"),
        pytest.param(lambda span: (span.end(), span.end()), id="an end after the end"),
        pytest.param(lambda span: span.add_event("event", {"odd": object()}), id="event with an unknown type"),
        pytest.param(lambda span: set_attribute("odd", object()), id="tracekit's own warning"),
    ],
)
def test_log_handler_that_adds_to_the_span_neither_hangs_nor_recurses(
    tracing: tracekit.Tracing, add_handler: Callable[[logging.Handler], None], log: Callable[[Any], object]
) -> None:
    add_handler(SpanHandler())

    def run() -> None:
        with traced_block("test.block") as span:
            log(span)

    _in_time(run)
    assert [span.name for span in tracing.spans] == ["test.block"]


@pytest.mark.engine("a log handler that is told of a value finds the lock of the attributes taken")
def test_log_handler_that_adds_to_the_span_is_told_of_the_limit_once(
    tracing: tracekit.Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    with traced_block("test.block") as span:
        for number in range(10_000):
            span.set_attribute(f"key{number}", number)
    assert len([record for record in caplog.records if "oldest" in record.getMessage()]) == 1
    assert tracing.spans[0].dropped_attributes == 10_000 - 128


@pytest.mark.engine("their locks are not re-entrant")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no interval timers here")
def test_signal_handler_that_adds_to_the_span_neither_hangs_nor_recurses(tracing: tracekit.Tracing) -> None:
    handled = 0

    def handler(_signum: int, _frame: object) -> None:
        nonlocal handled
        handled += 1
        set_attribute("handled", handled)
        add_event("handled", {"number": handled})
        record_exception(ValueError("in a handler"))
        span = current_span()
        span.set_attribute("raw", handled)
        span.add_event("raw")
        with traced_block("test.handler"):
            pass

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        number = 0
        with traced_block("test.block"):
            while handled < 200 and number < 1_000_000:
                number += 1
                set_attribute(f"key{number % 300}", number)
                add_event("event", {"number": number})
                with traced_block("test.inner", {"number": number}):
                    set_attribute("list", [number, "x", {"key": number}])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled >= 200
    names = [span.name for span in tracing.spans]
    assert names.count("test.block") == 1
    assert set(names) == {"test.block", "test.inner", "test.handler"}


@pytest.mark.engine("their locks are not re-entrant")
def test_signal_handler_that_interrupts_the_adding_of_an_event_does_not_wait_for_it(tracing: tracekit.Tracing) -> None:
    """Interrupt at every line of the SDK's and the engine's code in turn, as a signal may."""
    interrupted = 0

    def run(stop_at: int) -> bool:
        lines = 0
        interrupting = False

        def trace(frame: Any, event: str, _arg: object) -> Any:
            nonlocal lines, interrupting, interrupted
            if "tracekit" not in frame.f_code.co_filename and "opentelemetry" not in frame.f_code.co_filename:
                return None
            if event == "line" and not interrupting:
                lines += 1
                if lines == stop_at:
                    interrupting = True
                    interrupted += 1
                    current_span().add_event("handler")
                    add_event("handler")
                    current_span().add_link(current_span().get_span_context())
                    set_attribute("handler", 1)
            return trace

        with traced_block("test.block") as span:
            before = sys.gettrace()
            sys.settrace(trace)
            try:
                add_event("first", {"key": "value"})
                add_event("second")
                span.add_link(span.get_span_context())
                set_attribute("key", [1, "a"])
            finally:
                sys.settrace(before)
        ended = tracing.spans[-1]
        if interrupting:
            assert [event.name for event in ended.events if event.name != "handler"] == ["first", "second"]
            assert [event.name for event in ended.events].count("handler") == 2
            assert len(ended.links) == 2
            assert ended.attributes is not None
            assert (ended.attributes["handler"], ended.attributes["key"]) == (1, '[1, "a"]')
        return interrupting

    def run_all() -> None:
        stop_at = 1
        while run(stop_at):
            stop_at += 1

    _in_time(run_all)
    assert interrupted > 50


def test_finaliser_that_ends_a_span_while_an_attribute_is_set(tracing: tracekit.Tracing) -> None:
    class Holder:
        def __init__(self) -> None:
            self.itself = self
            self.block = traced_block("test.held")
            self.span = self.block.__enter__()

        def __del__(self) -> None:
            self.span.set_attribute("finalised", True)
            self.span.add_event("finalised")
            set_attribute("finaliser", [1, "x"])
            self.block.__exit__(None, None, None)

    def run() -> None:
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            with traced_block("test.block"):
                for number in range(200):
                    Holder()
                    set_attribute("key", [number, "x", {"deep": [number]}])
                    add_event("event", {"number": number})
        finally:
            gc.set_threshold(*threshold)
            gc.collect()

    _in_time(run)
    held = [span for span in tracing.spans if span.name == "test.held"]
    assert len(held) == 200
    assert all(span.attributes and span.attributes["finalised"] is True for span in held)


def test_value_that_touches_the_span_from_its_own_methods_is_never_asked(tracing: tracekit.Tracing) -> None:
    class Touching:
        def __str__(self) -> str:
            set_attribute("key", self)
            current_span().add_event("touched")
            logging.getLogger("test").warning("touched")
            return "touching"

        __repr__ = __str__

        def __getattribute__(self, name: str) -> Any:
            set_attribute("key", self)
            raise RuntimeError

    @traced("test.call", capture=("value",))
    def call(value: object) -> None:
        set_attribute("key", value)
        add_event("event", {"key": value})

    _in_time(lambda: call(Touching()))
    assert [event.name for event in tracing.spans[0].events] == ["event"]


@pytest.mark.engine("their locks are not re-entrant")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork_while_another_thread_adds_events_leaves_the_child_able_to(tracing: tracekit.Tracing) -> None:
    stop = threading.Event()
    with traced_block("test.block") as span:

        def keep_adding() -> None:
            while not stop.is_set():
                span.add_event("event")

        threads = [threading.Thread(target=keep_adding) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                child = os.fork()
                if not child:
                    signal.alarm(20)  # a child that hangs dies of it
                    span.add_event("child")
                    with traced_block("test.child"):
                        add_event("child")
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_events_of_many_threads_are_bounded_counted_and_each_threads_in_order(tracing: tracekit.Tracing) -> None:
    with traced_block("test.block") as span:
        start = threading.Barrier(4)

        def add(thread: int) -> None:
            start.wait()
            for number in range(500):
                span.add_event("event", {"thread": thread, "number": number})

        threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    ended = tracing.spans[0]
    assert len(ended.events) == 128
    assert ended.dropped_events == 2_000 - 128  # type: ignore[attr-defined]
    said: list[Any] = [event.attributes for event in ended.events]
    for thread in range(4):
        numbers = [one["number"] for one in said if one["thread"] == thread]
        assert numbers == sorted(numbers)


def test_events_keep_their_order_and_times(tracing: tracekit.Tracing) -> None:
    before = time.time_ns()
    with traced_block("test.block"):
        add_event("first")
        add_event("of_yesterday", timestamp_ns=before - 86_400_000_000_000)
        with lifecycle("outer"), lifecycle("inner"):
            add_event("between")
        add_event("last")
    [span] = tracing.spans
    assert [event.name for event in span.events] == [
        *("first", "of_yesterday", "outer_started", "inner_started", "between"),
        *("inner_completed", "outer_completed", "last"),
    ]
    times = [event.timestamp for event in span.events if event.name != "of_yesterday"]
    assert times == sorted(times)
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time <= times[0] <= times[-1] <= span.end_time
    assert span.events[1].timestamp == before - 86_400_000_000_000


def test_a_collection_calls_no_python_code_in_which_ctrl_c_would_be_lost() -> None:
    called: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.append(frame.f_code.co_filename)

    gc.collect()  # what is here is not ours to watch
    sys.setprofile(note)
    try:
        gc.collect()
    finally:
        sys.setprofile(None)
    assert not [name for name in called if "tracekit" in name]
