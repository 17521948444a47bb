"""
Tracing of code that somebody else wrote: `trace_callable`, `trace_module`. Nothing else replaces others' attributes.

What is put in place is what `@traced` makes, so names, attributes, outcomes and kinds are the same. Each replacement is
a layer on what stood there before; layers come off in any order.

wrapt is for members that bind to classes and instances in a way of their own, such as what its own decorators make of
class methods: a proxy passes their binding on. For all else a plain function is cheaper, is pickled by name, and stays
what `inspect` says that it is; wrapt's import hooks can neither be taken back nor see a reload.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, Final, cast, final

from tracekit._decorator import traced
from tracekit._diagnostics import logger, report_failure
from tracekit._wrappers import operation_of
from tracekit.errors import InstrumentationError
from tracekit.export.quiet import is_quiet
from tracekit.instrumentation.imports import unwatch, watch
from tracekit.instrumentation.places import Patterns, Place, find_callable, find_members, function_of

if TYPE_CHECKING:
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
        return _Layer(place, original, *replacement, self)

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

    def __init__(self, place: Place, original: Any, replacement: Any, operation: Operation, tracing: _Tracing) -> None:
        self.place = place
        self.original = original
        self.replacement = replacement
        self.tracing = tracing
        self.was_own = place.attribute in place.own
        self.is_live = True
        self.operation = operation
        self.operation.gate = _outside_machinery

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
        self.operation.gate = _closed
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


def _replacement(member: Any, place: Place, options: Options) -> tuple[Any, Operation] | None:
    """Return *member* traced and the operation it is traced as, None if it is traced as that already."""
    target = _checked_callable(member, place)
    if target is None:
        return _rebinding(member, place, options)
    replacement = cast("Any", traced)(place.span_name, **options)(target)
    if function_of(replacement) is function_of(target):
        return None
    operation = cast("Operation", operation_of(function_of(replacement)))
    # What did not bind to an instance must not begin to.
    binds = not isinstance(place.owner, type) or _has_get(member)
    return (replacement if binds else staticmethod(replacement)), operation


def _checked_callable(member: Any, place: Place) -> Any:
    """Return what to decorate for *member*: itself, or what takes the instance first; None if it binds by itself."""
    found, advice = f"of type {type(member).__name__}", ""
    if isinstance(member, type):
        found, advice = "a class", f" Write '{place.path}.method', or trace_module."
    elif issubclass(type(member), (staticmethod, classmethod)):
        return member
    elif isinstance(place.owner, type) and _has_get(member):
        # As the class gives it: decorators with a binding of their own (wrapt's) then expect the instance as first.
        unbound = _bound(member, place.owner)
        is_proxy = isinstance(member, (staticmethod, classmethod))
        if callable(member) and getattr(unbound, "__self__", None) is None and not is_proxy:
            return unbound
        is_callable = inspect.isroutine(unbound) or issubclass(type(unbound), functools.partial)
        if is_callable and not inspect.isasyncgenfunction(unbound):
            return None
    elif callable(member):
        return member
    msg = f"{place.path} is {found}, expected a function or method.{advice}"
    raise InstrumentationError(msg)


def _bound(member: Any, owner: type[Any]) -> Any:
    try:
        return member.__get__(None, owner)
    except Exception:  # noqa: BLE001  # a descriptor of the user's, for instances only
        return None


def _rebinding(member: Any, place: Place, options: Options) -> tuple[Any, Operation] | None:
    """
    Return *member*, which binds to classes and instances in its own way, with all that it gives them traced.

    Only wrapt's proxies do that: they hand on the binding of whatever they wrap, and are told of each call.
    """
    import wrapt

    before = _layers.get(id(member))
    call = cast("Any", traced)(place.span_name, **options)(_caller_of(member, place.owner))
    operation = operation_of(call)
    if operation is None or (before is not None and before.is_live and before.operation.name == operation.name):
        return None

    def wrapper(wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return call(wrapped, *args, **kwargs)

    return cast("Any", wrapt).FunctionWrapper(member, wrapper), operation


def _caller_of(member: Any, owner: type[Any]) -> Callable[..., Any]:
    """Return what calls its first argument, *member* bound, with the others: of its kind, with its parameters."""

    def call(bound: Any, /, *args: Any, **kwargs: Any) -> Any:
        return bound(*args, **kwargs)

    async def call_later(bound: Any, /, *args: Any, **kwargs: Any) -> Any:
        return await bound(*args, **kwargs)

    def iterate(bound: Any, /, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from cast("Generator[Any, Any, Any]", bound(*args, **kwargs)))

    unbound = _bound(member, owner)
    kinds = ((inspect.iscoroutinefunction, call_later), (inspect.isgeneratorfunction, iterate))
    caller: Any = next((caller for is_kind, caller in kinds if is_kind(unbound)), call)
    functools.update_wrapper(caller, unbound, ("__module__", "__name__", "__qualname__", "__doc__"), ())
    own = Parameter("bound", Parameter.POSITIONAL_ONLY)
    with suppress(TypeError, ValueError):  # some that are written in C do not tell, or have a `bound` of their own
        parameters = list(inspect.signature(unbound).parameters.values())
        takes_instance = inspect.isfunction(unbound) and not isinstance(member, staticmethod)
        caller.__signature__ = Signature([own, *parameters[takes_instance:]])
    return cast("Callable[..., Any]", caller)


def _has_get(member: Any) -> bool:
    return hasattr(cast("Any", type(member)), "__get__")


def _outside_machinery() -> bool:
    """Tell whether a call is to be traced: those from what makes and sends spans itself are not."""
    # Above this one: two of `_span`, the wrapper, and who called that.
    caller = sys._getframe(3).f_back  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # as logging does
    for _ in range(_MACHINERY_DEPTH):
        if caller is None:
            break
        module: Any = caller.f_globals.get("__name__")
        if module.__class__ is str and module.startswith(_MACHINERY) and module not in _WRAPPERS:
            return False
        caller = caller.f_back
    return not is_quiet()


def _closed() -> bool:
    return False


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
