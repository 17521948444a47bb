"""
Attributes as OTLP, and what all messages of OTLP are written with.

A message is its fields one after the other: a tag (the field's number and how its value is written), then the value;
text, bytes and messages begin with their length. A field of the default value may be left out.

Source: https://protobuf.dev/programming-guides/encoding/; opentelemetry-proto, common/v1/common.proto.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry.attributes import BoundedAttributes

from tracekit._diagnostics import report_failure

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes

# How values are written.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def _varint(value: int) -> bytes:
    """Return *value*, from 0 to 2**64 - 1, in seven bits a byte, the lowest first."""
    # Not in a loop: 0.15 µs for an id instead of 0.35.
    if value < 1 << 7:
        return bytes((value,))
    if value < 1 << 14:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 1 << 21:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14 & 0x7F | 0x80)) + _varint(value >> 21)


def tag(field: int, written_as: int) -> bytes:
    """Return what a field begins with."""
    return _varint(field << 3 | written_as)


_KEY_VALUE_KEY: Final = tag(1, BYTES)
_KEY_VALUE_VALUE: Final = tag(2, BYTES)
_ANY_STRING: Final = tag(1, BYTES)
_ANY_BOOL: Final = tag(2, VARINT)
_ANY_INT: Final = tag(3, VARINT)
_ANY_DOUBLE: Final = tag(4, FIXED64)
_ANY_ARRAY: Final = tag(5, BYTES)
_ANY_KVLIST: Final = tag(6, BYTES)
_ANY_BYTES: Final = tag(7, BYTES)
_ARRAY_VALUES: Final = tag(1, BYTES)
_KVLIST_VALUES: Final = tag(1, BYTES)

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

# What is seen again and again: names, keys, and values of few kinds. Together at most about 2 MB.
_MAX_REMEMBERED: Final = 2_048
_MAX_REMEMBERED_BYTES: Final = 128


@final
class Memo(dict[Any, bytes]):
    """What has been written lately; it writes what it does not have, and begins anew when it is full."""

    def __init__(self, write: Callable[..., bytes]) -> None:
        super().__init__()
        self._write: Final = write

    def __missing__(self, value: Any) -> bytes:
        written = self._write(value)
        if len(written) <= _MAX_REMEMBERED_BYTES:
            if len(self) >= _MAX_REMEMBERED:
                self.clear()
            self[value] = written
        return written


_LENGTHS: Final = Memo(_varint)


def field(tag: bytes, body: bytes) -> bytes:
    """Return a field of bytes, or of a message that has been written."""
    return tag + _LENGTHS[len(body)] + body


def text(tag: bytes, value: Any) -> bytes:
    """Return a field of text; raises TypeError for anything else."""
    try:
        body = str.encode(value)
    except UnicodeEncodeError:
        body = _SURROGATE.sub("\ufffd", value).encode()
    return tag + _LENGTHS[len(body)] + body


def count(tag: bytes, number: int) -> bytes:
    """Return a field of a number, nothing for 0."""
    return tag + _LENGTHS[number] if number else b""


_double: Final = struct.Struct("<d").pack

# Receivers give up at 100 messages inside each other; seven are around the AnyValue of an event's attribute.
_MAX_DEPTH: Final = 93
_ARRAY_DEPTH: Final = 2  # an ArrayValue and the AnyValue in it
_KVLIST_DEPTH: Final = 3  # a KeyValueList, the KeyValue in it, and its AnyValue
_TOO_DEEP: Final = "[nested too deeply]"
_MAX_DECIMAL_BITS: Final = 1_024
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_UINT64_MAX: Final = 2**64 - 1


def _any_string(value: str, _depth: int) -> bytes:
    return text(_ANY_STRING, value)


def _any_bool(value: bool, _depth: int) -> bytes:  # noqa: FBT001  # the value
    return _ANY_BOOL + (b"\x01" if value else b"\x00")


def _any_int(value: int, _depth: int) -> bytes:
    if _INT64_MIN <= value <= _INT64_MAX:
        return _ANY_INT + _varint(value & _UINT64_MAX)
    # Python refuses to write thousands of digits in decimal; in hex it does not.
    return text(_ANY_STRING, int.__repr__(value) if value.bit_length() <= _MAX_DECIMAL_BITS else hex(value))


def _any_double(value: float, _depth: int) -> bytes:
    return _ANY_DOUBLE + _double(value)


def _any_array(value: Sequence[Any], depth: int) -> bytes:
    depth -= _ARRAY_DEPTH
    if depth < 0:
        return text(_ANY_STRING, _TOO_DEEP)
    return field(_ANY_ARRAY, b"".join([field(_ARRAY_VALUES, _any_value(item, depth)) for item in value]))


def _any_kvlist(value: Mapping[Any, Any], depth: int) -> bytes:
    depth -= _KVLIST_DEPTH
    if depth < 0:
        return text(_ANY_STRING, _TOO_DEEP)
    return field(
        _ANY_KVLIST,
        b"".join([field(_KVLIST_VALUES, _key_value(str(key), item, depth)) for key, item in value.items()]),
    )


# The order is that of the official encoder: a bool is an int, a str a Sequence.
_ANY_VALUE_OF: Final[Mapping[type, Callable[[Any, int], bytes]]] = {
    type(None): lambda _value, _depth: b"",
    bool: _any_bool,
    str: _any_string,
    int: _any_int,
    float: _any_double,
    bytes: lambda value, _depth: field(_ANY_BYTES, value),
    tuple: _any_array,
    list: _any_array,
    dict: _any_kvlist,
    Sequence: _any_array,
    Mapping: _any_kvlist,
}


def _any_value(value: Any, depth: int) -> bytes:
    """
    Return the body of an AnyValue.

    Args:
        value: What an attribute may hold.
        depth: How many messages there may be inside.

    Raises:
        TypeError: If it is nothing an attribute may hold.
    """
    kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]  # of any value
    write = _ANY_VALUE_OF.get(kind)
    if write is None:
        write = next((write for base, write in _ANY_VALUE_OF.items() if isinstance(value, base)), None)
    if write is None:
        msg = f"no attribute may hold a {kind.__name__}"
        raise TypeError(msg)
    return write(value, depth)


def _key_value(key: str, value: Any, depth: int = _MAX_DEPTH) -> bytes:
    any_value = _any_value(value, depth)
    return _KEYS[key] + _LENGTHS[len(any_value)] + any_value


def _key(key: str) -> bytes:
    return text(_KEY_VALUE_KEY, key) + _KEY_VALUE_VALUE


def _double_key(key: str) -> bytes:
    """Return all of a KeyValue with a double, and its length, but the eight bytes of the double."""
    head = _KEYS[key] + b"\x09" + _ANY_DOUBLE
    return _LENGTHS[len(head) + 8] + head


def _int_key(known: tuple[str, int]) -> bytes:
    """Return all of a KeyValue with an integer of so many bytes, and its length, but these bytes."""
    key, size = known
    head = _KEYS[key] + _LENGTHS[size + 1] + _ANY_INT
    return _LENGTHS[len(head) + size] + head


def _known_key_value(known: tuple[str, Any, type]) -> bytes:
    key, value, _ = known
    return field(b"", _key_value(key, value))


_KEYS: Final = Memo(_key)
# 0.6 µs an attribute less.
_DOUBLE_KEYS: Final = Memo(_double_key)
_INT_KEYS: Final = Memo(_int_key)
# 0.8 µs an attribute less. By type too: True is 1.
_KEY_VALUES: Final = Memo(_known_key_value)
# Larger ones are ids, each another one.
_REMEMBERED_INTS: Final = 65_536


def add_attributes(parts: list[bytes], tag: bytes, dropped_tag: bytes, attributes: Attributes) -> None:
    """Add to *parts* the attributes as a repeated field; what cannot be written is left out and reported."""
    if type(attributes) is BoundedAttributes:
        if attributes.dropped:
            parts.append(count(dropped_tag, attributes.dropped))
        # A plain dict, which costs 0.3 µs an attribute less to read.
        attributes = cast("Any", attributes)._dict  # noqa: SLF001  # as said
    if not attributes:
        return
    key: str
    value: Any
    for key, value in attributes.items():
        kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]  # of any value
        try:
            if kind is str or kind is bool or (kind is int and 0 <= value < _REMEMBERED_INTS):
                parts += (tag, _KEY_VALUES[key, value, kind])
            elif kind is float:
                parts += (tag, _DOUBLE_KEYS[key], _double(value))
            elif kind is int and _INT64_MIN <= value <= _INT64_MAX:
                written = _varint(value & _UINT64_MAX)
                parts += (tag, _INT_KEYS[key, len(written)], written)
            else:
                parts.append(field(tag, _key_value(key, value)))
        except Exception as error:  # noqa: BLE001  # user values
            report_failure("OTLP", "an attribute", error)
