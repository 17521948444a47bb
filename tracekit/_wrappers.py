"""
The hot path: what runs instead of a traced callable. One wrapper for each kind; none has logic of its own.

A wrapper is compiled with the very parameters of what it wraps. So the interpreter binds the arguments of a call, once,
and a wrong call fails where and as it does without the wrapper, also that of a coroutine or generator function.
"""

from __future__ import annotations

import functools
import inspect
import textwrap
import types
from collections.abc import Callable
from typing import Any, Final, cast

from tracekit._generators import ASYNC_GENERATOR_FUNCTION, GENERATOR_FUNCTION, begin, first_step
from tracekit._naming import named
from tracekit._operation import Operation
from tracekit._signature import WRAPPER_FILE
from tracekit._span import start

# Where a wrapper keeps its operation: `@traced` finds there what is traced already.
OPERATION_ATTRIBUTE: Final = "__tracekit_operation__"
# What partials and callable objects do not have themselves.
_NAMES: Final = ("__module__", "__name__", "__qualname__", "__doc__")

_FUNCTION: Final = """
def traced({declaration}):
    _tk_active = (_tk_operation.begin or _tk_start)(_tk_operation, {collected})
    if _tk_active is None:
        return _tk_func({forwarding})
    try:
        _tk_result = _tk_func({forwarding})
    except _tk_BaseException as _tk_exc:
        _tk_active.fail(_tk_exc)
        raise
    _tk_active.succeed(_tk_result)
    return _tk_result
"""
# Twin of _FUNCTION: only the await differs.
_COROUTINE_FUNCTION: Final = _FUNCTION.replace("def ", "async def ").replace("_tk_func(", "await _tk_func(")

# The globals of a wrapper are those of what it wraps, where any name may mean anything: these come as a closure.
_OURS: Final[dict[str, Any]] = {
    "_tk_start": start,
    "_tk_begin": begin,
    "_tk_first_step": first_step,
    "_tk_BaseException": BaseException,
    "_tk_StopIteration": StopIteration,
    "_tk_StopAsyncIteration": StopAsyncIteration,
}


def wrap(func: Callable[..., Any], operation: Operation) -> Callable[..., Any]:
    """Return *func* traced as *operation*: a callable of the same kind, to `inspect` and to whoever calls it."""
    source = operation.extraction.parameters.source
    make = _compiled(
        _template_of(func), source.declaration, source.forwarding, operation.extraction.parameters.collected
    )
    wrapper: Callable[..., Any] = _at_home(make(_tk_func=func, _tk_operation=operation, **_OURS), func)
    if getattr(getattr(func, "__code__", None), "co_flags", 0) & inspect.CO_ITERABLE_COROUTINE:
        types.coroutine(wrapper)  # marks it in place
    own = named(func)
    functools.update_wrapper(wrapper, own, functools.WRAPPER_ASSIGNMENTS if own is func else _NAMES, ())
    functools.update_wrapper(wrapper, func, ())
    for method in _CACHE_METHODS if type(func) is _Cached else ():
        setattr(wrapper, method, getattr(func, method))
    setattr(wrapper, OPERATION_ATTRIBUTE, operation)
    return wrapper


# Compiling takes 0.3 ms, and most parameters are called alike: `self, request`.
@functools.lru_cache(maxsize=1_024)
def _compiled(template: str, declaration: str, forwarding: str, collected: str) -> Callable[..., Callable[..., Any]]:
    """Return what makes wrappers of one kind with these parameters."""
    wrapper = template.format(declaration=declaration, forwarding=forwarding, collected=collected)
    source = (
        f"def make(_tk_func, _tk_operation, {', '.join(_OURS)}):{textwrap.indent(wrapper, '    ')}    return traced\n"
    )
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(compile(source, WRAPPER_FILE, "exec"), namespace)  # noqa: S102  # names of parameters only
    return cast("Callable[..., Callable[..., Any]]", namespace["make"])


def _at_home(wrapper: Any, func: Callable[..., Any]) -> Any:
    """
    Return *wrapper* as if it were defined where *func* is, with its defaults.

    Much looks at a function itself, not at what it wraps: doctest and old FastAPI at its globals, filters of warnings
    at the name of its module, trio's warnings too, and Celery at its parameters (`getfullargspec`).
    """
    if not isinstance(func, types.FunctionType):
        return wrapper
    moved = types.FunctionType(
        wrapper.__code__, func.__globals__, func.__name__, func.__defaults__, wrapper.__closure__
    )
    moved.__kwdefaults__ = func.__kwdefaults__
    return moved


def operation_of(candidate: object) -> Operation | None:
    """Return the operation *candidate* is traced as, None if it is no wrapper of ours itself."""
    code = getattr(candidate, "__code__", None)
    # functools.wraps copies the attribute to wrappers of others: only a code object of ours says that it is ours.
    if getattr(code, "co_filename", None) != WRAPPER_FILE:
        return None
    operation: object = getattr(candidate, OPERATION_ATTRIBUTE, None)
    return operation if isinstance(operation, Operation) else None


def _template_of(func: Callable[..., Any]) -> str:
    # By isinstance: proxies of functions, such as wrapt's, are of the kind that they say.
    kind: Any = type(func)
    call = cast("Any", func) if isinstance(func, _FUNCTIONS) else kind.__call__
    for is_kind, template in _TEMPLATES:
        if is_kind(call):
            return template
    return _FUNCTION


_TEMPLATES: Final = (
    (inspect.iscoroutinefunction, _COROUTINE_FUNCTION),
    (inspect.isgeneratorfunction, GENERATOR_FUNCTION),
    (inspect.isasyncgenfunction, ASYNC_GENERATOR_FUNCTION),
)
_FUNCTIONS: Final = (types.FunctionType, types.MethodType, functools.partial)
_Cached: Final = type(functools.lru_cache(wrap))
# Not in the `__dict__` of a cached function, where update_wrapper looks.
_CACHE_METHODS: Final = ("cache_info", "cache_clear")
