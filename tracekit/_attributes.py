"""
Any Python value -> a legal, bounded, redacted attribute value, or nothing.

Only code of the standard library's own types runs here: no `__str__`, `__repr__`, `__iter__` or property that
a user's class defines is called, so nothing a value does can reach the caller, block it or loop.
"""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

from tracekit._diagnostics import report_failure
from tracekit._redaction import REDACTED, Redactor

Primitive: TypeAlias = "str | bool | int | float"
AttributeValue: TypeAlias = "Primitive | tuple[str, ...] | tuple[bool, ...] | tuple[int, ...] | tuple[float, ...]"
_Converter: TypeAlias = Callable[[Any, int, Redactor], "AttributeValue | None"]

CUT: Final = "…"
MAX_ITEMS: Final = 128
_MAX_DEPTH: Final = 8
_DEFAULT_REDACTOR: Final = Redactor()
_MAX_INT_BITS: Final = 8_192
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1

# A metaclass may override type.mro and __getattribute__.
_mro: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__
_type_module: Final[Callable[[type], str]] = type.__dict__["__module__"].__get__
_type_name: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__


def attribute_value(value: object, limit: int, redactor: Redactor = _DEFAULT_REDACTOR) -> AttributeValue | None:
    """
    Return *value* as an attribute value, or None where it has no safe form.

    Strings are cut to *limit* characters, the last one being "…"; ints beyond 64 bits, UUIDs, dates, paths and the
    like become strings; flat sequences of one primitive type become tuples; other built-in containers JSON text.

    Args:
        value: Anything at all.
        limit: Longest string, in characters.
        redactor: Which keys of mappings inside are secret.

    Source: OpenTelemetry specification, common/README.md#attribute.
    """
    try:
        kind = type(value)
        converter = _BY_TYPE.get(kind)
        if converter is None:
            converter = _converter_of(kind)
        return None if converter is None else converter(value, limit, redactor)
    except Exception as error:  # noqa: BLE001  # a hostile metaclass, tzinfo or the recursion limit
        report_failure("attributes", "a value", error)
        return None


def scalar_value(value: object, limit: int) -> AttributeValue | None:
    """Return *value* as an attribute value if it is a scalar: those are recorded without being asked for; else None."""
    try:
        kind = type(value)
        converter = _BY_TYPE.get(kind)
        if converter is None:
            converter = _converter_of(kind)
        if converter is None or converter not in _SCALARS:
            return None
        return converter(value, limit, _DEFAULT_REDACTOR)
    except Exception as error:  # noqa: BLE001  # as above
        report_failure("attributes", "a value", error)
        return None


def attribute_items(
    items: Mapping[Any, object] | None, redactor: Redactor, limit: int, operation: str
) -> dict[str, AttributeValue]:
    """
    Return *items* as attributes: keys that are names, values that are legal, secrets redacted.

    What has no legal form is left out and counted.

    Args:
        items: Keys to values; anything that is no mapping gives no attributes.
        redactor: Which keys are secret.
        limit: Longest string, in characters.
        operation: Who asked, for the log.
    """
    attributes: dict[str, AttributeValue] = {}
    if items is None:
        return attributes
    try:
        pairs = list(islice(items.items(), MAX_ITEMS))
    except Exception as error:  # noqa: BLE001  # not a mapping, or one that raises
        report_failure(operation, "a mapping of attributes", error)
        return attributes
    for key, value in pairs:
        put(attributes, key, value, redactor, limit, operation)
    return attributes


def put(
    attributes: dict[str, AttributeValue], key: object, value: object, redactor: Redactor, limit: int, operation: str
) -> None:
    """Add one pair to *attributes* if it can be made legal; None is left out silently, anything else with a count."""
    name = attribute_name(key)
    if name is None:
        report_failure(operation, "an attribute key")
    elif redactor.hides(name):
        attributes[name] = REDACTED
    elif value is not None:
        clean = attribute_value(value, limit, redactor)
        if clean is None:
            report_failure(operation, f"attribute {name!r}: a value of type {_type_name(type(value))!r}")
        else:
            attributes[name] = clean


def attribute_name(key: object) -> str | None:
    """Return *key* as a non-empty string of at most 256 characters, or None where it is no name."""
    if type(key) is str and key and len(key) <= 256 and key.isascii():  # noqa: PLR2004  # as below
        return key
    if type(key) is not str:
        key = attribute_value(key, 256) if isinstance(key, (str, Enum)) else None
    if not isinstance(key, str) or not key:
        return None
    return text(key, 256)


def text(value: str, limit: int) -> str:
    """Return *value* as valid UTF-8 of at most *limit* characters: the end is cut and marked, surrogates escaped."""
    if len(value) > limit:
        value = value[: max(limit - 1, 0)] + CUT if limit > 0 else ""
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _string(value: str, limit: int, _redactor: Redactor) -> str:
    # str.__str__: a subclass may override everything else.
    return text(value if type(value) is str else str.__str__(value), limit)


def _boolean(value: bool, _limit: int, _redactor: Redactor) -> bool:  # noqa: FBT001  # a converter's signature
    return value


def _integer(value: int, limit: int, _redactor: Redactor) -> int | str:
    if type(value) is not int:
        value = int.__int__(value)
    if _INT64_MIN <= value <= _INT64_MAX:
        return value
    if value.bit_length() > _MAX_INT_BITS:
        # Decimal digits take quadratic time, and Python refuses above 4,300 of them.
        return f"<int of {value.bit_length()} bits>"
    return text(str(value), limit)


def _float(value: float, _limit: int, _redactor: Redactor) -> float:
    return value if type(value) is float else float.__float__(value)


def _bytes(value: bytes | bytearray, limit: int, _redactor: Redactor) -> str:
    # As text: some backends drop a span with a bytes attribute.
    return text(bytes(value[: limit + 1]).decode("utf-8", "backslashreplace"), limit)


def _enum(value: Enum, limit: int, redactor: Redactor) -> AttributeValue | None:
    inner: object = value._value_
    if isinstance(value, (str, int, float)) or type(inner) is str:
        return attribute_value(inner, limit, redactor)
    return text(value._name_, limit)


def _by(method: Callable[[Any], str]) -> _Converter:
    def convert(value: object, limit: int, _redactor: Redactor) -> str:
        return text(method(value), limit)

    return convert


def _numpy(value: Any, limit: int, redactor: Redactor) -> AttributeValue | None:
    return attribute_value(value.item(), limit, redactor)


def _sequence(value: Iterable[object], limit: int, redactor: Redactor) -> AttributeValue | None:
    items: tuple[object, ...] = tuple(islice(iter(value), MAX_ITEMS))
    cleaned = [scalar_value(item, limit) for item in items]
    kinds = {type(item) for item in cleaned}
    if len(kinds) <= 1 and None not in cleaned:
        return cast("AttributeValue", tuple(cleaned))
    if kinds == {int, float}:
        return tuple(float(cast("float", item)) for item in cleaned)
    return _as_json(items, limit, redactor)


def _as_json(value: object, limit: int, redactor: Redactor) -> str:
    # Containers share parts and hold themselves: what would be cut anyway must not be gone through.
    characters_left = limit

    def plain(value: object, depth: int) -> object:
        nonlocal characters_left
        characters_left -= 1
        if value is None:
            return None
        converter = _BY_TYPE.get(type(value)) or _converter_of(type(value))
        if converter in _SCALARS:
            scalar = scalar_value(value, limit)
            characters_left -= len(scalar) if isinstance(scalar, str) else 0
            return scalar
        if converter not in (_sequence, _as_json) or depth == 0:
            return f"<{_type_name(type(value))}>"
        if characters_left < 0:
            return CUT
        if not isinstance(value, (dict, MappingProxyType)):
            return [plain(item, depth - 1) for item in islice(iter(cast("Iterable[object]", value)), MAX_ITEMS)]
        pairs = islice(cast("Mapping[object, object]", value).items(), MAX_ITEMS)
        named = ((attribute_name(key) or "?", item) for key, item in pairs)
        return {name: REDACTED if redactor.hides(name) else plain(item, depth - 1) for name, item in named}

    return text(json.dumps(plain(value, _MAX_DEPTH), ensure_ascii=False), limit)


_date = _by(date.isoformat)
_datetime = _by(datetime.isoformat)
_time = _by(time.isoformat)
_timedelta = _by(timedelta.__str__)
_uuid = _by(UUID.__str__)
_decimal = _by(Decimal.__str__)
_fraction = _by(Fraction.__str__)
_path = _by(PurePath.__str__)
_address = _by(str)

# In the order in which a class with several of them as bases is looked at.
_BASES: Final[dict[type, _Converter]] = {
    Enum: _enum,
    bool: _boolean,
    str: _string,
    int: _integer,
    float: _float,
    UUID: _uuid,
    Decimal: _decimal,
    Fraction: _fraction,
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _timedelta,
    PurePath: _path,
    IPv4Address: _address,
    IPv6Address: _address,
    IPv4Network: _address,
    IPv6Network: _address,
    bytes: _bytes,
    bytearray: _bytes,
}
_SCALARS: Final = frozenset(_BASES.values()) - {_bytes} | {_numpy}

# Containers count by exact type: a subclass may run anything when it is iterated.
_BY_TYPE: Final[dict[type, _Converter | None]] = {
    type(None): None,
    **_BASES,
    **dict.fromkeys((list, tuple, set, frozenset, deque, range), _sequence),
    **dict.fromkeys((dict, OrderedDict, defaultdict, MappingProxyType), _as_json),
}
_MAX_REMEMBERED_TYPES: Final = 1_024


def _converter_of(kind: type) -> _Converter | None:
    mro = _mro(kind)
    converter = next((found for base, found in _BASES.items() if base in mro), None)
    if converter is None and any(_type_name(base) == "generic" and _type_module(base) == "numpy" for base in mro):
        converter = _numpy
    if len(_BY_TYPE) < _MAX_REMEMBERED_TYPES:
        _BY_TYPE[kind] = converter
    return converter
