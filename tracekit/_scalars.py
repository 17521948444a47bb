"""
Values without parts -> `str`, `bool`, `int` or `float`, bounded and legal.

Only code of the standard library's own types runs here: no `__str__`, `__repr__` or property that a user's class
defines is called, so nothing a value does can reach the caller, block it or loop. The exception is the time zone of a
time, which alone knows its offset.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PurePath
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

Primitive: TypeAlias = "str | bool | int | float"
Converter: TypeAlias = "Callable[[Any, int], Primitive | None]"

CUT: Final = "…"
_MAX_INT_BITS: Final = 8_192
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1

# A metaclass may override type.mro and __getattribute__.
_mro: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__
_module: Final[Callable[[type], object]] = type.__dict__["__module__"].__get__
type_name: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__


def text(value: str, limit: int) -> str:
    """Return *value* as valid UTF-8 of at most *limit* characters: the end is cut and marked, surrogates escaped."""
    if len(value) <= limit and value.isascii():
        return value
    value = value[: limit + 1]
    try:
        value.encode()
    except UnicodeEncodeError:
        value = value.encode("utf-8", "backslashreplace").decode()
    if len(value) > limit:
        return value[: limit - 1] + CUT if limit > 0 else ""
    return value


def converter_of(kind: type) -> Converter:
    """Return what converts values of *kind*; `left_out` for what is no scalar."""
    mro = _mro(kind)
    # By identity: a metaclass may override `==`.
    converter = next((found for base, found in _BASES.items() if any(base is one for one in mro)), left_out)
    if converter is left_out and any(map(_is_numpy_scalar, mro)):
        converter = _numpy
    elif converter is _datetime and type_name(kind) == "NaTType":
        converter = left_out  # pandas's "no time", which would be a day in the year 1
    if len(CONVERTERS) < _MAX_REMEMBERED_TYPES:
        CONVERTERS[kind] = converter
    return converter


def left_out(_value: object, _limit: int) -> None:
    """Convert to nothing."""


def bytes_text(value: bytes | bytearray, limit: int) -> str:
    """Convert bytes to text: some backends drop a span with a bytes attribute."""
    read = bytes.__getitem__ if issubclass(type(value), bytes) else bytearray.__getitem__
    # A character takes up to four of them.
    return text(bytes(read(cast("Any", value), slice(4 * limit + 4))).decode("utf-8", "backslashreplace"), limit)


def _string(value: str, limit: int) -> str:
    # str.__str__: a subclass may override everything else.
    return text(value if type(value) is str else str.__str__(value), limit)


def _boolean(value: bool, _limit: int) -> bool:  # noqa: FBT001  # a converter's signature
    return value


def _integer(value: int, limit: int) -> int | str:
    if type(value) is not int:
        value = int.__int__(value)
    if _INT64_MIN <= value <= _INT64_MAX:
        return value
    if value.bit_length() > _MAX_INT_BITS:
        # Decimal digits take quadratic time, and Python refuses above 4,300 of them.
        return f"<int of {value.bit_length()} bits>"
    return text(str(value), limit)


def _float(value: float, _limit: int) -> float:
    return value if type(value) is float else float.__float__(value)


def _enum(value: Enum, limit: int) -> Primitive | None:
    mro = _mro(type(value))
    for base in (str, int, float):
        if base in mro:
            return _BASES[base](value, limit)
    # object.__getattribute__: a class of enumerations may have its own.
    inner: object = object.__getattribute__(value, "_value_")
    return text(inner if type(inner) is str else object.__getattribute__(value, "_name_"), limit)


def _numpy(value: object, limit: int) -> Primitive | None:
    generic: Any = next(base for base in _mro(type(value)) if _is_numpy_scalar(base))
    inner: object = generic.item(value)
    if type(inner) is type(value):
        return float(generic.__float__(value))  # a long double stays one
    kind = type(inner)
    return (CONVERTERS.get(kind) or converter_of(kind))(inner, limit)


def _is_numpy_scalar(kind: type) -> bool:
    return type_name(kind) == "generic" and _module(kind) == "numpy"


def _by(method: Callable[[Any], str]) -> Converter:
    def convert(value: object, limit: int) -> str:
        return text(method(value), limit)

    return convert


# A time zone that is traced is given the time it is asked about, and that would be recorded in turn.
_is_asking_zone: Final[ContextVar[bool]] = ContextVar("tracekit-is-asking-zone", default=False)


def _in_zone(method: Callable[[Any], str]) -> Converter:
    def convert(value: Any, limit: int) -> str | None:
        if _is_asking_zone.get():
            return None
        token = _is_asking_zone.set(True)
        try:
            return text(method(value), limit)
        finally:
            _is_asking_zone.reset(token)

    return convert


_datetime = _in_zone(datetime.isoformat)

# In the order in which a class with several of them as bases is looked at.
_BASES: Final[dict[type, Converter]] = {
    Enum: _enum,
    bool: _boolean,
    str: _string,
    int: _integer,
    float: _float,
    UUID: _by(UUID.__str__),
    Decimal: _by(Decimal.__str__),
    Fraction: _by(Fraction.__str__),
    datetime: _datetime,
    date: _by(date.isoformat),
    time: _in_zone(time.isoformat),
    timedelta: _by(timedelta.__str__),
    PurePath: _by(PurePath.__str__),
    # An interface is an address too.
    IPv4Interface: _by(IPv4Interface.__str__),
    IPv6Interface: _by(IPv6Interface.__str__),
    IPv4Address: _by(IPv4Address.__str__),
    IPv6Address: _by(IPv6Address.__str__),
    IPv4Network: _by(IPv4Network.__str__),
    IPv6Network: _by(IPv6Network.__str__),
    bytes: bytes_text,
    bytearray: bytes_text,
}
_MAX_REMEMBERED_TYPES: Final = 1_024

# What converts a value, by its exact type; other types are added as they come.
CONVERTERS: Final[dict[type, Converter]] = {type(None): left_out, **_BASES}
