"""
Reading and writing carriers: headers in the shapes that libraries give them, told apart by shape.

A shape is one of three: a mapping or header object, pairs, or something that has one of these inside (`headers`).
No library is imported for it. Functions here may raise what a carrier raises; `tracekit.propagation` keeps that in.
"""

# Carriers are of any type, and what is found inside Any counts as unknown.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tracekit._diagnostics import FORGIVEN
from tracekit._w3c import MAX_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

# Against hostile carriers; an environment with thousands of variables is the largest honest one.
_MAX_FIELDS: Final = 4_096
_MAX_VALUES: Final = 128
_MAX_NAME_LENGTH: Final = 256
_MAX_DEPTH: Final = 3  # message.properties.UserProperty

# Where objects keep their headers: requests, responses and messages of HTTP libraries, Kafka, AMQP, NATS, Celery;
# CloudEvents; gRPC's servicer context; AMQP 1.0; MQTT v5.
_ATTRIBUTES: Final = (
    "headers",
    "get_attributes",
    "invocation_metadata",
    "application_properties",
    "UserProperty",
    "properties",
)
# Where dicts keep them: ASGI scopes and messages, Lambda events; SQS and SNS messages.
_KEYS: Final = ("headers", "MessageAttributes", "messageAttributes")
# What holds the text of an SQS or SNS message attribute: boto3, Lambda, SNS notifications.
_ATTRIBUTE_VALUES: Final = ("StringValue", "stringValue", "Value")

# What stands under "headers" where that is the name of a field like any other.
_SCALARS: Final = (str, bytes, int, float)

_WSGI: Final = "REQUEST_METHOD"
_MISSING: Final = object()


class _Spelling(NamedTuple):
    """How one shape of carrier writes a field."""

    name: Callable[[str], Any]
    value: Callable[[str], Any]


def _as_variable(name: str) -> str:
    return name.upper().replace("-", "_")


def _as_cgi_variable(name: str) -> str:
    return f"HTTP_{_as_variable(name)}"


def _as_message_attribute(value: str) -> dict[str, str]:
    return {"StringValue": value, "DataType": "String"}


_TEXT: Final = _Spelling(str, str)
_BYTES: Final = _Spelling(str.encode, str.encode)
_KAFKA: Final = _Spelling(str, str.encode)
_ENVIRONMENT: Final = _Spelling(_as_variable, str)
_CGI: Final = _Spelling(_as_cgi_variable, str)
_MESSAGE_ATTRIBUTES: Final = _Spelling(str, _as_message_attribute)


def read(carrier: object) -> dict[str, list[object]]:
    """
    Return the fields of *carrier*: lower-case names, and all that each has, for `texts` to read.

    Raises:
        TypeError: *carrier* has no shape known here.
    """
    fields: dict[str, list[object]] = {}
    for pairs in _levels(carrier):
        found: dict[str, list[object]] = {}
        for key, value in pairs:
            name = _field_name(key)
            if name in found:
                found[name].append(value)
            elif name:
                found[name] = [value]
        fields = {**found, **fields}
    return fields


def texts(values: Iterable[object]) -> list[str]:
    """Return the texts among the *values* of a field; one too long for any propagator counts, but is empty."""
    found: list[str] = []
    for value in values:
        several: Any = (value,)
        if isinstance(value, Mapping):
            several = [value.get(name) for name in _ATTRIBUTE_VALUES]
        elif isinstance(value, (list, tuple)):
            several = value[:_MAX_VALUES]
        found.extend(text for text in (_text(item, MAX_LENGTH) for item in several) if text is not None)
    return found


def write(carrier: Any, fields: Mapping[str, str], stale: Collection[str] = ()) -> Any:
    """
    Write *fields* into *carrier* in its own spelling, and take out what it holds of them and of *stale*.

    Returns:
        The carrier; a new one for a tuple.

    Raises:
        TypeError: *carrier* cannot be changed, or has no shape known here.
    """
    return _write(carrier, fields, {name.lower() for name in (*fields, *stale)})


def _levels(carrier: Any, depth: int = _MAX_DEPTH) -> Iterator[Iterable[tuple[object, object]]]:
    """Yield the pairs of what *carrier* has inside, then its own: what a message says of itself beside its headers."""
    inner = _inside(carrier) if depth else _MISSING
    if inner is _MISSING:
        if carrier is not None:
            yield _pairs(carrier)
    elif isinstance(carrier, dict):
        # Nobody knows whether "headers" are headers: what is no carrier, or fails, must not cost the dict's own fields.
        with suppress(*FORGIVEN):
            yield from [list(pairs) for pairs in _levels(inner, depth - 1)]
        yield _pairs(carrier)
    else:
        yield from _levels(inner, depth - 1)


def _pairs(carrier: Any) -> Iterator[tuple[object, object]]:
    for pair in islice(_items(carrier), _MAX_FIELDS):
        try:
            key, value = pair
        except (TypeError, ValueError):  # one malformed pair must not cost the others
            continue
        yield key, value


def _items(carrier: Any) -> Any:
    # httpx joins the values of one name in `items()`.
    items = getattr(carrier, "multi_items", None) or getattr(carrier, "items", None)
    if callable(items):
        pairs: Any = items()
        if isinstance(carrier, dict) and _WSGI in carrier:
            # Servers put their own environment beside the request's headers: its TRACEPARENT is another one.
            return (pair for pair in pairs if str(pair[0]).startswith("HTTP_"))
        return pairs
    if isinstance(carrier, Iterable) and not isinstance(carrier, (str, bytes)):
        return carrier
    msg = f"a {type(carrier).__name__} is no carrier; expected a mapping, pairs, or something with `headers`"
    raise TypeError(msg)


def _inside(carrier: Any) -> Any:
    """Return the carrier that *carrier* keeps inside, or `_MISSING`."""
    if isinstance(carrier, dict):
        for key in _KEYS:
            inner = carrier.get(key)
            if inner is not None and not isinstance(inner, _SCALARS):
                return inner
    elif type(carrier) not in (list, tuple):
        found = _MISSING
        for name in _ATTRIBUTES:
            inner = getattr(carrier, name, _MISSING)
            inner = inner() if callable(inner) else inner
            if inner is not _MISSING:
                found = inner
            if inner is not None and inner is not _MISSING:
                break
        return found
    return _MISSING


def _field_name(key: object) -> str:
    name = _text(key, _MAX_NAME_LENGTH) or ""
    if "_" in name and name.isupper():
        name = name.removeprefix("HTTP_").replace("_", "-")
    return name.lower()


def _text(value: object, limit: int) -> str | None:
    if isinstance(value, str):
        return value if len(value) <= limit else ""
    if isinstance(value, (bytes, bytearray, memoryview)):
        # Latin-1 never fails; what is not ASCII is refused by the rules of each header.
        return bytes(value).decode("latin-1") if len(value) <= limit else ""
    return None


def _write(carrier: Any, fields: Mapping[str, str], stale: Collection[str], spelling: _Spelling | None = None) -> Any:
    if isinstance(carrier, dict):
        for key in _KEYS:
            if key in carrier and not isinstance(carrier[key], _SCALARS):
                inner = {} if carrier[key] is None else carrier[key]
                carrier[key] = _write(inner, fields, stale, _spelling_inside(carrier, key))
                return carrier
        _write_mapping(carrier, fields, stale, spelling or _spelling_of(carrier))
    elif isinstance(carrier, list):
        _write_pairs(carrier, fields, stale, spelling or _spelling_of_pairs(carrier, _KAFKA))
    elif type(carrier) is tuple:
        pairs = list(carrier)
        _write_pairs(pairs, fields, stale, spelling or _spelling_of_pairs(carrier, _TEXT))
        return tuple(pairs)
    else:
        _write_object(carrier, fields, stale)
    return carrier


def _write_object(carrier: Any, fields: Mapping[str, str], stale: Collection[str]) -> None:
    if hasattr(carrier, "packetType") and not getattr(carrier, "UserProperty", None):
        # paho's MQTT properties: no attribute until it is set, while `properties` are the definitions of all there are.
        carrier.UserProperty = list(_write((), fields, stale))
        return
    for name in _ATTRIBUTES:
        inner = getattr(carrier, name, _MISSING)
        # What a method returns may be a copy; of the attributes only `headers` is None where there are none yet.
        if inner is _MISSING or callable(inner) or (inner is None and name != "headers"):
            continue
        changed = _write({} if inner is None else inner, fields, stale)
        if changed is not inner:
            setattr(carrier, name, changed)
        return
    if hasattr(carrier, "__setitem__"):
        _write_mapping(carrier, fields, stale, _ENVIRONMENT if carrier is os.environ else _TEXT)
    elif hasattr(carrier, "get_attributes"):  # CloudEvents 2 hands out the attributes themselves
        _write_mapping(carrier.get_attributes(), fields, stale, _TEXT)
    else:
        msg = f"a {type(carrier).__name__} cannot be written to; expected a dict, a list of pairs or mutable headers"
        raise TypeError(msg)


def _write_mapping(carrier: Any, fields: Mapping[str, str], stale: Collection[str], spelling: _Spelling) -> None:
    for key in list(carrier.keys() if hasattr(carrier, "keys") else carrier):
        # The second of two spellings is gone already where headers know no case.
        if _field_name(key) in stale and key in carrier:
            del carrier[key]
    for name, value in fields.items():
        carrier[spelling.name(name)] = spelling.value(value)


def _write_pairs(carrier: list[Any], fields: Mapping[str, str], stale: Collection[str], spelling: _Spelling) -> None:
    pair = list if carrier and isinstance(carrier[0], list) else tuple
    carrier[:] = [old for old in carrier if _field_name(old[0]) not in stale]
    carrier.extend(pair((spelling.name(name), spelling.value(value))) for name, value in fields.items())


def _spelling_of(carrier: dict[Any, Any]) -> _Spelling:
    if _WSGI in carrier:
        return _CGI
    if "PATH" in carrier:  # a copy of `os.environ`, for a subprocess
        return _ENVIRONMENT
    key, value = next(iter(carrier.items()), ("", ""))
    if isinstance(key, bytes):
        return _BYTES
    return _MESSAGE_ATTRIBUTES if isinstance(value, Mapping) and "DataType" in value else _TEXT


def _spelling_of_pairs(carrier: Sequence[Any], empty: _Spelling) -> _Spelling:
    """Return the spelling of the first pair; *empty* without one: a list is Kafka's then, a tuple gRPC's."""
    return _Spelling(*(str.encode if isinstance(part, bytes) else str for part in carrier[0])) if carrier else empty


def _spelling_inside(carrier: dict[Any, Any], key: str) -> _Spelling | None:
    if key != "headers":
        return _MESSAGE_ATTRIBUTES
    # An ASGI scope or message has a type, and pairs of bytes even where it has none yet.
    return _BYTES if isinstance(carrier.get("type"), str) and isinstance(carrier[key], (list, tuple)) else None
