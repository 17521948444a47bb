"""
Carrying context over a boundary: into a carrier, out of one, current for a block, with baggage.

Only this module asks OpenTelemetry's global propagator. Nothing here raises: what cannot be read starts a new trace.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, final, overload

from opentelemetry import baggage as baggage_api
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter, Setter

from tracekit import _carriers, _w3c
from tracekit._context_block import ContextBlock
from tracekit._diagnostics import FORGIVEN, forgive, report_failure

if TYPE_CHECKING:
    from opentelemetry.propagators.textmap import TextMapPropagator

__all__ = ["ContextBlock", "extract", "get_baggage", "inject", "remote_parent", "set_baggage", "use_context"]

CarrierT = TypeVar("CarrierT")

_ROOM: Final = "tracekit.propagation"


@overload
def inject(carrier: None = None, context: Context | None = None, *, baggage: bool = True) -> dict[str, str]: ...


@overload
def inject(carrier: CarrierT, context: Context | None = None, *, baggage: bool = True) -> CarrierT: ...


def inject(carrier: Any = None, context: Context | None = None, *, baggage: bool = True) -> Any:
    """
    Write the current trace, or that of *context*, into *carrier*.

    Fields that *carrier* has from an earlier trace are replaced, in whatever case they are written. Where there is no
    trace to write, *carrier* stays as it is.

    Args:
        carrier: Headers in any common shape (docs/propagation.md has the list); None for a new dict.
        context: The context to write; None for the current one.
        baggage: Whether baggage may leave with it. False also removes the baggage that *carrier* holds.

    Returns:
        The carrier. A tuple cannot be changed: it comes back as a new one. What cannot be written to comes back as it
        was, and the failure is logged once.

    Source: OpenTelemetry, context/api-propagators, Inject.
    """
    if carrier is None:
        carrier = {}
    try:
        propagator = _propagator()
        fields: dict[str, str] = {}
        propagator.inject(fields, _sendable(context, baggage=baggage), _SETTER)
        stale: set[str] = propagator.fields if fields else set()
        if members := _w3c.escaped_baggage(fields.pop(_w3c.BAGGAGE, "")):
            fields[_w3c.BAGGAGE] = members
        if not baggage:
            stale = {*stale, _w3c.BAGGAGE}
        return _carriers.write(carrier, fields, stale) if fields or stale else carrier
    except FORGIVEN as error:  # the carrier is the user's, a propagator may be
        forgive(_ROOM, f"inject into {type(carrier).__name__}", error)
        return carrier


def extract(carrier: object) -> Context:
    """
    Return the context that *carrier* holds: its trace and baggage, and nothing of the current context.

    Malformed, duplicate, oversized or hostile headers give a context without a trace.

    Args:
        carrier: Headers in any common shape (docs/propagation.md has the list); None has no context.

    Source: OpenTelemetry, context/api-propagators, Extract; W3C Trace Context level 2; W3C Baggage.
    """
    try:
        return _propagator().extract(_carriers.read(carrier), Context(), _GETTER)
    except FORGIVEN as error:  # the carrier is the user's, a propagator may be
        forgive(_ROOM, f"extract from {type(carrier).__name__}", error)
        return Context()


def use_context(context: Context) -> ContextBlock:
    """Make *context* current inside `with` or `async with`."""
    return ContextBlock(_checked(context))


def remote_parent(carrier: object) -> ContextBlock:
    """Continue the trace that *carrier* holds inside `with` or `async with`; without one, spans start a new trace."""
    return ContextBlock(extract(carrier))


def set_baggage(key: str, value: object) -> ContextBlock:
    """
    Set a baggage entry, which travels with the trace to every service called from here.

    It holds from the call on until the enclosing span, `use_context` block or task ends; as `with set_baggage(...):`,
    inside the block. An entry that finds no room (8,192 bytes in all, 180 entries, 4,096 bytes each) is left out, and
    the failure is logged once.

    Args:
        key: The entry's name.
        value: Its value, sent as `str(value)`; None removes the entry.

    Source: OpenTelemetry, baggage/api; W3C Baggage, 3.3.
    """
    before = context_api.get_current()
    try:
        after = _with_baggage(key, value, before)
    except FORGIVEN as error:  # the value's `__str__`, a lone surrogate
        forgive(_ROOM, "set_baggage", error)
        after = before
    context_api.attach(after)
    return ContextBlock(after, previous=before)


def get_baggage(key: str) -> str | None:
    """Return the value of the baggage entry *key* in the current context, or None."""
    try:
        value = baggage_api.get_baggage(key)
        return None if value is None else str(value)
    except FORGIVEN as error:  # set by others, with any type
        forgive(_ROOM, "get_baggage", error)
        return None


def _checked(context: object) -> Context:
    if isinstance(context, Context):
        return context
    report_failure(_ROOM, f"use_context of {type(context).__name__}")
    return context_api.get_current()


def _with_baggage(key: str, value: object, context: Context) -> Context:
    if value is None:
        return baggage_api.remove_baggage(key, context)
    text = str(value)
    if not key or not _w3c.baggage_fits({**baggage_api.get_all(context), key: text}):
        report_failure(_ROOM, "set_baggage beyond the limits of W3C Baggage")
        return context
    return baggage_api.set_baggage(key, text, context)


def _sendable(context: Context | None, *, baggage: bool) -> Context:
    """Return *context* without the baggage that must not or cannot be sent: one bad entry must not cost the trace."""
    if context is None:
        context = context_api.get_current()
    if not baggage:
        return baggage_api.clear(context)
    for key, value in baggage_api.get_all(context).items():
        if not _is_sendable(key, value):
            context = baggage_api.remove_baggage(key, context)
    return context


def _is_sendable(key: str, value: object) -> bool:
    try:
        return bool(key) and _w3c.baggage_fits({key: value})
    except Exception:  # noqa: BLE001  # set by others, with any type
        return False


@final
class _FieldGetter(Getter[dict[str, list[object]]]):
    """Hands a propagator the fields it asks for, W3C's own by W3C's rules."""

    def get(self, carrier: dict[str, list[object]], key: str) -> list[str] | None:
        name = key.lower()
        values = _carriers.texts(carrier.get(name, ()))
        rule = _w3c.RULES.get(name)
        return (rule(values) if rule and values else values) or None

    def keys(self, carrier: dict[str, list[object]]) -> list[str]:
        return list(carrier)


@final
class _FieldSetter(Setter[dict[str, str]]):
    """Takes the fields of a propagator."""

    def set(self, carrier: dict[str, str], key: str, value: str) -> None:
        carrier[key] = value


_GETTER: Final = _FieldGetter()
_SETTER: Final = _FieldSetter()


def _propagator() -> TextMapPropagator:
    module = sys.modules.get("opentelemetry.propagate") or _import_propagate()
    return module.get_global_textmap() if module else _default_propagator()


@lru_cache(maxsize=1)
def _import_propagate() -> Any:
    """Import OpenTelemetry's module, which fails where `OTEL_PROPAGATORS` names what is not installed; then None."""
    try:
        from opentelemetry import propagate
    except FORGIVEN as error:  # any entry point
        forgive(_ROOM, "OTEL_PROPAGATORS", error)
        return None
    return propagate


@lru_cache(maxsize=1)
def _default_propagator() -> TextMapPropagator:
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.propagators.composite import CompositePropagator
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
