"""Checking the arguments of `configure()`: each check returns the value as its type, or says what to write."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from tracekit._redaction import Redactor
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence


def wrong_argument(value: object, *, name: str, expected: str, write: str) -> ConfigurationError:
    """Return the error that says that argument *name* must be *expected*; *write* is an example."""
    msg = f"{name}={reprlib.repr(value)}: expected {expected}. Write {write}."
    return ConfigurationError(msg)


def text(name: str, value: object, write: str) -> str | None:
    """Check for a string that says something, or None."""
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise wrong_argument(value, name=name, expected="a non-empty string", write=write)


def boolean(name: str, value: object) -> bool:
    """Check for True or False."""
    if isinstance(value, bool):
        return value
    raise wrong_argument(value, name=name, expected="True or False", write=f"{name}=True")


def items(name: str, value: object, fits: Callable[[object], bool], expected: str, write: str) -> tuple[object, ...]:
    """Check for a list, tuple or set of what *fits*; None is empty."""
    if value is None:
        return ()
    # Not anything iterable: a string is iterable too, and never meant so.
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise wrong_argument(value, name=name, expected=expected, write=write)
    found = tuple(cast("Iterable[object]", value))
    if not all(map(fits, found)):
        raise wrong_argument(found, name=name, expected=expected, write=write)
    return found


def strings(name: str, value: object, write: str) -> tuple[str, ...]:
    """Check for a list of strings."""
    found = items(name, value, lambda item: isinstance(item, str) and bool(item), "a list of names", write)
    return tuple(item for item in found if isinstance(item, str))


def exception_types(name: str, value: object) -> tuple[type[BaseException], ...]:
    """Check for a list of exception classes."""

    def fits(item: object) -> bool:
        return isinstance(item, type) and issubclass(item, BaseException)

    found = items(name, value, fits, "a list of exception types", f"{name}=[NotFound]")
    return tuple(item for item in found if isinstance(item, type) and issubclass(item, BaseException))


def redactor(value: Sequence[str | re.Pattern[str]] | None) -> Redactor:
    """Make the redactor that `redact=` asks for."""
    expected, write = "a list of names and compiled patterns", 'redact=["iban", re.compile("^internal_")]'
    found: list[Any] = list(items("redact", value, lambda item: isinstance(item, (str, re.Pattern)), expected, write))
    names = [item for item in found if isinstance(item, str)]
    patterns: list[re.Pattern[str]] = [item for item in found if not isinstance(item, str)]
    # A pattern for bytes would fail on the first name it is asked about.
    if not all(names) or any(isinstance(cast("object", pattern.pattern), bytes) for pattern in patterns):
        raise wrong_argument(value, name="redact", expected=expected, write=write)
    return Redactor(names, patterns)


def not_yet(**given: object) -> None:
    """Refuse arguments that are promised for later: accepting one silently would look like a setting that works."""
    for name, value in given.items():
        if value is not None and value is not False:
            msg = f"{name}={reprlib.repr(value)}: not in this version yet. Leave {name} out."
            raise ConfigurationError(msg)
