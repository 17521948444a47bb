"""The hot path: what runs instead of a traced callable. One wrapper for each kind; none has logic of its own."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Final, cast

from tracekit._generators import wrap_async_generator_function, wrap_generator_function
from tracekit._naming import named
from tracekit._operation import Operation
from tracekit._span import ActiveSpan, start

# Where a wrapper keeps its operation: `@traced` finds there what is traced already.
OPERATION_ATTRIBUTE: Final = "__tracekit_operation__"
# What partials and callable objects do not have themselves.
_NAMES: Final = ("__module__", "__name__", "__qualname__", "__doc__")


def wrap(func: Callable[..., Any], operation: Operation) -> Callable[..., Any]:
    """Return *func* traced as *operation*: a callable of the same kind, to `inspect` and to whoever calls it."""
    wrapper: Callable[..., Any] = _at_home(_wrapper_of(func)(func, operation), func)
    own = named(func)
    functools.update_wrapper(wrapper, own, functools.WRAPPER_ASSIGNMENTS if own is func else _NAMES, ())
    functools.update_wrapper(wrapper, func, ())
    for method in _CACHE_METHODS if type(func) is _Cached else ():
        setattr(wrapper, method, getattr(func, method))
    setattr(wrapper, OPERATION_ATTRIBUTE, operation)
    return wrapper


def _at_home(wrapper: Any, func: Callable[..., Any]) -> Any:
    """
    Return *wrapper* as if it were defined where *func* is, with its defaults and its signature.

    Much looks at a function itself, not at what it wraps: doctest and old FastAPI at its globals, filters of warnings
    at the name of its module, trio's warnings too, and Celery at its parameters (`getfullargspec`).
    """
    if not isinstance(func, types.FunctionType):
        return wrapper
    moved = types.FunctionType(
        wrapper.__code__, func.__globals__, func.__name__, func.__defaults__, wrapper.__closure__
    )
    moved.__kwdefaults__ = func.__kwdefaults__
    # A ready signature would keep Typer from having strings evaluated. From Python 3.14 annotations are code that runs.
    with contextlib.suppress(Exception):
        if not any(isinstance(annotation, str) for annotation in func.__annotations__.values()):
            moved.__signature__ = inspect.signature(func)  # type: ignore[attr-defined]
    return moved


def operation_of(candidate: object) -> Operation | None:
    """Return the operation *candidate* is traced as, None if it is no wrapper of ours itself."""
    code = getattr(candidate, "__code__", None)
    # functools.wraps copies the attribute to wrappers of others: only a code object of ours says that it is ours.
    if getattr(code, "co_filename", None) not in _OWN_FILES:
        return None
    operation: object = getattr(candidate, OPERATION_ATTRIBUTE, None)
    return operation if isinstance(operation, Operation) else None


def _wrapper_of(func: Callable[..., Any]) -> Callable[[Callable[..., Any], Operation], Callable[..., Any]]:
    # By isinstance: proxies of functions, such as wrapt's, are of the kind that they say.
    kind: Any = type(func)
    call = cast("Any", func) if isinstance(func, _FUNCTIONS) else kind.__call__
    for is_kind, wrapper in _WRAPPERS:
        if is_kind(call):
            return wrapper
    return _wrap_function


# `start` is a default, here and in _generators, for a wrapper has the globals of what it wraps.
def _wrap_function(
    func: Callable[..., Any], operation: Operation, start: Callable[..., ActiveSpan | None] = start
) -> Callable[..., Any]:
    def traced(*args: Any, **kwargs: Any) -> Any:
        active = start(operation, args, kwargs)
        if active is None:
            return func(*args, **kwargs)
        try:
            result = func(*args, **kwargs)
        except BaseException as exc:
            active.fail(exc)
            raise
        active.succeed(result)
        return result

    return traced


# Twin of _wrap_function: only the await differs.
def _wrap_coroutine_function(
    func: Callable[..., Any], operation: Operation, start: Callable[..., ActiveSpan | None] = start
) -> Callable[..., Any]:
    async def traced(*args: Any, **kwargs: Any) -> Any:
        active = start(operation, args, kwargs)
        if active is None:
            return await func(*args, **kwargs)
        try:
            result = await func(*args, **kwargs)
        except BaseException as exc:
            active.fail(exc)
            raise
        active.succeed(result)
        return result

    return traced


_WRAPPERS: Final = (
    (inspect.iscoroutinefunction, _wrap_coroutine_function),
    (inspect.isgeneratorfunction, wrap_generator_function),
    (inspect.isasyncgenfunction, wrap_async_generator_function),
)
_FUNCTIONS: Final = (types.FunctionType, types.MethodType, functools.partial)
_Cached: Final = type(functools.lru_cache(wrap))
# Not in the `__dict__` of a cached function, where update_wrapper looks.
_CACHE_METHODS: Final = ("cache_info", "cache_clear")
_OWN_FILES: Final = frozenset({_wrap_function.__code__.co_filename, wrap_generator_function.__code__.co_filename})
