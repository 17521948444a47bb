"""
Tracing of code that somebody else wrote: `trace_callable`, `trace_module`. Nothing else replaces others' attributes.

What is put in place is what `@traced` makes, so names, attributes, outcomes and kinds are the same. Each replacement is
a layer on what stood there before; layers come off in any order.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, cast, final

from tracekit._decorator import traced
from tracekit._diagnostics import logger, report_failure
from tracekit._wrappers import operation_of
from tracekit.errors import InstrumentationError
from tracekit.export.quiet import is_quiet
from tracekit.instrumentation.imports import unwatch, watch
from tracekit.instrumentation.places import Patterns, Place, find_callable, find_members, function_of

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from typing_extensions import Unpack

    from tracekit._operation import Operation, Options

# What makes, records and sends spans: what it calls in turn makes none, or there would be no end to it.
_MACHINERY: Final = (
    *("tracekit._", "tracekit.export", "tracekit.recording", "tracekit.sampling"),
    *("opentelemetry.attributes", "opentelemetry.context", "opentelemetry.exporter", "opentelemetry.sdk"),
)
_WRAPPERS: Final = ("tracekit._wrappers", "tracekit._generators")
# How far above a call it is looked for, 0.1 µs a frame: it gets that deep into `re` and `warnings`.
_MACHINERY_DEPTH: Final = 20


def trace_callable(target: str, name: str | None = None, /, **options: Unpack[Options]) -> Callable[[], None]:
    """
    Trace a function or method that somebody else wrote: `trace_callable("stripe.Charge.create")`.

    A module that is not imported yet is left so, and traced once it is imported; after a reload it is traced again.
    What holds the function under a name of its own (`from json import loads`) keeps what it has.

    Args:
        target: Where it is found: the module, the class if any, the attribute.
        name: The span name, as for `traced`; by default the last two parts of *target*.
        **options: The options of `traced`.

    Returns:
        What takes it back: the very object of before stands there again. To call it twice is harmless.

    Raises:
        InstrumentationError: There is no such module or attribute, it cannot be traced or replaced, or an option is
            wrong. What only an import brings to light is logged then, and the import goes on.
    """
    what = f"trace_callable({target!r})"
    parts = _checked_path(target, what, "'stripe.Charge.create'", at_least=2)
    _check_options(target if name is None else name, options)
    return _Tracing(what, parts[:-1], lambda: find_callable(what, parts, name, options.get("service")), options).start()


def trace_module(
    module: str, include: str | Iterable[str] = "*", exclude: str | Iterable[str] = "_*", **options: Unpack[Options]
) -> Callable[[], None]:
    """
    Trace the functions and methods that a module defines: `trace_module("shop.orders", exclude=["_*", "Cache"])`.

    It may be imported later, as for `trace_callable`. What it has imported from elsewhere, dunders, properties and
    objects that merely can be called are left alone; what is traced already is not traced twice.

    Args:
        module: Its dotted name; modules below it are not included.
        include: Glob patterns. One matches a function or method by its qualified name (`Orders.create`) or by any part
            of that (`Orders`, `create`).
        exclude: Likewise; beats *include*.
        **options: The options of `traced`.

    Returns:
        What takes it back, as for `trace_callable`.

    Raises:
        InstrumentationError: There is no such module, nothing in it matches, or an option is wrong.
    """
    what = f"trace_module({module!r})"
    parts = _checked_path(module, what, "'shop.orders'", at_least=1)
    included, excluded = _checked_patterns(include, "include", what), _checked_patterns(exclude, "exclude", what)
    _check_options(f"{module}.*", options)
    return _Tracing(
        what, parts, lambda: find_members(what, parts, included, excluded, options.get("service")), options
    ).start()


@final
class _Tracing:
    """
    What one call of `trace_callable` or `trace_module` puts in place, at once and after imports.

    Args:
        what: The call, for messages.
        parts: The module to wait for; those above it are waited for too.
        find: Finds the places; none as long as the module is missing.
        options: The options of `traced`.
    """

    __slots__ = ("_find", "_is_undone", "_layers", "_modules", "_options", "_what")

    def __init__(self, what: str, parts: list[str], find: Callable[[], Iterator[Place]], options: Options) -> None:
        self._what = what
        self._modules = [".".join(parts[: length + 1]) for length in range(len(parts))]
        self._find = find
        self._options = options
        self._layers: list[_Layer] = []
        self._is_undone = False

    def start(self) -> Callable[[], None]:
        """Trace what is there, watch for what comes; return what takes it back."""
        watch(self._modules, self._on_import)
        try:
            self._apply()
        except BaseException:
            self._undo()
            raise
        return self._undo

    def _apply(self) -> None:
        places = list(self._find())
        with _lock:
            if self._is_undone:
                return
            for place in places:
                layer = self._layer(place)
                if layer is not None:
                    layer.put_on()
                    self._layers.append(layer)

    def _layer(self, place: Place) -> _Layer | None:
        """Return a layer for *place*, None where it is traced already."""
        original = beneath = place.content
        below = list(_layers_of(original))
        if any(layer.tracing is self for layer in below):
            return None
        while (replacement := _replacement(beneath, place, self._options)) is None:
            # The same operation: the latest call wins, and what it hides comes back when it is undone.
            if not below:
                return None
            beneath = below.pop(0).original
        return _Layer(place, original, replacement, self)

    def _on_import(self) -> None:
        try:
            self._apply()
        except InstrumentationError as error:
            logger.warning("%s", error)
        except Exception as error:  # noqa: BLE001  # hostile modules; their import must not fail for it
            report_failure(self._what, "tracing after the import", error)

    def _undo(self) -> None:
        unwatch(self._modules, self._on_import)
        with _lock:
            self._is_undone = True
            while self._layers:
                self._layers.pop().take_off()


@final
class _Layer:
    """What stands in a place instead of what stood there before."""

    __slots__ = ("is_live", "operation", "original", "place", "replacement", "tracing", "was_own")

    def __init__(self, place: Place, original: Any, replacement: Any, tracing: _Tracing) -> None:
        self.place = place
        self.original = original
        self.replacement = replacement
        self.tracing = tracing
        self.was_own = place.attribute in place.own
        self.is_live = True
        self.operation = cast("Operation", operation_of(function_of(replacement)))
        self.operation.tracer = _outside_machinery(self.operation.tracer)

    def put_on(self) -> None:
        """Replace what stands there."""
        try:
            setattr(self.place.owner, self.place.attribute, self.replacement)
        except (AttributeError, TypeError) as error:
            msg = f"{self.place.path} cannot be traced, it cannot be replaced: {error}. Trace a function that calls it."
            raise InstrumentationError(msg) from error
        _layers[id(self.replacement)] = self

    def take_off(self) -> None:
        """Trace no more; put back what was replaced, unless somebody has put something on top."""
        self.is_live = False
        self.operation.tracer = _no_tracer
        owner, attribute = self.place.owner, self.place.attribute
        # Also what this one stood on, if that was undone before.
        for layer in list(_layers_of(self.place.own.get(attribute))):
            if layer.is_live or layer.place.owner is not owner:
                return
            if layer.was_own:
                setattr(owner, attribute, layer.original)
            else:
                delattr(owner, attribute)
            del _layers[id(layer.replacement)]


# By the id of the replacement, which the layer keeps alive. The lock is never held during an import: imports hold locks
# of their own, and call `_Tracing._on_import`.
_layers: Final[dict[int, _Layer]] = {}
_lock: Final = threading.RLock()


def _layers_of(member: Any) -> Iterator[_Layer]:
    """Yield the layers that *member* is made of, from the top."""
    while (layer := _layers.get(id(member))) is not None:
        yield layer
        member = layer.original


def _replacement(member: Any, place: Place, options: Options) -> Any:
    """Return *member* traced, None if it is traced as this operation."""
    target = _checked_callable(member, place)
    replacement = cast("Any", traced)(place.span_name, **options)(target)
    if function_of(replacement) is function_of(target):
        return None
    # What did not bind to an instance must not begin to.
    binds = not isinstance(place.owner, type) or _has_get(member)
    return replacement if binds else staticmethod(replacement)


def _checked_callable(member: Any, place: Place) -> Any:
    """Return what to decorate for *member*: itself, or a callable that takes the instance first."""
    found, advice = f"of type {type(member).__name__}", ""
    if isinstance(member, type):
        found, advice = "a class", f" Write '{place.path}.method', or trace_module."
    elif issubclass(type(member), (staticmethod, classmethod)):
        return member
    elif callable(member):
        if not isinstance(place.owner, type) or not _has_get(member):
            return member
        # As the class gives it: decorators with a binding of their own (wrapt's) then expect the instance as first.
        unbound = cast("Any", member).__get__(None, place.owner)
        is_proxy = isinstance(member, (staticmethod, classmethod))
        if getattr(unbound, "__self__", None) is None and not is_proxy:
            return unbound
        found += ", which binds to the class in its own way"
    msg = f"{place.path} is {found}, expected a function or method.{advice}"
    raise InstrumentationError(msg)


def _has_get(member: Any) -> bool:
    return hasattr(cast("Any", type(member)), "__get__")


def _outside_machinery(tracer: Callable[[], Tracer | None]) -> Callable[[], Tracer | None]:
    """Return *tracer*, None for calls from what makes and sends spans itself."""

    def tracer_for_caller() -> Tracer | None:
        # Above this one: `start`, the wrapper, and who called that.
        caller = sys._getframe(2).f_back  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # as logging does
        for _ in range(_MACHINERY_DEPTH):
            if caller is None:
                break
            module: Any = caller.f_globals.get("__name__")
            if module.__class__ is str and module.startswith(_MACHINERY) and module not in _WRAPPERS:
                return None
            caller = caller.f_back
        return None if is_quiet() else tracer()

    return tracer_for_caller


def _no_tracer() -> None:
    """Return no tracer: no span is made."""


def _checked_path(given: object, what: str, example: str, *, at_least: int) -> list[str]:
    parts = given.split(".") if isinstance(given, str) else []
    if len(parts) < at_least or not all(part.isidentifier() for part in parts):
        msg = f"{what}: expected a dotted path. Write {example}."
        raise InstrumentationError(msg)
    return parts


def _checked_patterns(given: object, option: str, what: str) -> Patterns:
    patterns = (given,) if not isinstance(given, Iterable) or isinstance(given, str) else tuple(cast("Any", given))
    if not all(isinstance(pattern, str) for pattern in patterns):
        msg = f"{what}: {option} got {given!r}, expected a glob pattern or several. Write {option}=['Orders.*']."
        raise InstrumentationError(msg)
    return cast("Patterns", patterns)


def _check_options(name: str, options: Options) -> None:
    """Refuse what is wrong with any function now, even if the one it is for is not there yet."""

    def anything(*args: Any, **kwargs: Any) -> None:
        del args, kwargs

    cast("Any", traced)(name, **options)(anything)
