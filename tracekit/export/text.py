"""
Names, values and durations as text that is safe to print, and streams as they want it.

All text of spans is somebody else's: no character of it reaches a terminal that could drive it or begin a line.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TextIO, cast

CUT: Final = "…"
MAX_VALUE: Final = 80
_MAX_DEPTH: Final = 3
_MAX_BITS: Final = 256

# Characters that would blur where a value ends and the next key begins.
_BLURS: Final = frozenset(" \"',[]{}")

# Used where the stream's encoding lacks one of the characters on the left.
_ASCII: Final = str.maketrans(
    {"├": "|", "└": "`", "│": "|", "─": "-", "•": "*", "→": "->", "←": "<-", "µ": "u", CUT: "...", "█": "#", "▏": "|"}
)
_GLYPHS: Final = "".join(map(chr, _ASCII))


def printable(text: str, limit: int) -> str:
    r"""
    Return *text* cut to *limit* characters, each character `repr` would escape written as `\x1b` or `\u202e`.

    That covers C0 and C1 controls, line and paragraph separators, bidirectional overrides, invisible characters and
    lone surrogates. A backslash is left as it is: paths stay readable.
    """
    text = str.__str__(text)  # of a subclass, the plain text
    if len(text) > limit:
        text = text[: limit - 1] + CUT
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def value_text(value: object, limit: int = MAX_VALUE) -> str:
    """Return an attribute value as a developer reads it, in about *limit* characters."""
    return _value_text(value, limit, _MAX_DEPTH)


def _value_text(value: object, limit: int, depth: int) -> str:
    if isinstance(value, str):
        return _quoted(printable(value, limit))
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return _int_text(value, limit)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, bytes):
        return bytes.__repr__(bytes.__getitem__(value, slice(limit))) + (CUT if bytes.__len__(value) > limit else "")
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        if not depth:
            return "{…}"
        return _listed(
            "{}", (f"{_value_text(k, limit, 0)}: {_value_text(v, limit, depth - 1)}" for k, v in mapping.items()), limit
        )
    if isinstance(value, Sequence):
        items = cast("Iterable[object]", value)
        return _listed("[]", (_value_text(item, limit, depth - 1) for item in items), limit) if depth else "[…]"
    return f"<{printable(type(value).__name__, limit)}>"


def _quoted(text: str) -> str:
    if text and _BLURS.isdisjoint(text):
        return text
    if '"' in text and "'" not in text:
        return f"'{text}'"
    return '"' + text.replace('"', '\\"') + '"'


def _int_text(value: int, limit: int) -> str:
    # Python refuses to print ints of thousands of digits; nobody would read them.
    bits = value.bit_length()
    return printable(int.__repr__(value), limit) if bits <= _MAX_BITS else f"<int of {bits} bits>"


def _listed(brackets: str, items: Iterable[str], limit: int) -> str:
    shown: list[str] = []
    for item in items:
        if limit <= 0:
            shown.append(CUT)
            break
        shown.append(item)
        limit -= len(item) + 2
    return brackets[0] + ", ".join(shown) + brackets[1]


def duration_text(duration_ns: int) -> str:
    """Return a duration in the unit that needs the fewest digits: `340µs`, `5.2ms`, `1.2s`, `2m 5s`."""
    if duration_ns < 0:
        return "-" + duration_text(-duration_ns)
    for size, unit in ((1, "ns"), (1_000, "µs"), (1_000_000, "ms")):
        text = _short_number(duration_ns / size)
        if float(text) < 1_000:  # noqa: PLR2004  # of the next unit
            return text + unit
    seconds = duration_ns / 1_000_000_000
    if seconds < 60:  # noqa: PLR2004  # a minute
        return _short_number(seconds) + "s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {seconds}s"


def _short_number(number: float) -> str:
    return (f"{number:.1f}" if number < 10 else f"{number:.0f}").removesuffix(".0")  # noqa: PLR2004  # two digits


def columns_of(text: str) -> int:
    """Return how many columns of a terminal *text* takes: two for a wide character, none for a combining one."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def fitted(text: str, columns: int, cut: str = CUT) -> str:
    """Return *text* in exactly *columns*: filled up with spaces, or cut where *cut* then stands."""
    missing = columns - columns_of(text)
    if missing >= 0:
        return text + " " * missing
    kept, left = "", columns - len(cut)
    for char in text:
        left -= _columns(char)
        if left < 0:
            break
        kept += char
    kept += cut[:columns]
    return kept + " " * (columns - columns_of(kept))


def _columns(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.east_asian_width(char) in {"W", "F"}:
        return 2
    # The second and third part of a Korean syllable stand where its first part does.
    is_joined = "\u1160" <= char <= "\u11ff" or unicodedata.category(char) in {"Mn", "Me", "Cf"}
    return 0 if is_joined else 1


def for_encoding(text: str, encoding: str | None) -> str:
    """Return *text* so that *encoding* can write it: the tree in ASCII, other characters escaped, if need be."""
    if encoding is None:
        return text
    try:
        text.encode(encoding)
    except (UnicodeError, LookupError):
        pass
    else:
        return text
    try:
        _GLYPHS.encode(encoding)
    except UnicodeError:
        text = text.translate(_ASCII)
    except LookupError:
        encoding = "ascii"
        text = text.translate(_ASCII)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def wants_color(stream: TextIO) -> bool:
    """
    Tell whether *stream* should get colours: a terminal, unless `NO_COLOR`, `FORCE_COLOR` or `TERM=dumb` say otherwise.

    Source: https://no-color.org, https://force-color.org.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    if os.environ.get("TERM") == "dumb":
        return False
    # The console of old Windows prints the codes; newer terminals there name themselves.
    if sys.platform == "win32" and not {"WT_SESSION", "TERM", "ANSICON"} & os.environ.keys():
        return False
    return stream.isatty()
