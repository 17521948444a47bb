"""
Attributes as OTLP: the repeated field of key and value that spans, events, links, scopes and resources have.

Programs write the same keys again and again, and under many of them the same few values: what was written lately is
remembered by key, which is 0.1 µs an attribute cheaper than by key and value together.

Source: opentelemetry-proto, common/v1/common.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry.attributes import BoundedAttributes

from tracekit._diagnostics import report_failure
from tracekit.export.otlp_value import (
    ANY_BOOL,
    ANY_DOUBLE,
    ANY_INT,
    ANY_STRING,
    BYTES,
    INT64_MAX,
    INT64_MIN,
    LENGTHS,
    UINT64_MAX,
    VARINT,
    Memo,
    any_value,
    count,
    double,
    encoded,
    tag,
    text,
    varint,
)

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes

_KEY_VALUE_KEY: Final = tag(1, BYTES)
_KEY_VALUE_VALUE: Final = tag(2, BYTES)

# Of each key 32 values of up to 128 bytes, and what 32 lengths begin with: some megabytes at the very most.
_MAX_KEYS: Final = 512
_MAX_OF_A_KEY: Final = 32
# In characters. To look a longer one up may take longer than to write it.
_LONGEST_REMEMBERED: Final = 64


@final
class AttributesField:
    """
    The field of one kind of message that holds its attributes.

    Args:
        number: The field's number.
        dropped: Number of the field that says how many were dropped; 0 where there is none.
    """

    __slots__ = ("_dropped_tag", "_keys", "tag")

    def __init__(self, number: int, dropped: int = 0) -> None:
        self.tag: Final = tag(number, BYTES)
        self._dropped_tag: Final = tag(dropped, VARINT)
        self._keys: Final[Memo[_Key]] = Memo(self._key, _MAX_KEYS)

    def _key(self, key: str) -> _Key:
        return _Key(self.tag, key)

    def add(self, parts: list[bytes], attributes: Attributes) -> None:
        """Add *attributes* to the *parts* of a message; what cannot be written is left out and reported."""
        if type(attributes) is BoundedAttributes:
            if attributes.dropped:
                parts.append(self.dropped(attributes.dropped))
            # A plain dict, which costs 0.3 µs an attribute less to read.
            attributes = cast("Any", attributes)._dict  # noqa: SLF001  # as said
        if not attributes:
            return
        keys = self._keys
        key: str
        value: Any
        for key, value in attributes.items():
            kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]  # of any value
            try:
                known = keys[key]
                if kind is str:
                    parts.append(known.strings[value] if len(value) <= _LONGEST_REMEMBERED else known.string(value))
                elif kind is int and INT64_MIN <= value <= INT64_MAX:
                    parts.append(known.ints.get(value) or known.integer(value))
                elif kind is float:
                    parts += (known.double_head, double(value))
                elif kind is bool:
                    parts.append(known.true if value else known.false)
                else:
                    parts.append(known.any(value))
            except Exception as error:  # noqa: BLE001  # user values
                report_failure("OTLP", "an attribute", error)

    def dropped(self, number: int) -> bytes:
        """Return the field that says that *number* attributes were dropped."""
        return count(self._dropped_tag, number)


@final
class _Key:
    """All attributes of one key: what they begin with, and the strings that were written lately."""

    __slots__ = ("_int_heads", "_key", "_string_heads", "_tag", "double_head", "false", "ints", "strings", "true")

    def __init__(self, tag: bytes, key: str) -> None:
        self._tag: Final = tag
        self._key: Final = text(_KEY_VALUE_KEY, key) + _KEY_VALUE_VALUE
        self.strings: Final[Memo[bytes]] = Memo(self.string, _MAX_OF_A_KEY)
        self._string_heads: Final[Memo[bytes]] = Memo(self._string_head, _MAX_OF_A_KEY)
        # The first ones seen: where there are few they are counts and codes, where there are more they are ids.
        self.ints: Final[dict[int, bytes]] = {}
        self._int_heads: Final[Memo[bytes]] = Memo(self._int_head, _MAX_OF_A_KEY)
        self.double_head: Final = self._head(ANY_DOUBLE, 8)
        self.true: Final = self._head(ANY_BOOL + b"\x01", 0)
        self.false: Final = self._head(ANY_BOOL + b"\x00", 0)

    def any(self, value: Any) -> bytes:
        """Return the attribute with any *value*; raises TypeError if it is nothing an attribute may hold."""
        written = any_value(value)
        return self._head(written, 0)

    def string(self, value: str) -> bytes:
        """Return the attribute with a string."""
        body = encoded(value)
        return self._string_heads[len(body)] + body

    def _string_head(self, size: int) -> bytes:
        return self._head(ANY_STRING + LENGTHS[size], size)

    def integer(self, value: int) -> bytes:
        """Return the attribute with an integer of 64 bits."""
        body = varint(value & UINT64_MAX)
        written = self._int_heads[len(body)] + body
        if len(self.ints) < _MAX_OF_A_KEY:
            self.ints[value] = written
        return written

    def _int_head(self, size: int) -> bytes:
        return self._head(ANY_INT, size)

    def _head(self, begin: bytes, size: int) -> bytes:
        """Return all of an attribute, but the last *size* bytes of its AnyValue, which begins with *begin*."""
        value_length = LENGTHS[len(begin) + size]
        length = len(self._key) + len(value_length) + len(begin) + size
        return b"".join((self._tag, LENGTHS[length], self._key, value_length, begin))
