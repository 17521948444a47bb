"""The parameters a function itself has, as Python source: for functions that are compiled to be called just like it."""

from __future__ import annotations

import inspect
import keyword
import types
from collections.abc import Callable
from typing import Any, Final, final

# What our own names begin with in source compiled around parameters of any name.
OWN: Final = "_tk_"
# What the code of wrappers says it was read from: by it they are known, and left out of stack traces.
WRAPPER_FILE: Final = "<tracekit wrapper>"


@final
class SignatureSource:
    """
    How to declare the parameters of *func*, pass them on and collect them.

    By its code object: neither `__signature__` nor `__wrapped__` changes how a function is called. What is no function,
    or has parameters no source can name, is taken to have `*args, **kwargs`.

    Args:
        func: Any callable.
    """

    __slots__ = ("declaration", "forwarding", "names", "raw")

    def __init__(self, func: Callable[..., Any] | None) -> None:
        code = func.__code__ if isinstance(func, types.FunctionType) else _anything.__code__
        if not all(map(_can_be_written, code.co_varnames[: _parameters_of(code)])):
            code = _anything.__code__
        before, after = code.co_posonlyargcount, code.co_argcount
        keyword_only = after + code.co_kwonlyargcount
        extra = iter(code.co_varnames[keyword_only:])
        positional, keywords = code.co_varnames[:after], code.co_varnames[after:keyword_only]
        star = next(extra) if code.co_flags & inspect.CO_VARARGS else None
        stars = next(extra) if code.co_flags & inspect.CO_VARKEYWORDS else None

        # None stands for defaults, which the compiled function takes over: with the function itself as their owner.
        defaults = getattr(func, "__defaults__", None) or ()
        optional = {*positional[len(positional) - len(defaults) :]} if defaults else set[str]()
        optional.update(getattr(func, "__kwdefaults__", None) or ())
        declared = [f"{name}=None" if name in optional else name for name in (*positional, *keywords)]
        if before:
            declared.insert(before, "/")
        if star or keywords:
            declared.insert(after + bool(before), f"*{star or ''}")
        if stars:
            declared.append(f"**{stars}")
        arguments = [*positional, *([f"*{star}"] if star else [])]
        named = [*(f"{name}={name}" for name in keywords), *([f"**{stars}"] if stars else [])]

        self.declaration: Final = ", ".join(declared)
        self.forwarding: Final = ", ".join((*arguments, *named))
        # In the order of `inspect.signature`.
        self.names: Final = tuple(name for name in (*positional, star, *keywords, stars) if name)
        # The call as a tuple and a dict, for whoever binds it to another signature.
        pairs = [*(f"{name!r}: {name}" for name in keywords), *([f"**{stars}"] if stars else [])]
        self.raw: Final = f"(({''.join(f'{one}, ' for one in arguments)}), {{{', '.join(pairs)}}})"


def _anything(*args: Any, **kwargs: Any) -> None:
    """Have the parameters of what may be called with anything."""


def _parameters_of(code: types.CodeType) -> int:
    stars = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return code.co_argcount + code.co_kwonlyargcount + stars


def _can_be_written(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith(OWN)
