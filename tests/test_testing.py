"""`tracekit.testing`: every span is captured, nothing is left behind, and a failed assertion shows what there was."""

from __future__ import annotations

import contextlib
import random
import re
import threading
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from tracekit import add_event, add_link, configure, current_span, extract, traced, traced_block
from tracekit._config import runtime
from tracekit.testing import CapturedSpan, CapturedSpans, capture_spans

pytest_plugins = ["pytester"]


@pytest.fixture
def _order(spans: CapturedSpans) -> None:
    """Capture an order whose payment fails."""
    with contextlib.suppress(ValueError), traced_block("orders.create", {"order.id": 7}) as create:
        with traced_block("orders.validate"):
            pass
        with traced_block("payments.charge", kind="client"):
            add_event("payment_started", {"order_id": 7})
            add_link(create)
            raise ValueError("declined")  # noqa: EM101


def test_spans_are_captured_as_they_end() -> None:
    with capture_spans() as spans:
        with traced_block("test.outer"):
            with traced_block("test.inner"):
                assert not spans
            assert spans.names == ["test.inner"]
        assert spans.names == ["test.inner", "test.outer"]
    with traced_block("test.after"):
        pass
    assert len(spans) == 2


def test_spans_of_other_threads_are_captured(spans: CapturedSpans) -> None:
    def work() -> None:
        for _ in range(100):
            with traced_block("test.thread"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(spans.all("test.thread")) == 400


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    before = (runtime.settings, runtime.provider, trace.get_tracer_provider())
    with pytest.raises(ValueError, match="in the test"), capture_spans():
        raise ValueError("in the test")  # noqa: EM101
    assert (runtime.settings, runtime.provider, trace.get_tracer_provider()) == before
    with traced_block("test.block") as span:
        assert not span.is_recording()


def test_random_numbers_of_the_test_are_left_alone(spans: CapturedSpans) -> None:
    random.seed(7)
    expected = random.random()
    random.seed(7)
    with traced_block("test.block"):
        assert random.random() == expected


def test_what_configure_set_is_back_afterwards() -> None:
    configure(exporter="memory")
    provider = runtime.provider
    with capture_spans() as spans, traced_block("test.captured"):
        pass
    assert spans.names == ["test.captured"]
    assert runtime.provider is provider


def test_configure_while_capturing_takes_effect_afterwards() -> None:
    with capture_spans() as spans:
        configure(exporter="none", capture_arguments=False)
        with traced_block("test.captured"):
            pass
    assert spans.names == ["test.captured"]
    with traced_block("test.after") as span:
        assert span.is_recording()
    assert spans.names == ["test.captured"]


def test_captures_may_end_in_any_order() -> None:
    first, second = capture_spans(), capture_spans()
    first_spans, second_spans = first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    with traced_block("test.block"):
        pass
    second.__exit__(None, None, None)
    assert (first_spans.names, second_spans.names) == ([], ["test.block"])
    with traced_block("test.after") as span:
        assert not span.is_recording()


def test_provider_of_opentelemetry_and_sampling_do_not_matter() -> None:
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    configure(sample=0.0, exporter="none")
    unsampled = extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"})
    with capture_spans() as spans:
        with traced_block("test.block"):
            pass
        with traced_block("test.remote", parent=unsampled):
            pass
    assert spans.names == ["test.block", "test.remote"]


def test_captures_nest(spans: CapturedSpans) -> None:
    with capture_spans() as inner, traced_block("test.inner"):
        pass
    with traced_block("test.outer"):
        pass
    assert (inner.names, spans.names) == (["test.inner"], ["test.outer"])


@pytest.mark.usefixtures("_order")
def test_spans_know_their_place(spans: CapturedSpans) -> None:
    create, charge = spans.one("orders.create"), spans.one("payments.charge")
    assert charge.parent is create
    assert create.parent is None
    assert [child.name for child in create.children] == ["orders.validate", "payments.charge"]
    assert spans.roots == [create]
    assert spans.all() == list(spans) == spans[:]
    assert spans.all("orders.validate") == [spans[0]]
    assert charge.trace_id == create.trace_id == charge.context.trace_id


@pytest.mark.usefixtures("_order")
def test_spans_tell_what_they_hold(spans: CapturedSpans) -> None:
    create, charge = spans.one("orders.create"), spans.one("payments.charge")
    assert create.attributes["order.id"] == 7
    assert charge.kind is SpanKind.CLIENT
    assert [event.name for event in charge.events] == ["payment_started", "exception"]
    assert charge.event("payment_started").attributes == {"order_id": 7}
    assert [link.context.span_id for link in charge.links] == [create.span_id]
    assert charge.status.status_code is StatusCode.ERROR
    assert charge.end_time > charge.start_time  # of ReadableSpan
    assert repr(charge) == "<CapturedSpan 'payments.charge' ERROR>"


def test_parent_that_was_not_captured_is_told_by_its_context(spans: CapturedSpans) -> None:
    remote = extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    with traced_block("test.block", parent=remote):
        pass
    parent = spans.one("test.block").parent
    assert not isinstance(parent, CapturedSpan)
    assert parent is not None
    assert parent.span_id == 0xB7AD6B7169203331
    assert spans.roots == [spans[0]]


@pytest.mark.usefixtures("_order")
def test_assertion_that_fails_shows_what_was_captured(spans: CapturedSpans) -> None:
    with pytest.raises(AssertionError, match=r"0 spans are called 'orders\.cancel', expected one") as failed:
        spans.one("orders.cancel")
    assert "payments.charge  ERROR ValueError: declined" in str(failed.value)
    with pytest.raises(AssertionError, match=r"has 0 events called 'refund'.*: payment_started, exception"):
        spans.one("payments.charge").event("refund")
    with pytest.raises(AssertionError, match="The trees differ") as failed:
        spans.assert_tree("orders.create")
    assert "orders.validate" in str(failed.value)


def test_one_of_several_or_of_none_is_an_error(spans: CapturedSpans) -> None:
    with pytest.raises(AssertionError, match=r"expected one. Captured:\n\(nothing\)"):
        spans.one("test.block")
    for _ in range(2):
        with traced_block("test.block"):
            pass
    with pytest.raises(AssertionError, match=r"2 spans are called 'test\.block', expected one"):
        spans.one("test.block")


def test_name_that_is_misspelt_is_answered_with_the_one_that_there_is(spans: CapturedSpans) -> None:
    with traced_block("pay.charge"):
        pass
    told = r"'pay\.chrage'.*\. Did you mean 'pay\.charge'\? Captured:\n"
    with pytest.raises(AssertionError, match=told):
        spans.one("pay.chrage")
    with pytest.raises(AssertionError, match=told):
        spans.wait_for("pay.chrage", timeout_s=0)
    with pytest.raises(AssertionError, match=r"expected one\. Captured:"):
        spans.one("mail.send")


@pytest.mark.usefixtures("_order")
def test_status_and_kind_that_do_not_exist_are_errors_that_name_those_that_do(spans: CapturedSpans) -> None:
    span = spans.one("payments.charge")
    with pytest.raises(
        ValueError, match=r"has_status\('FAILED'\): there is no such status, expected UNSET, OK or ERROR"
    ):
        span.has_status("FAILED")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no such kind, expected internal, server, client, producer or consumer"):
        span.has_kind("CLIENT")  # type: ignore[arg-type]


@pytest.mark.usefixtures("_order")
def test_tree_is_the_same_text_in_each_run(spans: CapturedSpans) -> None:
    tree = spans.tree()
    assert tree.startswith("orders.create  ")
    assert "ms" not in tree
    assert f"{spans[0].trace_id:032x}" not in tree
    spans.assert_tree(tree)


@pytest.mark.parametrize(
    "expected",
    [
        """
        orders.create
          orders.validate
          payments.charge
        """,
        """
        orders.create  order.id=7
        ├─ orders.validate
        └─ payments.charge  ERROR ValueError: declined
           • payment_started  order_id=7
        """,
        """
        orders.create
          orders.validate
          payments.charge
            • payment_started
            → link to orders.create
        """,
        """
        orders.create
            orders.validate
            payments.charge  ERROR
        """,
    ],
)
@pytest.mark.usefixtures("_order")
def test_tree_matches_what_is_said_of_it(spans: CapturedSpans, expected: str) -> None:
    spans.assert_tree(expected)


@pytest.mark.parametrize(
    "expected",
    [
        "",
        "orders.create",
        """
        orders.create
          payments.charge
          orders.validate
        """,
        """
        orders.create
          orders.validate
            payments.charge
        """,
        """
        orders.create
        orders.validate
        payments.charge
        """,
        """
        orders.create  order.id=8
          orders.validate
          payments.charge
        """,
        """
        orders.create
          orders.validate  ERROR
          payments.charge
        """,
        """
        orders.create
          orders.valid
          payments.charge
        """,
        """
        orders.create
          orders.validate
          • payment_started
          payments.charge
        """,
    ],
)
@pytest.mark.usefixtures("_order")
def test_tree_that_differs_is_told_apart(spans: CapturedSpans, expected: str) -> None:
    with pytest.raises(AssertionError, match="The trees differ"):
        spans.assert_tree(expected)


def test_several_traces_stand_one_after_the_other(spans: CapturedSpans) -> None:
    for number in range(2):
        with traced_block(f"test.root_{number}"):
            pass
    spans.assert_tree(
        """
        test.root_0
        test.root_1
        """
    )


def test_cleared_spans_are_forgotten(spans: CapturedSpans) -> None:
    with traced_block("test.block"):
        pass
    spans.clear()
    assert not spans
    assert spans.tree() == ""


def test_settings_hold_while_capturing() -> None:
    @traced("test.call")
    def call(a: int) -> bool:
        return current_span().is_recording()

    configure(capture_arguments=False, exporter="none")
    with capture_spans() as spans:
        assert call(1)
    assert "a" not in spans.one("test.call").attributes


@pytest.mark.slow
def test_fixture_comes_with_the_installed_package(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from tracekit import traced_block

        def test_first(spans):
            with traced_block("test.block"):
                pass
            spans.one("test.block")

        def test_second(spans):
            assert not spans
        """
    )
    pytester.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=2)


def test_switching_the_sdk_off_does_not_switch_capturing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    configure()
    with capture_spans() as spans, traced_block("test.block"):
        pass
    spans.one("test.block")
    with traced_block("test.after") as span:
        assert not span.is_recording()


def test_failure_is_shown_where_the_test_asserts(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from tracekit import traced_block

        def test_order(spans):
            with traced_block("orders.create"):
                pass
            spans.one("orders.create").has_status("ERROR")
        """
    )
    ran = pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:cacheprovider")
    ran.stdout.fnmatch_lines(
        [
            '>       spans.one("orders.create").has_status("ERROR")',
            "E       AssertionError: orders.create has status OK, expected ERROR. Captured:",
            "E         > orders.create",
            "test_failure_is_shown_where_the_test_asserts.py:6: AssertionError",
        ]
    )


@pytest.mark.slow
def test_workers_of_xdist_capture_their_own_spans(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from tracekit import traced_block

        @pytest.mark.parametrize("number", range(20))
        def test_order(spans, number):
            with traced_block(f"orders.create_{number}"):
                pass
            assert spans.names == [f"orders.create_{number}"]
        """
    )
    pytester.runpytest_subprocess("-p", "no:randomly", "-n", "2").assert_outcomes(passed=20)


def test_examples_of_the_documentation_pass_as_tests(pytester: pytest.Pytester) -> None:
    document = Path(__file__).parent.parent.joinpath("docs", "testing.md").read_text(encoding="utf-8")
    pytester.makepyfile("\n".join(re.findall(r"^```python\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)))
    warnings = ("-W", "error", "-W", "ignore:Using `httpx` with `starlette.testclient`")
    pytester.runpytest_subprocess("-p", "no:randomly", *warnings).assert_outcomes(passed=4)
