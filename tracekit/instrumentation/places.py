"""
Where callables stand that somebody else wrote: in which module, class or object, under which attribute.

Nothing here imports what is not imported yet.
"""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.util import find_spec
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final, NamedTuple, TypeAlias, cast

from tracekit._naming import span_name
from tracekit.errors import InstrumentationError

Patterns: TypeAlias = "tuple[str, ...]"

_SHOWN_NAMES: Final = 10


class Place(NamedTuple):
    """
    An attribute of a module, a class or an object, which holds a callable.

    Args:
        owner: The module, class or object.
        attribute: Its name there.
        span_name: What its spans are called.
        path: What messages call it.
    """

    owner: Any
    attribute: str
    span_name: str
    path: str

    @property
    def own(self) -> dict[str, Any]:
        """What the owner has itself, neither inherited nor from its class."""
        return getattr(self.owner, "__dict__", {})

    @property
    def content(self) -> Any:
        """What stands there, unbound; for a class maybe inherited."""
        if isinstance(self.owner, type):
            for cls in cast("type[Any]", self.owner).__mro__:
                if self.attribute in vars(cls):
                    return vars(cls)[self.attribute]
        return getattr(self.owner, self.attribute)


def find_callable(what: str, parts: list[str], name: str | None, service: str | None) -> Iterator[Place]:
    """
    Yield the place that *parts* lead to; none where the module is not imported yet.

    Args:
        what: The call it is for, for messages.
        parts: Module, classes or objects if any, attribute.
        name: The span name or operation given, if any.
        service: The service given, if any.

    Raises:
        InstrumentationError: There is no such module or attribute.
    """
    owner, length = _imported(parts[:-1])
    if length == 0:
        _check_module(parts[:1], what)
        return
    for index in range(length, len(parts) - 1):
        if not hasattr(owner, parts[index]):
            if index == length and _can_be_imported(".".join(parts[: index + 1])):
                return
            raise _missing(owner, parts[: index + 1], what)
        owner = getattr(owner, parts[index])
    if not hasattr(owner, parts[-1]):
        raise _missing(owner, parts, what)
    module, qualname = ".".join(parts[:length]), ".".join(parts[length:])
    full_name = span_name(name or parts[-1], service=service, module=module, qualname=qualname)
    yield Place(owner, parts[-1], full_name, ".".join(parts))


def find_members(
    what: str, parts: list[str], included: Patterns, excluded: Patterns, service: str | None
) -> Iterator[Place]:
    """
    Yield the places of the functions and methods that a module defines; none where it is not imported yet.

    Args:
        what: The call it is for, for messages.
        parts: The module.
        included: Globs; one must match the qualified name, or a part of it.
        excluded: Globs of which none may.
        service: The service given, if any.

    Raises:
        InstrumentationError: There is no such module, or nothing in it matches.
    """
    module, length = _imported(parts)
    if length < len(parts):
        _check_module(parts[: length + 1], what)
        return
    name = ".".join(parts)
    members = list(members_of(module, name))
    chosen = [member for member in members if _matches(member[0], included) and not _matches(member[0], excluded)]
    if not chosen:
        has = _shown(dict.fromkeys(qualname.partition(".")[0] for qualname, _, _ in members))
        msg = f"{what}: nothing matches include={included} without exclude={excluded}. The module defines: {has}."
        raise InstrumentationError(msg)
    for qualname, owner, attribute in chosen:
        full_name = span_name(attribute, service=service, module=name, qualname=qualname)
        yield Place(owner, attribute, full_name, f"{name}.{qualname}")


def function_of(member: Any) -> Any:
    """Return the function of a staticmethod or classmethod; *member* itself if it is neither."""
    return member.__func__ if issubclass(type(member), (staticmethod, classmethod)) else member


def members_of(module: Any, name: str) -> Iterator[tuple[str, Any, str]]:
    """Yield the qualified name, the owner and the attribute of each member."""
    members: dict[str, Any] = dict(module.__dict__)
    for attribute, value in members.items():
        if issubclass(type(value), _FUNCTIONS):
            if getattr(value, "__module__", None) == name and not _is_dunder(attribute):
                yield attribute, module, attribute
        elif _is_class(value, name, attribute):
            yield from _methods(value, name)


def _methods(cls: type[Any], module: str) -> Iterator[tuple[str, Any, str]]:
    members: dict[str, Any] = dict(vars(cls))
    for attribute, value in members.items():
        qualname = f"{cls.__qualname__}.{attribute}"
        if issubclass(type(function_of(value)), FunctionType):
            if not _is_dunder(attribute):
                yield qualname, cls, attribute
        elif _is_class(value, module, qualname):
            yield from _methods(value, module)


def _is_class(value: Any, module: str, qualname: str) -> bool:
    # Under its own name only: other names lead to the same class, maybe in a circle.
    return issubclass(type(value), type) and value.__module__ == module and value.__qualname__ == qualname


# Objects that merely can be called may be more than that: tasks, commands, proxies.
_FUNCTIONS: Final = (FunctionType, BuiltinFunctionType, type(functools.lru_cache(_methods)))


def _matches(qualname: str, patterns: Patterns) -> bool:
    return any(fnmatchcase(part, pattern) for pattern in patterns for part in (qualname, *qualname.split(".")))


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _imported(parts: list[str]) -> tuple[Any, int]:
    """Return the imported module with the longest name that *parts* begin with, and how many parts that is."""
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if sys.modules.get(name) is not None:
            # No import, but the wait for the end of one in another thread.
            return import_module(name), length
    return None, 0


def _can_be_imported(name: str) -> bool:
    # For names whose parent is imported: find_spec imports the parent.
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _check_module(parts: list[str], what: str) -> None:
    name = ".".join(parts)
    if not _can_be_imported(name):
        msg = f"{what}: there is no module {name!r}. Check the spelling, or install what has it."
        raise InstrumentationError(msg)


def _missing(owner: Any, parts: list[str], what: str) -> InstrumentationError:
    names = [name for name in dir(owner) if not _is_dunder(name)]
    close = difflib.get_close_matches(parts[-1], names)
    hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"It has: {_shown(names)}."
    return InstrumentationError(f"{what}: {'.'.join(parts[:-1])} has no {parts[-1]!r}. {hint}")


def _shown(names: Iterable[str]) -> str:
    public = [name for name in names if not name.startswith("_")]
    return ", ".join(public[:_SHOWN_NAMES] + ["..."] * (len(public) > _SHOWN_NAMES)) or "nothing public"
