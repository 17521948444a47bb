"""What a test expects of names and values: text with `*` for anything, regular expressions, or the value itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, cast

from tracekit.export.text import value_text

# `*` stands for anything; so does the mark of a value that was cut, for the rest of it.
_ANYTHING: Final = re.compile(r"\*|…")
_WHOLE: Final = 1_000_000


def is_like(text: str, pattern: str) -> bool:
    """Tell whether *text* is *pattern*, in which `*` stands for anything."""
    if text == pattern:
        return True
    parts = _ANYTHING.split(pattern)
    return len(parts) > 1 and re.fullmatch(".*".join(map(re.escape, parts)), text, re.DOTALL) is not None


def reads_like(value: object, pattern: str) -> bool:
    """Tell whether *value*, as the tree writes it, is like *pattern*, with or without quotes."""
    plain = pattern[1:-1] if len(pattern) > 1 and pattern[0] == pattern[-1] and pattern[0] in "\"'" else pattern
    return is_like(value_text(value, _WHOLE), pattern) or is_like(str(value), plain.replace('\\"', '"'))


def is_found_in(value: object, pattern: re.Pattern[str]) -> bool:
    """Tell whether *pattern* is found in *value*."""
    return pattern.search(str(value)) is not None


def equals(value: object, expected: object) -> bool:
    """Tell whether *value* is what is *expected*: equal, a list for a tuple, or a pattern that is found in it."""
    if isinstance(expected, re.Pattern):
        return is_found_in(value, cast("re.Pattern[str]", expected))
    if isinstance(value, tuple) and isinstance(expected, Sequence) and not isinstance(expected, str):
        return value == tuple(cast("Sequence[object]", expected))
    # True == 1 in Python; in a trace they are different values.
    return bool(value == expected) and (isinstance(value, bool) == isinstance(expected, bool) or _is_own_kind(expected))


def _is_own_kind(expected: object) -> bool:
    """Tell whether *expected* has an equality of its own, such as `mock.ANY` or `pytest.approx`."""
    return not isinstance(expected, (bool, int, float, str))
