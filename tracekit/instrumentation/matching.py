"""Tracing of all functions whose full names match a pattern, in whatever modules the program imports."""

from __future__ import annotations

import sys
import sysconfig
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, final

from tracekit._decorator import traced
from tracekit._diagnostics import logger, report_failure
from tracekit.errors import InstrumentationError
from tracekit.instrumentation.imports import watch_all
from tracekit.instrumentation.patching import trace_callable
from tracekit.instrumentation.places import members_of
from tracekit.instrumentation.source import compile_traced

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType

_GLOBS: Final = "*?["
# What makes spans is never traced by a pattern, nor what sets it up.
_OURS: Final = ("tracekit", "opentelemetry", "sitecustomize")
_SHOWN: Final = 5


def trace_matching(
    patterns: Sequence[str], exclude: Sequence[str] = (), *, tell: Callable[[str], None] | None = None
) -> Matching:
    """
    Trace each function and method whose full name matches, in modules there are and to come.

    A full name is `shop.orders.Orders.create`.

    Args:
        patterns: Globs, in which `*` stands for dots too; a module or class alone stands for all that is in it.
            Names that begin with `_` must be written out. One that begins with a wildcard leaves installed packages and
            the standard library alone.
        exclude: Likewise; beats *patterns*.
        tell: Given a line for each module in which functions are traced.

    Returns:
        What has been traced so far.
    """
    matching = Matching(patterns, exclude, tell)
    watch_all(matching.may_hold, matching.on_import, matching.compile_main)
    for module in list(sys.modules):
        if matching.may_hold(module):
            matching.on_import(module)
    return matching


@final
class Matching:
    """
    What has been traced by patterns so far.

    Args:
        patterns: Globs of full names.
        exclude: Globs of full names that are left alone.
        tell: Given a line for each module in which functions are traced.
    """

    def __init__(self, patterns: Sequence[str], exclude: Sequence[str], tell: Callable[[str], None] | None) -> None:
        self._patterns: Final = tuple(patterns)
        self._prefixes: Final = [_literal_prefix(pattern) for pattern in patterns]
        self._exclude: Final = tuple(exclude)
        self._tell: Final = tell
        self._names: Final[set[str]] = set()
        self._modules: Final[set[str]] = set()
        self._seen: Final[set[str]] = set()

    @property
    def functions(self) -> int:
        """How many functions are traced."""
        return len(self._names)

    @property
    def advice(self) -> str:
        """What to do where nothing matches."""
        if self._seen:
            shown = ", ".join(sorted(self._seen)[:_SHOWN])
            return f"It was looked for in {shown}: write MODULE.FUNCTION, MODULE.CLASS.METHOD or MODULE.*"
        return "No module of such a name was imported: write MODULE.*, or SCRIPT.* for the functions of SCRIPT.py"

    def may_hold(self, module: str) -> bool:
        """Tell whether a function of *module* could match."""
        return module.partition(".")[0] not in _OURS and any(
            f"{module}.".startswith(prefix) or prefix.startswith(f"{module}.") for prefix in self._prefixes
        )

    def code_of_main(self, source: str | bytes, file: str, name: str) -> CodeType:
        """
        Return the code of *source*, which runs as `__main__`: in it the functions that match are traced.

        Args:
            source: The source.
            file: Where it is from.
            name: What an import would call it; patterns may call it so, or `__main__`.

        Raises:
            SyntaxError: As `compile`.
        """
        patterns = self._patterns_for(file)

        def is_meant(qualname: str) -> bool:
            return any(self._is_meant(f"{module}.{qualname}", qualname, patterns) for module in ("__main__", name))

        if self.may_hold(name):
            self._seen.add(name)
        return compile_traced(source, file, is_meant, self._trace_in_main)

    def compile_main(self, name: str, loader: Any) -> CodeType | None:
        """Return the code of the module *name*, which `python -m` runs; None leaves it to its *loader*."""
        try:
            source = loader.get_source(name)
            return None if source is None else self.code_of_main(source, loader.get_filename(name), name)
        except SyntaxError:
            return None  # the loader says it better
        except Exception as error:  # noqa: BLE001  # loaders of all kinds
            report_failure("tracekit.instrumentation", f"tracing {name} by patterns", error)
            return None

    def _trace_in_main(self, qualname: str, function: Any) -> Any:
        try:
            replacement = traced(function)
        except InstrumentationError as error:
            logger.info("%s", error)
            return function
        self._names.add(f"__main__.{qualname}")
        self._modules.add("__main__")
        return replacement

    def on_import(self, name: str) -> None:
        """Trace what matches in the module *name*; must not raise."""
        try:
            self._trace(name)
        except Exception as error:  # noqa: BLE001  # hostile modules; their import must not fail for it
            report_failure("tracekit.instrumentation", f"tracing {name} by patterns", error)

    def _trace(self, name: str) -> None:
        module: Any = sys.modules.get(name)
        patterns = self._patterns_for(getattr(module, "__file__", None))
        if module is None or not patterns:
            return
        self._seen.add(name)
        found = 0
        for qualname, _, _ in members_of(module, name):
            full_name = f"{name}.{qualname}"
            if full_name in self._names or not self._is_meant(full_name, qualname, patterns):
                continue
            try:
                trace_callable(full_name)
            except InstrumentationError as error:
                logger.info("%s", error)
                continue
            self._names.add(full_name)
            found += 1
        if found:
            self._modules.add(name)
            if self._tell is not None:
                self._tell(f"traces {found} function{'s' if found > 1 else ''} of {name}")

    def _patterns_for(self, file: object) -> tuple[str, ...]:
        if isinstance(file, str) and not file.startswith(_INSTALLED):
            return self._patterns
        # Named, an installed package is traced too.
        return tuple(pattern for pattern in self._patterns if pattern[:1] not in _GLOBS)

    def _is_meant(self, full_name: str, qualname: str, patterns: Sequence[str]) -> bool:
        return _matches(full_name, qualname, patterns) and not any(_is_in(full_name, each) for each in self._exclude)

    def __str__(self) -> str:
        return f"{_count(len(self._names), 'function')} in {_count(len(self._modules), 'module')}"


def _matches(full_name: str, qualname: str, patterns: Sequence[str]) -> bool:
    is_private = any(part.startswith("_") for part in qualname.split("."))
    return any(
        _is_in(full_name, pattern) and (not is_private or pattern.rpartition(".")[2].startswith("_"))
        for pattern in patterns
    )


def _is_in(full_name: str, pattern: str) -> bool:
    return fnmatchcase(full_name, pattern) or fnmatchcase(full_name, f"{pattern}.*")


def _literal_prefix(pattern: str) -> str:
    """Return what each name that matches begins with, a dot at the end where nothing may follow but one."""
    position = min((pattern.index(char) for char in _GLOBS if char in pattern), default=-1)
    return f"{pattern}." if position < 0 else pattern[:position]


_INSTALLED: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
