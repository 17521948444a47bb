"""
A pytest plugin that decorates every `def` of a package, then writes down what each test of its suite came to.

Loaded with `-p instrument` in a process of its own; `TRANSPARENCY` in its environment holds a JSON object: `modules`
(top-level), `decorator` ("closure" or "traced") and `report`, the file to write.

What is decorated: every `def` and `async def` in the package's source, wherever it stands: in modules, in classes
(private names and dunders too), inside other functions. The decorator is the innermost, next to the function, so it
sees functions before `property`, `lru_cache`, `contextmanager` or the package's own decorators turn them into other
things; above a lone `staticmethod` or `classmethod` it is the outermost, so it is given these too. Left alone are
lambdas, which have no name to trace, and the package's tests where they live inside it.
"""

from __future__ import annotations

import ast
import builtins
import functools
import gc
import importlib.abc
import importlib.machinery
import inspect
import json
import logging
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from tracekit import traced
from tracekit.recording import EntropyIdGenerator

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Sequence

    import pytest
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    Node = TypeVar("Node", ast.FunctionDef, ast.AsyncFunctionDef)

# Among the builtins, so that no namespace of the package shows it.
_DECORATOR: Final = "__transparency_decorator__"
_OUTERMOST_OVER: Final = {"staticmethod", "classmethod"}


class Decorating(ast.NodeTransformer):
    """Writes the decorator into a module's source."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return self._decorated(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        return self._decorated(node)

    def _decorated(self, node: Node) -> Node:
        self.generic_visit(node)
        decorators = node.decorator_list
        is_lone = len(decorators) == 1 and isinstance(decorators[0], ast.Name) and decorators[0].id in _OUTERMOST_OVER
        # Where it stands must not move the first line of the function.
        place = decorators[0] if is_lone else node
        name = ast.copy_location(ast.Name(_DECORATOR, ast.Load()), place)
        decorators.insert(0 if is_lone else len(decorators), name)
        return node


class DecoratingLoader(importlib.machinery.SourceFileLoader):
    """Loads a module with each function decorated; bytecode is neither read nor left behind."""

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        tree = Decorating().visit(ast.parse(self.get_data(path), path))
        return compile(tree, path, "exec", dont_inherit=True)


class DecoratingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of a package, its tests left out."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = set(packages)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        parts = fullname.split(".")
        if parts[0] not in self._packages or {"tests", "_tests"} & set(parts):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = DecoratingLoader(spec.loader.name, spec.loader.path)
        return spec


class Counting:
    """A span processor that counts."""

    def __init__(self) -> None:
        self.started = self.ended = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.started += 1

    def _on_ending(self, span: Span) -> None:
        pass

    def on_end(self, span: ReadableSpan) -> None:
        self.ended += 1

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class FirstOfEach(Sampler):
    """Records the first spans of each name; of those after, there may be millions."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: Counter[str] = Counter()

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, *_: Any, **__: Any
    ) -> SamplingResult:
        self._seen[name] += 1
        return SamplingResult(Decision.RECORD_AND_SAMPLE if self._seen[name] <= self._limit else Decision.DROP)

    def get_description(self) -> str:
        return "FirstOfEach"


class Report:
    """What each test came to."""

    def __init__(self, path: str, spans: Counting) -> None:
        self._path = Path(path)
        self._spans = spans
        self.outcomes: dict[str, str] = {}
        self.decorated = 0
        self.left_current: list[str] = []
        self.complaints: list[str] = []
        logger = logging.getLogger("tracekit")
        logger.addFilter(self._note)

    def _note(self, record: logging.LogRecord) -> bool:
        self.complaints.append(record.getMessage())
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            outcome = f"x{report.outcome}" if hasattr(report, "wasxfail") else report.outcome
            self.outcomes[f"{report.nodeid} {report.when}"] = outcome

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if trace.get_current_span() is not trace.INVALID_SPAN:
            self.left_current.append(nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome == "failed":
            self.outcomes[f"{report.nodeid} collect"] = report.outcome

    def pytest_unconfigure(self) -> None:
        gc.collect()  # ends what was left half-way
        found = {
            "outcomes": self.outcomes,
            "decorated": self.decorated,
            "started": self._spans.started,
            "ended": self._spans.ended,
            "left_current": self.left_current,
            "complaints": self.complaints,
        }
        self._path.write_text(json.dumps(found), encoding="utf-8")


def closure(func: Any) -> Any:
    """The decorator tracekit is measured against: it does nothing."""
    if isinstance(func, (staticmethod, classmethod)):
        return type(func)(closure(func.__func__))

    if inspect.iscoroutinefunction(func):
        # The package may ask whether it has to await: that answer is no matter of tracing.
        @functools.wraps(func)
        async def empty_coroutine(*args: Any, **kwargs: Any) -> Any:
            return await func(*args, **kwargs)

        return empty_coroutine

    @functools.wraps(func)
    def empty(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return empty


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_report, "transparency-report")


def _install() -> Report:
    asked = json.loads(os.environ.pop("TRANSPARENCY"))
    spans = Counting()
    report = Report(asked["report"], spans)
    # The SDK's own ids come from the random numbers that a package's test may have seeded.
    provider = TracerProvider(sampler=FirstOfEach(100), id_generator=EntropyIdGenerator())
    provider.add_span_processor(spans)
    trace.set_tracer_provider(provider)
    decorator: Callable[[Any], Any] = {"closure": closure, "traced": traced}[asked["decorator"]]
    early = sorted(name for name in sys.modules if name.partition(".")[0] in asked["modules"])
    if early:
        msg = f"imported before they could be decorated: {', '.join(early)}"
        raise RuntimeError(msg)

    def decorate(func: Any) -> Any:
        report.decorated += 1
        return decorator(func)

    setattr(builtins, _DECORATOR, decorate)
    sys.meta_path.insert(0, DecoratingFinder(asked["modules"]))
    return report


_report: Final = _install()
