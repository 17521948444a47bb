"""The parameters of any callable: their names, how a call's arguments bind to them, and which are marked."""

from __future__ import annotations

import builtins
import functools
import inspect
import sys
from collections import ChainMap
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Annotated, Any, Final, ForwardRef, TypeAlias, TypeGuard, final, get_args, get_origin

from tracekit._extractors import SpanAttribute
from tracekit._naming import named
from tracekit._scalars import type_name
from tracekit._signature import SignatureSource
from tracekit.errors import InstrumentationError

Binder: TypeAlias = Callable[..., "tuple[Any, ...]"]

# What a function has whose parameters, to `inspect`, are not those that its code has.
_SAYS_OTHERWISE: Final = frozenset({"__wrapped__", "__signature__"})


@final
class Parameters:
    """
    What a callable can be called with.

    Args:
        func: The callable; None for a block, which has no parameters.
    """

    __slots__ = ("_func", "binder", "keywords", "marked", "names", "receiver", "source")

    def __init__(self, func: Callable[..., Any] | None) -> None:
        self._func = func
        # Of a partial those of what it calls: the arguments it holds belong to each call.
        whole = func.func if _is_partial(func) else func
        parameters = _parameters(whole)
        self.names: tuple[str, ...] = tuple(parameters)
        # How the wrapper is declared.
        self.source: SignatureSource = SignatureSource(func)
        is_own = self.names == self.source.names and _SAYS_OTHERWISE.isdisjoint(getattr(func, "__dict__", ()))
        # Binds a call to the names, where they are not the wrapper's own: then the interpreter has bound it already.
        self.binder: Binder | None = None if is_own or func is None else _compile_binder(parameters)
        if self.binder is not None and _is_partial(func):
            self.binder = _completed(self.binder, func)
        self.keywords: int | None = None
        self.receiver: int | None = None
        for index, parameter in enumerate(parameters.values()):
            if parameter.kind is Parameter.VAR_KEYWORD:
                self.keywords = index
            elif index == 0 and parameter.name in ("self", "cls"):
                self.receiver = index
        self.marked = self._marked(parameters)

    def __contains__(self, name: str) -> bool:
        """Tell whether a call may have an argument called *name*."""
        return name in self.names or self.keywords is not None

    @property
    def collected(self) -> str:
        """What the wrapper hands over of a call, as source: the values in the order of the names, or what to bind."""
        return self.source.raw if self.binder else f"({''.join(f'{name}, ' for name in self.names)})"

    def bound(self, collected: tuple[Any, ...]) -> tuple[Any, ...]:
        """
        Return the values of a call, in the order of the names.

        Raises:
            TypeError: It is a wrong call.
        """
        return self.binder(*collected[0], **collected[1]) if self.binder else collected

    def getter(self, name: str) -> Callable[[tuple[Any, ...]], Any]:
        """
        Return what reads the argument *name* from bound values.

        Raises:
            KeyError: (the getter, when called) *name* was not among the extra keyword arguments.
        """
        if name in self.names:
            index = self.names.index(name)
            return lambda values: values[index]
        keywords = self.keywords
        return lambda values: values[keywords or 0][name]

    def _marked(self, parameters: Mapping[str, Parameter]) -> dict[str, str]:
        marked: dict[str, str] = {}
        scope = {} if self._func is None else _globals(self._func)
        for parameter in parameters.values():
            annotation = parameter.annotation
            if isinstance(annotation, ForwardRef):
                annotation = annotation.__forward_arg__
            if isinstance(annotation, str):
                annotation = _evaluated(annotation, parameter.name, scope)
            if get_origin(annotation) is Annotated:
                for note in get_args(annotation)[1:]:
                    if isinstance(note, SpanAttribute):
                        marked[parameter.name] = note.key or parameter.name
        return marked


def _evaluated(annotation: str, parameter: str, scope: dict[str, Any]) -> Any:
    try:
        found = eval(annotation, {}, _Names(scope, builtins.__dict__))  # noqa: S307  # the user's own, as typing does it
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # whatever an annotation does, exits included
        if "SpanAttribute" not in annotation:
            return None
        msg = (
            f"the annotation of {parameter!r} got {annotation!r}, which cannot be read here "
            f"({type_name(type(error))}), expected names of the module. "
            f"Write Annotated[int, SpanAttribute('order.id')]."
        )
        raise InstrumentationError(msg) from None
    # Quoted where all annotations are strings already.
    return _evaluated(found, parameter, scope) if isinstance(found, str) else found


class _Names(ChainMap[str, Any]):
    """The names of a module, and stand-ins for those that it only has for type checkers, or has not yet."""

    def __missing__(self, key: str) -> Any:
        return {"Annotated": Annotated, "SpanAttribute": SpanAttribute}.get(key, _UNKNOWN)


@final
class _Unknown:
    """Stands in for a type, whatever an annotation makes of it."""

    __iter__ = None

    def __call__(self, *_: object) -> _Unknown:
        return self

    __getitem__ = __or__ = __ror__ = __call__

    def __getattr__(self, name: str) -> _Unknown:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


_UNKNOWN: Final = _Unknown()


def _globals(func: Callable[..., Any]) -> dict[str, Any]:
    """Return the names the annotations of *func* are written with."""
    target: Any = inspect.unwrap(named(func))
    call = target if not isinstance(target, type) else target.__call__
    return getattr(call, "__globals__", {})


def _parameters(func: Callable[..., Any] | None) -> Mapping[str, Parameter]:
    if func is None:
        return {}
    try:
        if sys.version_info >= (3, 14):
            from annotationlib import Format

            return inspect.signature(func, annotation_format=Format.FORWARDREF).parameters
        return inspect.signature(func).parameters
    except (TypeError, ValueError):
        # Some functions written in C do not tell.
        return {
            "args": Parameter("args", Parameter.VAR_POSITIONAL),
            "kwargs": Parameter("kwargs", Parameter.VAR_KEYWORD),
        }


def _is_partial(func: object) -> TypeGuard[functools.partial[Any]]:
    return issubclass(type(func), functools.partial)


def _completed(binder: Binder, func: functools.partial[Any]) -> Binder:
    """Return *binder* with the arguments that *func* holds, which leaves places for others from Python 3.14 on."""
    held, keywords, gap = func.args, func.keywords, getattr(functools, "Placeholder", Parameter.empty)
    gaps = sum(value is gap for value in held)

    def bind(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        filling = iter(args[:gaps])
        filled = [next(filling) if value is gap else value for value in held]
        return binder(*filled, *args[gaps:], **{**keywords, **kwargs})

    return bind


def _compile_binder(parameters: Mapping[str, Parameter]) -> Binder:
    # A lambda with the same parameters lets the interpreter bind: 0.2 µs, where Signature.bind takes 3.
    source: list[str] = []
    defaults: dict[str, Any] = {}
    has_star = False
    for index, (name, parameter) in enumerate(parameters.items()):
        if parameter.kind is Parameter.VAR_POSITIONAL:
            source.append(f"*{name}")
            has_star = True
            continue
        if parameter.kind is Parameter.VAR_KEYWORD:
            source.append(f"**{name}")
            continue
        if parameter.kind is Parameter.KEYWORD_ONLY and not has_star:
            source.append("*")
            has_star = True
        if parameter.default is Parameter.empty:
            source.append(name)
        else:
            defaults[f"default_{index}"] = parameter.default
            source.append(f"{name}=default_{index}")
        if parameter.kind is Parameter.POSITIONAL_ONLY and not _next_is_positional_only(parameters, index):
            source.append("/")
    values = "".join(f"{name}, " for name in parameters)
    binder: Binder = eval(f"lambda {', '.join(source)}: ({values})", defaults)  # noqa: S307  # names and defaults only
    return binder


def _next_is_positional_only(parameters: Mapping[str, Parameter], index: int) -> bool:
    following = list(parameters.values())[index + 1 : index + 2]
    return bool(following) and following[0].kind is Parameter.POSITIONAL_ONLY
