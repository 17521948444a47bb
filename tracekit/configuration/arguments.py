"""Checking the arguments of `configure()`: each check returns the value as its type, or says what to write."""

from __future__ import annotations

import inspect
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from tracekit._redaction import Redactor, Rule
from tracekit.errors import ConfigurationError
from tracekit.redaction import SecretValue

Redact: TypeAlias = "Sequence[str | re.Pattern[str] | SecretValue | Rule]"


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


def redactor(value: Redact | None) -> Redactor:
    """Make the redactor that `redact=` asks for."""
    expected = "a list of names, compiled patterns, SecretValues and callables of key and value"
    write = 'redact=["iban", re.compile("^internal_"), *SECRET_VALUES]'

    def fits(item: object) -> bool:
        if isinstance(item, re.Pattern):
            # A pattern for bytes would fail on the first name it is asked about.
            return isinstance(cast("Any", item).pattern, str)
        return (isinstance(item, (str, SecretValue)) and item != "") or _takes_key_and_value(item)

    found: list[Any] = list(items("redact", value, fits, expected, write))
    names = [item for item in found if isinstance(item, str)]
    patterns: list[re.Pattern[str]] = [item for item in found if isinstance(item, re.Pattern)]
    values = [item for item in found if isinstance(item, SecretValue)]
    rules: list[Rule] = [item for item in found if not isinstance(item, (str, re.Pattern, SecretValue))]
    return Redactor(names, patterns, values, rules)


def _takes_key_and_value(item: object) -> bool:
    # A class is callable too, and never meant so.
    if not callable(item) or isinstance(item, type):
        return False
    try:
        inspect.signature(item).bind("key", "value")
    except TypeError:
        return False
    except ValueError:
        return True  # a built-in function whose parameters Python does not tell
    return True


def spool_directory(value: object) -> Path | None:
    """Return the directory that `spool=` asks for: True is one of the user's own."""
    if value is None or value is False:
        return None
    if value is True:
        from tracekit.export.spool import default_directory

        return default_directory()
    given = value
    path = os.fspath(cast("str | os.PathLike[str]", value)) if isinstance(value, (str, os.PathLike)) else None
    if path:
        # Absolute: the program may change its directory.
        return Path(path).expanduser().absolute()
    expected = "True or the path of a directory"
    raise wrong_argument(given, name="spool", expected=expected, write="spool=True")
