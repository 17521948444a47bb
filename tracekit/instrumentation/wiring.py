"""How any library is wired: through its official instrumentation, found by entry point."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, final
from weakref import WeakSet

from typing_extensions import override

from tracekit._diagnostics import logger
from tracekit.errors import InstrumentationError
from tracekit.instrumentation.provider import following_provider

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

MARK: Final = "_is_instrumented_by_opentelemetry"
_CONVENTIONS: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"


@final
@dataclass(frozen=True, slots=True)
class Instrumented:
    """
    What became of one library.

    Args:
        name: The library's name, as `instrument` knows it.
        is_wired: Whether tracekit wired it.
        by: What makes the spans, with its version.
        reason: Why it was not wired; empty where it was.
    """

    name: str
    is_wired: bool
    by: str
    reason: str = ""


class Wiring(Protocol):
    """One library's wiring; there is one object a library and process."""

    @property
    def state(self) -> Instrumented:
        """What is wired now."""
        ...

    def wire(self, options: dict[str, Any]) -> Instrumented:
        """Wire the library, or the one object that *options* name; doing it again changes nothing."""
        ...

    def unwire(self, options: dict[str, Any]) -> None:
        """Take back what `wire` did, or only what it did to the object that *options* name."""
        ...


class Official(Wiring):
    """
    The wiring by an official `opentelemetry-instrumentation-*` package.

    Args:
        name: The library's name.
        entry_point: Where the instrumentation is.
    """

    def __init__(self, name: str, entry_point: EntryPoint) -> None:
        self.name: Final = name
        self.by: Final = _described(entry_point)
        try:
            self.instrumentor: Final[Any] = entry_point.load()()
        except ImportError as error:
            msg = f"instrument({name!r}) cannot load {self.by}: {error}. Install the library {name!r} itself too."
            raise InstrumentationError(msg) from error
        self.all_wired = False
        self.targets: WeakSet[Any] = WeakSet()

    @property
    @override
    def state(self) -> Instrumented:
        return Instrumented(self.name, self.all_wired or bool(self.targets), self.by)

    @override
    def wire(self, options: dict[str, Any]) -> Instrumented:
        # Not by default: what was written for another version patches internals that may have moved.
        if not options.pop("skip_dep_check", False) and (reason := self._lag()):
            logger.warning("%s", reason)
            return self.left_out(reason)
        options = {"tracer_provider": following_provider, **options}
        try:
            with stable_conventions():
                for kind in ("app", "client"):
                    if kind in options:
                        return self.wire_target(kind, options.pop(kind), options)
                return self.wire_all(options)
        except InstrumentationError:
            raise
        except Exception as error:
            msg = f"instrument({self.name!r}): {self.by} failed with {type(error).__name__}: {error}"
            raise InstrumentationError(msg) from error

    @override
    def unwire(self, options: dict[str, Any]) -> None:
        if options:
            target = next(iter(options.values()))
            if target in self.targets:
                self.targets.discard(target)
                self.unwire_target(target)
            return
        for target in list(self.targets):
            self.targets.discard(target)
            self.unwire_target(target)
        if self.all_wired:
            self.all_wired = False
            self.unwire_all()

    def wire_all(self, options: dict[str, Any]) -> Instrumented:
        """Wire the whole library."""
        if not self.all_wired:
            if self.instrumentor.is_instrumented_by_opentelemetry:
                return self.left_out(f"{self.name} is already instrumented by another call of {self.by}")
            self.instrumentor.instrument(skip_dep_check=True, **options)
            self.all_wired = True
        return self.state

    def unwire_all(self) -> None:
        """Undo `wire_all`."""
        self.instrumentor.uninstrument()

    def wire_target(self, kind: str, target: Any, options: dict[str, Any]) -> Instrumented:
        """Wire one app or client."""
        wire = self.method(f"instrument_{kind}")
        check_call(self.name, wire, target, **options)
        if target not in self.targets:
            if getattr(target, MARK, False):
                return self.left_out(f"this {kind} is already instrumented by another call of {self.by}")
            wire(target, **options)
            self.targets.add(target)
        return self.state

    def unwire_target(self, target: Any) -> None:
        """Undo `wire_target`."""
        for kind in ("app", "client"):
            if unwire := getattr(self.instrumentor, f"uninstrument_{kind}", None):
                unwire(target)
                return

    def left_out(self, reason: str) -> Instrumented:
        """Return the answer for something that is not wired, for *reason*."""
        return Instrumented(self.name, False, self.by, reason)  # noqa: FBT003  # a field

    def method(self, name: str) -> Callable[..., Any]:
        """Return a method of the instrumentation that not every one has."""
        found: Callable[..., Any] | None = getattr(self.instrumentor, name, None)
        if found is None:
            kind = name.rpartition("_")[2]
            msg = f"instrument({self.name!r}, {kind}=...): {self.by} cannot instrument one {kind}. Leave {kind}= out."
            raise InstrumentationError(msg)
        return found

    def _lag(self) -> str:
        from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

        conflict = get_dependency_conflicts(self.instrumentor.instrumentation_dependencies())
        if conflict is None:
            return ""
        found, required = conflict.found or conflict.found_any, conflict.required or conflict.required_any
        if not found:
            msg = f"instrument({self.name!r}) needs a library that is not installed: {required}"
            raise InstrumentationError(msg)
        return (
            f"{self.name} is not traced: installed is {found}, but {self.by} supports {required}. "
            f"Upgrade the instrumentation, or try it: instrument({self.name!r}, skip_dep_check=True)"
        )


def check_call(name: str, function: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Raise `InstrumentationError` if *function* does not take *args* and *options*."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        taken = ", ".join(list(signature.parameters)[len(args) :])
        msg = f"instrument({name!r}): {error}. It takes: {taken}."
        raise InstrumentationError(msg) from None


def _described(entry_point: EntryPoint) -> str:
    distribution = entry_point.dist
    return f"{distribution.name} {distribution.version}" if distribution is not None else entry_point.value


@contextmanager
def stable_conventions() -> Generator[None, None, None]:
    """
    Let official instrumentations write today's HTTP and database attributes, unless the environment says otherwise.

    They read the variable once, when the first of them is wired, and default to names that are deprecated.

    Source: semantic conventions, non-normative/http-migration.md.
    """
    if _CONVENTIONS in os.environ:
        yield
        return
    os.environ[_CONVENTIONS] = "http,database"
    try:
        yield
    finally:
        os.environ.pop(_CONVENTIONS, None)
