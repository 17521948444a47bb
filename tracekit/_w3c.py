"""
The rules of the W3C headers, where OpenTelemetry's propagators are laxer or stricter than the specifications.

Only header values are judged here: a function takes all values of one header and returns what a propagator may read
(no more than one value), or None where nothing of it is valid. Hostile values cost bounded time and are never logged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"

# Each specification asks for 512 or 8,192 bytes at least; no header of any propagator is longer than this.
MAX_LENGTH: Final = 8_192
MAX_TRACESTATE_MEMBERS: Final = 32
MAX_BAGGAGE_MEMBERS: Final = 180
MAX_BAGGAGE_MEMBER_LENGTH: Final = 4_096

# A comma would be two headers joined on the way.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^,]*)?")
_KNOWN_FLAGS: Final = 0x03  # sampled, random trace id

_KEY_TAIL: Final = r"[a-z0-9_\-*/]"
_TRACESTATE_KEY: Final = re.compile(
    rf"[a-z0-9]{_KEY_TAIL}{{0,255}}|[a-z0-9]{_KEY_TAIL}{{0,240}}@[a-z]{_KEY_TAIL}{{0,13}}"
)
_TRACESTATE_VALUE: Final = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
# Legal since level 2, but nothing that OpenTelemetry's `TraceState` can hold: it would give up all of them.
_UNTENABLE_KEY: Final = re.compile(rf"[0-9]{_KEY_TAIL}*")

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105  # RFC 9110's word for a header name's characters
_BAGGAGE_MEMBER: Final = re.compile(
    rf"({_TOKEN})[ \t]*=[ \t]*([\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*)[ \t]*(?:;.*)?"
)


def traceparent(values: Sequence[str]) -> list[str] | None:
    """
    Return *values* as one header of version 00, or None where the trace must start anew.

    Source: Trace Context level 2, 3.2 and 4.3 (more than one header, a higher version, unknown flags).
    """
    match = _TRACEPARENT.fullmatch(values[0].strip(" \t")) if len(values) == 1 else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return [f"00-{trace_id}-{span_id}-{int(flags, 16) & _KNOWN_FLAGS:02x}"]


def tracestate(values: Sequence[str]) -> list[str] | None:
    """
    Return *values* combined into one header, or None where one bad member spoils them all.

    Source: Trace Context level 2, 3.3.
    """
    if sum(map(len, values)) + len(values) > MAX_LENGTH:
        return None
    members: dict[str, str] = {}
    for member in filter(None, (piece.strip(" \t") for piece in ",".join(values).split(","))):
        key, _, value = member.partition("=")
        if key in members or not _TRACESTATE_KEY.fullmatch(key) or not _TRACESTATE_VALUE.fullmatch(value):
            return None
        members[key] = value
    if len(members) > MAX_TRACESTATE_MEMBERS:
        return None
    held = [f"{key}={value}" for key, value in members.items() if not _UNTENABLE_KEY.fullmatch(key)]
    return [",".join(held)] if held else None


def baggage(values: Sequence[str]) -> list[str] | None:
    """
    Return the valid members of *values*, as many as the limits allow, as one header without properties.

    A plus sign is data to the specification and a space to OpenTelemetry's propagator, so it is escaped.

    Source: W3C Baggage, 3.3 and 4.1.
    """
    members: list[str] = []
    unread, room = MAX_LENGTH, MAX_LENGTH
    for value in values:
        unread -= len(value)
        if unread < 0:
            break
        for piece in value.split(","):
            match = _BAGGAGE_MEMBER.fullmatch(piece.strip(" \t"))
            member = f"{match[1]}={match[2]}".replace("+", "%2B") if match else ""
            room -= len(member) + 1
            if room < -1 or len(members) == MAX_BAGGAGE_MEMBERS:
                break
            if 0 < len(member) <= MAX_BAGGAGE_MEMBER_LENGTH:
                members.append(member)
    return [",".join(members)] if members else None


def escaped_baggage(header: str) -> str:
    """Return *header*, in which OpenTelemetry's propagator writes spaces as plus signs, as the specification asks."""
    escaped = header.replace("+", "%20")
    return escaped if len(escaped) <= MAX_LENGTH else escaped[: MAX_LENGTH + 1].rpartition(",")[0]


def baggage_fits(entries: Mapping[str, object]) -> bool:
    """Tell whether *entries* can be sent as one baggage header; raises UnicodeEncodeError for lone surrogates."""
    lengths = [len(quote(key, "")) + 1 + len(quote(str(value), "")) for key, value in entries.items()]
    return (
        len(lengths) <= MAX_BAGGAGE_MEMBERS
        and max(lengths, default=0) <= MAX_BAGGAGE_MEMBER_LENGTH
        and sum(lengths) + len(lengths) - 1 <= MAX_LENGTH
    )


RULES: Final[Mapping[str, Callable[[Sequence[str]], list[str] | None]]] = {
    TRACEPARENT: traceparent,
    TRACESTATE: tracestate,
    BAGGAGE: baggage,
}
