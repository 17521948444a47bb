"""Finding instrumentations by name: entry points on the path, what is missing, what lags, what is wired."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from libraries import captured_spans
from opentelemetry.trace import INVALID_SPAN, ProxyTracerProvider, get_tracer_provider

from tracekit._config import runtime
from tracekit.errors import InstrumentationError
from tracekit.instrumentation import instrument, instrumented, registry, uninstrument
from tracekit.instrumentation.provider import following_provider
from tracekit.testing import capture_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tracekit.testing import CapturedSpans

INSTRUMENTATION: Final = """
import os
from opentelemetry import trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

tracer = None
calls = []

class Shared:
    def instrumentation_dependencies(self):
        return ["{requires}"]
    def _instrument(self, **kwargs):
        global tracer
        calls.append(("wired", {{k: v for k, v in kwargs.items() if k != "tracer_provider"}}))
        calls.append(os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN"))
        tracer = trace.get_tracer("one", "1", kwargs["tracer_provider"])
        if kwargs.get("fail"):
            raise KeyError("settings")
    def _uninstrument(self, **kwargs):
        calls.append("unwired")

class One(Shared, BaseInstrumentor):
    pass

class Two(Shared, BaseInstrumentor):
    pass
"""


@pytest.fixture
def spans() -> Iterator[CapturedSpans]:
    with captured_spans() as spans:
        yield spans


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Put a package with an instrumentation on the path, as pip would, and return what imports its module."""
    monkeypatch.setattr(registry, "_wirings", {})
    modules: list[str] = []

    def install(name: str, entry_points: dict[str, str], requires: str = "pytest", code: str = INSTRUMENTATION) -> Any:
        module = name.replace("-", "_")
        modules.append(module)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        lines = [f"{key} = {module}:{cls}" for key, cls in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[opentelemetry_instrumentor]", *lines]), encoding="utf-8")
        (tmp_path / f"{module}.py").write_text(code.format(requires=requires), encoding="utf-8")
        return lambda: sys.modules[module]

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    uninstrument()
    for module in modules:
        sys.modules.pop(module, None)


def test_installed_instrumentation_is_found_by_entry_point_in_any_spelling(
    spans: CapturedSpans, install: Callable[..., Any]
) -> None:
    module = install("opentelemetry-instrumentation-shop-db", {"shop_db": "One"})
    for name in ("shop-db", "shop_db", "Shop.DB"):
        [state] = instrument(name)
        assert (state.name, state.is_wired, state.by) == (
            "shop-db",
            True,
            "opentelemetry-instrumentation-shop-db 1.0",
        )
    [state] = instrumented()
    assert state.name == "shop-db"
    assert module().calls == [("wired", {}), "http,database"]
    module().tracer.start_span("query").end()
    assert spans.names == ["query"]
    uninstrument("shop_db")
    uninstrument("shop_db")
    assert module().calls[2:] == ["unwired"]
    assert instrumented() == ()


def test_package_with_several_instrumentations_is_wired_whole(
    spans: CapturedSpans, install: Callable[..., Any]
) -> None:
    install("opentelemetry-instrumentation-rpc", {"rpc_client": "One", "rpc_server": "Two"})
    assert [state.name for state in instrument("rpc")] == ["rpc-client", "rpc-server"]
    uninstrument("rpc-client")
    assert [state.name for state in instrumented()] == ["rpc-server"]


def test_several_names_are_wired_in_one_call_and_all_are_taken_back(
    spans: CapturedSpans, install: Callable[..., Any]
) -> None:
    install("opentelemetry-instrumentation-one", {"one": "One"})
    install("opentelemetry-instrumentation-two", {"two": "Two"})
    assert [state.is_wired for state in instrument("one", "two", "httpx")] == [True] * 3
    uninstrument()
    assert instrumented() == ()


def test_unknown_name_leaves_the_others_unwired(spans: CapturedSpans, install: Callable[..., Any]) -> None:
    install("opentelemetry-instrumentation-one", {"one": "One"})
    with pytest.raises(InstrumentationError, match=r"'nonsense'.*there are: .*one, sqlalchemy"):
        instrument("one", "nonsense")
    assert instrumented() == ()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pymongo", "Install it: pip install opentelemetry-instrumentation-pymongo$"),
        ("aiohttp", "opentelemetry-instrumentation-aiohttp-client or opentelemetry-instrumentation-aiohttp-server"),
        ("nonsense", "OpenTelemetry has none either"),
    ],
)
def test_missing_package_is_named_if_there_is_one(name: str, advice: str) -> None:
    with pytest.raises(InstrumentationError, match=advice):
        instrument(name)


@pytest.mark.parametrize("library", ["fastapi", "sqlalchemy", "httpx"])
def test_missing_extra_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_wirings", {})
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"tracekit.instrumentation.{library}", raising=False)
    with pytest.raises(InstrumentationError, match=rf"needs: pip install 'tracekit\[{library}\]'"):
        instrument(library)


def test_missing_library_is_named(spans: CapturedSpans, install: Callable[..., Any]) -> None:
    install("opentelemetry-instrumentation-one", {"one": "One"}, requires="no-such-library >= 2")
    with pytest.raises(InstrumentationError, match="needs a library that is not installed: no-such-library >= 2"):
        instrument("one")
    install("opentelemetry-instrumentation-two", {"two": "Two"}, code="import no_such_library")
    with pytest.raises(InstrumentationError, match=r"cannot load .* No module named 'no_such_library'"):
        instrument("two")


def test_lagging_instrumentation_is_not_wired_and_says_so_once(
    spans: CapturedSpans, install: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    module = install("opentelemetry-instrumentation-one", {"one": "One"}, requires="pytest < 2")
    [state] = instrument("one")
    assert not state.is_wired
    assert f"installed is pytest {pytest.__version__}" in state.reason
    assert "opentelemetry-instrumentation-one 1.0 supports pytest < 2" in state.reason
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("tracekit", state.reason)]
    assert module().calls == []
    [state] = instrument("one", skip_dep_check=True)
    assert state.is_wired


def test_failing_instrumentation_is_named(spans: CapturedSpans, install: Callable[..., Any]) -> None:
    install("opentelemetry-instrumentation-one", {"one": "One"})
    with pytest.raises(InstrumentationError, match=r"instrumentation-one 1.0 failed with KeyError: 'settings'"):
        instrument("one", fail=True)
    assert instrumented() == ()


def test_options_reach_the_instrumentation(spans: CapturedSpans, install: Callable[..., Any]) -> None:
    module = install("opentelemetry-instrumentation-one", {"one": "One"})
    instrument("one", statement=True)
    assert module().calls[0] == ("wired", {"statement": True})


def test_one_app_of_a_library_that_has_no_apps_is_refused(spans: CapturedSpans, install: Callable[..., Any]) -> None:
    install("opentelemetry-instrumentation-one", {"one": "One"})
    with pytest.raises(InstrumentationError, match=r"cannot instrument one app\. Leave app= out"):
        instrument("one", app=object())


def test_instrumentation_the_user_wired_is_left_alone(spans: CapturedSpans, install: Callable[..., Any]) -> None:
    module = install("opentelemetry-instrumentation-one", {"one": "One"})
    from opentelemetry_instrumentation_one import One  # type: ignore[import-not-found]  # made above

    One().instrument(tracer_provider=runtime.provider)
    [state] = instrument("one")
    assert not state.is_wired
    uninstrument("one")
    assert "unwired" not in module().calls


@pytest.mark.parametrize("value", [None, "http/dup"])
def test_environment_keeps_its_conventions(
    spans: CapturedSpans, install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("OTEL_SEMCONV_STABILITY_OPT_IN", raising=False)
    if value is not None:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", value)
    module = install("opentelemetry-instrumentation-one", {"one": "One"})
    instrument("one")
    assert module().calls[1] == (value or "http,database")
    assert os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN") == value


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ((), {}, "was given 0 names"),
        (("redis", "celery"), {"app": 1}, r"options \['app'\]; options belong to one library"),
        ((["redis", "celery"],), {}, r'expected names of libraries. Write instrument\("redis", "celery"\)'),
    ],
)
def test_wrong_call_says_what_to_write(names: Any, options: Any, message: str) -> None:
    with pytest.raises(InstrumentationError, match=message):
        instrument(*names, **options)


def test_tracer_of_a_library_makes_no_span_without_a_provider_and_follows_each_new_one() -> None:
    assert isinstance(get_tracer_provider(), ProxyTracerProvider)
    tracer = following_provider.get_tracer("library", "1.0", attributes={"a": 1})
    assert tracer.start_span("nowhere").get_span_context() == INVALID_SPAN.get_span_context()
    for _ in range(2):
        with capture_spans() as spans, tracer.start_as_current_span("here"):
            pass
        [span] = spans
        assert span.name == "here"
        assert span.instrumentation_scope is not None
        assert (span.instrumentation_scope.name, span.instrumentation_scope.version) == ("library", "1.0")


def test_importing_the_room_imports_no_library() -> None:
    code = "import sys, tracekit.instrumentation; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"fastapi", "sqlalchemy", "httpx", "wrapt", "opentelemetry.sdk", "opentelemetry.instrumentation"} & {
        *loaded
    }
