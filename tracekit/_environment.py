"""Reading `OTEL_*` variables. A variable that is set but cannot be read is an error, never a silent default."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from typing import Final, final
from urllib.parse import unquote

from tracekit.errors import ConfigurationError


@final
class Environment:
    """
    The environment variables, each read as the type it must have.

    Every reader returns None for a variable that is not set or empty, which the specification says is the same.

    Args:
        variables: Read instead of `os.environ`.

    Raises:
        ConfigurationError: From each reader, if the value cannot be read; names variable, value and what to write.

    Source: OpenTelemetry specification, configuration/sdk-environment-variables.
    """

    __slots__ = ("_variables",)

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables: Final = os.environ if variables is None else variables

    def text(self, name: str) -> str | None:
        """Return the value of *name* without the white space around it."""
        return self._variables.get(name, "").strip() or None

    def boolean(self, name: str) -> bool | None:
        """Read "true" or "false", in any case."""
        choice = self.choice(name, ("true", "false"))
        return None if choice is None else choice == "true"

    def choice(self, name: str, known: Collection[str]) -> str | None:
        """Read one of the words in *known*, in any case."""
        value = self.text(name)
        if value is None:
            return None
        if value.lower() not in known:
            raise wrong_variable(name, value, f"one of {', '.join(known)}")
        return value.lower()

    def choices(self, name: str, known: Collection[str]) -> tuple[str, ...] | None:
        """Read a comma-separated list of words in *known*."""
        value = self.text(name)
        if value is None:
            return None
        chosen = tuple(word.strip().lower() for word in value.split(",") if word.strip())
        if not chosen or any(word not in known for word in chosen):
            raise wrong_variable(name, value, f"a comma-separated list of {', '.join(known)}")
        return chosen

    def integer(self, name: str, *, minimum: int = 0) -> int | None:
        """Read a whole number, *minimum* at least."""
        value = self.text(name)
        if value is None:
            return None
        # int() would read "1_000" and other scripts' digits too, which no other language's SDK reads.
        digits = value.removeprefix("+")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MAX_DIGITS and int(digits) >= minimum):
            raise wrong_variable(name, value, f"a whole number, {minimum} or more")
        return int(digits)

    def number(self, name: str, *, maximum: float = math.inf) -> float | None:
        """Read a number from 0 to *maximum*."""
        value = self.text(name)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0.0 <= number <= maximum or math.isinf(number):
            upper = "up" if math.isinf(maximum) else f"to {maximum:g}"
            raise wrong_variable(name, value, f"a number from 0 {upper}")
        return number

    def pairs(self, name: str) -> dict[str, str] | None:
        """Read `key=value,key=value`; values are percent-encoded."""
        value = self.text(name)
        if value is None:
            return None
        pairs: dict[str, str] = {}
        for item in filter(None, map(str.strip, value.split(","))):
            key, equals, text = item.partition("=")
            if not equals or not key.strip():
                # The value may be a secret (headers): only its name is shown.
                raise wrong_variable(
                    name, "...", "key=value pairs with commas between (write a comma in a value as %2C)"
                )
            pairs[unquote(key.strip())] = unquote(text.strip())
        return pairs


# More digits than any limit needs; int() of a very long string is slow and from 3.11 on an error of its own.
_MAX_DIGITS: Final = 18


def wrong_variable(name: str, value: str, expected: str) -> ConfigurationError:
    """Return the error that says that environment variable *name* must be *expected*."""
    msg = f"environment variable {name}={value[:100]!r}: expected {expected}. Set it so, or unset it."
    return ConfigurationError(msg)
