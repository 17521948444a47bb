"""
Any Python value -> a legal, bounded, redacted attribute value, or nothing.

No iterator, property or `__repr__` of a user's class is called: containers count by exact type.
"""

from __future__ import annotations

import gc
import json
import math
from bisect import bisect_right
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from itertools import accumulate, islice
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar, cast, final

from tracekit._diagnostics import FORGIVEN, forgive, report_failure
from tracekit._redaction import REDACTED, Redactor
from tracekit._scalars import CONVERTERS, CUT, Converter, Primitive, bytes_text, converter_of, left_out, text, type_name

__all__ = [
    "AttributeValue",
    "attribute_items",
    "attribute_name",
    "attribute_value",
    "judged",
    "message_text",
    "put",
    "put_scalar",
    "scalar_value",
    "text",
]

AttributeValue: TypeAlias = "Primitive | tuple[str, ...] | tuple[bool, ...] | tuple[int, ...] | tuple[float, ...]"

MAX_ITEMS: Final = 128
_MAX_DEPTH: Final = 8
# Of a container with others inside: parts may be shared, and then 8 levels of 128 are 2 ** 56.
_MAX_PARTS: Final = 1_024
_MAX_SEQUENCE_TEXT: Final = 64 * 1024
# What is read beyond a limit, for secrets that lie across it.
_MARGIN: Final = 2_048
_TRIES: Final = 3
_DEFAULT_REDACTOR: Final = Redactor()


def attribute_value(value: object, limit: int, redactor: Redactor = _DEFAULT_REDACTOR) -> AttributeValue | None:
    """
    Return *value* as an attribute value, or None where it has no safe form.

    Strings are cut to *limit* characters, the last one being "…"; ints beyond 64 bits, UUIDs, dates, paths and the
    like become strings; flat sequences of one primitive type become tuples; other built-in containers JSON text.

    Args:
        value: Anything at all.
        limit: Longest string, in characters.
        redactor: Which values, and keys of mappings inside, are secret.

    Source: OpenTelemetry specification, common/README.md#attribute.
    """
    try:
        kind = type(value)
        converter = CONVERTERS.get(kind) or converter_of(kind)
        if converter is left_out:
            container = _CONTAINERS.get(kind)
            return None if container is None else container(value, limit, redactor)
        return _scrubbed(converter, value, limit, redactor) if redactor.reads_values else converter(value, limit)
    except FORGIVEN as error:  # a hostile metaclass, tzinfo or the recursion limit
        forgive("attributes", "a value", error)
        return None


def scalar_value(value: object, limit: int, redactor: Redactor = _DEFAULT_REDACTOR) -> Primitive | None:
    """Return *value* as an attribute value if it is a scalar: those are recorded without being asked for; else None."""
    try:
        kind = type(value)
        converter = CONVERTERS.get(kind) or converter_of(kind)
        if converter is bytes_text:
            return None
        return _scrubbed(converter, value, limit, redactor) if redactor.reads_values else converter(value, limit)
    except FORGIVEN as error:  # as above
        forgive("attributes", "a value", error)
        return None


def attribute_items(
    items: Mapping[Any, object] | None, redactor: Redactor, limit: int, operation: str
) -> dict[str, AttributeValue]:
    """
    Return *items* as attributes: keys that are names, values that are legal, secrets redacted.

    What has no legal form is left out and counted.

    Args:
        items: Keys to values; anything that is no mapping gives no attributes.
        redactor: Which keys and values are secret.
        limit: Longest string, in characters.
        operation: Who asked, for the log.
    """
    attributes: dict[str, AttributeValue] = {}
    if items is None:
        return attributes
    try:
        pairs = list(islice(items.items(), MAX_ITEMS))
    except FORGIVEN as error:  # not a mapping, or one that raises
        forgive(operation, "a mapping of attributes", error)
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
    elif redactor.hides(name) or (len(name) == MAX_KEY and redactor.hides(str(key))):
        # The second: what makes it secret may have been cut off.
        attributes[redactor.scrub(name)] = REDACTED
    elif value is not None:
        clean = attribute_value(value, limit, redactor)
        if clean is None:
            report_failure(operation, f"attribute {name!r}: a value of type {type_name(type(value))!r}")
        elif redactor.reads_values:
            attributes[redactor.scrub(name)] = judged(name, clean, limit, redactor)
        else:
            attributes[name] = clean


def put_scalar(
    attributes: dict[str, AttributeValue], key: object, value: object, redactor: Redactor, limit: int, operation: str
) -> None:
    """Add one pair to *attributes* if its value is a scalar."""
    if scalar_value(value, 0) is not None:
        put(attributes, key, value, redactor, limit, operation)


def judged(name: str, clean: AttributeValue, limit: int, redactor: Redactor) -> AttributeValue:
    """Return *clean*, or what the program's own rules want recorded in its place under *name*."""
    verdict: object = redactor.judge(name, clean)
    if verdict is clean:
        return clean
    replaced = attribute_value(verdict, limit)
    return REDACTED if replaced is None else replaced


def message_text(key: str, value: str, limit: int, redactor: Redactor) -> str:
    """Return *value*, which is to stand under *key*, as legal text of at most *limit* characters without secrets."""
    if not redactor.reads_values:
        return text(value, limit)
    found = judged(key, _scrubbed_text(text(value, limit + _MARGIN), limit, redactor), limit, redactor)
    return found if isinstance(found, str) else REDACTED


# Longest key, in characters.
MAX_KEY: Final = 256


def attribute_name(key: object) -> str | None:
    """Return *key* as a non-empty string of at most 256 characters, or None where it is no name."""
    if type(key) is str and key and len(key) <= MAX_KEY and key.isascii():
        return key
    kind = type(key)
    if kind is not str:
        key = scalar_value(key, MAX_KEY) if issubclass(kind, (str, Enum)) else None
    return text(key, MAX_KEY) if isinstance(key, str) and key else None


def _scrubbed(converter: Converter, value: object, limit: int, redactor: Redactor) -> Primitive | None:
    clean = converter(value, limit + _MARGIN)
    if type(clean) is str:
        return _scrubbed_text(clean, limit, redactor)
    # Card numbers may be numbers.
    return REDACTED if type(clean) is int and redactor.scrub(str(clean)) != str(clean) else clean


def _scrubbed_text(value: str, limit: int, redactor: Redactor) -> str:
    scrubbed = redactor.scrub(value)
    if len(value) >= limit + _MARGIN:
        # It was cut: what stands at its end may be the first half of a secret.
        scrubbed = scrubbed[:-_MARGIN] + CUT
    return text(scrubbed, limit)


_Part = TypeVar("_Part")


def _first(parts: Iterable[_Part]) -> tuple[_Part, ...]:
    for _ in range(_TRIES):
        try:
            return tuple(islice(iter(parts), MAX_ITEMS))
        except RuntimeError:
            continue  # another thread adds to it
    return ()


def _sequence(value: Iterable[object], limit: int, redactor: Redactor) -> AttributeValue | None:
    items = _first(value)
    cleaned = [scalar_value(item, limit, redactor) for item in items]
    kinds = {type(item) for item in cleaned}
    if len(kinds) <= 1 and None not in cleaned:
        if kinds == {str}:
            sizes = accumulate(len(cast("str", item)) for item in cleaned)
            fitting = bisect_right(list(sizes), max(_MAX_SEQUENCE_TEXT, limit))
            cleaned[fitting:] = [CUT] if fitting < len(cleaned) else []
        return cast("AttributeValue", tuple(cleaned))
    if kinds == {int, float}:
        return tuple(float(cast("float", item)) for item in cleaned)
    return _as_json(list(items), limit, redactor)


def _mapping(value: Mapping[object, object], limit: int, redactor: Redactor) -> str | None:
    mapping = _inside(value)
    return None if mapping is None else _as_json(mapping, limit, redactor)


def _inside(mapping: Mapping[object, object]) -> Mapping[object, object] | None:
    if type(mapping) is not MappingProxyType:
        return mapping
    # Asking the proxy for its items would run the code of whatever mapping is inside.
    inside: Any = gc.get_referents(mapping)[0]
    return inside if type(inside) in _MAPPINGS else None


def _as_json(container: object, limit: int, redactor: Redactor) -> str:
    return text(json.dumps(_Plain(limit, redactor).of(container, _MAX_DEPTH), ensure_ascii=False), limit)


@final
class _Plain:
    """
    A container in JSON's own types, its parts bounded and redacted.

    Not all of it is gone through: parts may be shared or hold themselves, and what would be cut needs no look.
    """

    __slots__ = ("_characters_left", "_limit", "_parts_left", "_redactor", "_within")

    def __init__(self, limit: int, redactor: Redactor) -> None:
        self._limit = limit
        self._redactor = redactor
        self._parts_left = _MAX_PARTS
        self._characters_left = limit
        self._within: set[int] = set()

    def of(self, value: object, depth: int) -> object:
        """Return *value*, of which at most *depth* levels are shown."""
        if value is None:
            return None
        if self._is_full or id(value) in self._within:
            return CUT
        self._parts_left -= 1
        kind = type(value)
        if (CONVERTERS.get(kind) or converter_of(kind)) is not left_out:
            return self._leaf(value)
        container: Any = _inside(cast("Any", value)) if kind in _MAPPINGS else value
        if kind not in _CONTAINERS or container is None or depth == 0:
            return f"<{type_name(kind)}>"
        self._within.add(id(container))
        try:
            return (self._mapping if kind in _MAPPINGS else self._list)(container, depth - 1)
        finally:
            self._within.discard(id(container))

    @property
    def _is_full(self) -> bool:
        return self._parts_left <= 0 or self._characters_left <= 0

    def _leaf(self, value: object) -> object:
        clean = attribute_value(value, self._limit, self._redactor)
        self._characters_left -= len(clean) if isinstance(clean, str) else 1
        # JSON has no such numbers.
        return json.dumps(clean) if isinstance(clean, float) and not math.isfinite(clean) else clean

    def _mapping(self, mapping: Mapping[object, object], depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, item in _first(mapping.items()):
            if self._is_full:
                found[CUT] = CUT
                break
            name = self._name(key)
            is_secret = self._is_secret(key)
            found[self._redactor.scrub(name)] = REDACTED if is_secret else self._named(name, item, depth)
        return found

    def _list(self, items: Iterable[object], depth: int) -> list[object]:
        found: list[object] = []
        parts = _first(items)
        if len(parts) == 2 and depth < _MAX_DEPTH - 1 and issubclass(type(parts[0]), (str, bytes)):  # noqa: PLR2004  # a pair
            # Headers may be lists of pairs.
            name = self._name(parts[0])
            return [self._redactor.scrub(name), self._named(name, parts[1], depth)]
        for item in parts:
            found.append(self.of(item, depth))
            if self._is_full:
                break
        return found

    def _name(self, key: object) -> str:
        clean = attribute_name(key) or attribute_value(key, self._limit)
        name = f"{clean}" if isinstance(clean, (str, int, float)) else "?"
        self._characters_left -= len(name)
        return name

    def _is_secret(self, key: object) -> bool:
        """Tell whether *key* has a secret name besides the one it is written as."""
        kind = type(key)
        if issubclass(kind, Enum):
            return self._redactor.hides(cast("Enum", key)._name_)
        path = cast("tuple[object, ...]", key)[:_MAX_DEPTH] if kind is tuple else ()
        return any(self._redactor.hides(part) for part in path if type(part) is str)

    def _named(self, name: str, item: object, depth: int) -> object:
        if self._redactor.hides(name):
            return REDACTED
        plain = self.of(item, depth)
        if not self._redactor.reads_values:
            return plain
        verdict = self._redactor.judge(name, plain)
        return plain if verdict is plain else attribute_value(verdict, self._limit) or REDACTED


# By exact type: a subclass may run anything when it is iterated.
_MAPPINGS: Final = frozenset({dict, OrderedDict, defaultdict, MappingProxyType})
_CONTAINERS: Final[dict[type, Callable[[Any, int, Redactor], AttributeValue | None]]] = {
    **dict.fromkeys((list, tuple, set, frozenset, deque, range), _sequence),
    **dict.fromkeys(_MAPPINGS, _mapping),
}
