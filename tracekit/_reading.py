"""
The arguments of a call -> attributes: compiled once for each operation and settings, run for each call that records.

Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from tracekit._attributes import AttributeValue, attribute_name, put, scalar_value
from tracekit._diagnostics import FORGIVEN, forgive

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from tracekit._config import Settings
    from tracekit._parameters import Parameters

Attributes: TypeAlias = "dict[str, AttributeValue]"
Values: TypeAlias = "tuple[Any, ...]"
# Reads anything, into any number of attributes; raises nothing.
FreeReader: TypeAlias = Callable[[Values, "Settings", Attributes], None]

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1


@final
@dataclass(frozen=True, slots=True)
class ValueReader:
    """
    Reads one attribute.

    Args:
        key: Its key.
        index: The argument it is made of; a slice for all of them.
        function: Makes it of that; None takes it as it is.
        names: What must not be secret for it to be read this way.
        otherwise: Reads it where something is secret.
        is_scalar: Leaves out, silently, what is no scalar.
    """

    key: str
    index: int | slice
    function: Callable[[Any], Any] | None
    names: tuple[str, ...]
    otherwise: FreeReader
    is_scalar: bool = False


@final
class Reading:
    """
    How a call of one operation is read, under one *settings*.

    Args:
        name: The operation, for messages.
        parameters: Those of its callable.
        readers: What is read of the arguments.
        settings: What is secret, and how long a string may be.
    """

    __slots__ = ("_free", "_limit", "_name", "_parameters", "_scalars", "_settings", "_steps", "reads")

    def __init__(
        self, name: str, parameters: Parameters, readers: Sequence[ValueReader | FreeReader], settings: Settings
    ) -> None:
        self._name: Final = name
        self._parameters: Final = parameters if parameters.binder else None
        self._settings: Final = settings
        self._limit: Final = settings.string_limit
        plain = [reader for reader in readers if isinstance(reader, ValueReader) and _is_plain(reader, settings)]
        self._steps: Final = tuple((reader.index, reader.function, reader.key) for reader in plain)
        self._scalars: Final = frozenset(reader.key for reader in plain if reader.is_scalar)
        self._free: Final = tuple(
            reader.otherwise if isinstance(reader, ValueReader) else reader for reader in readers if reader not in plain
        )
        self.reads: Final = bool(readers)

    def onto(self, span: Span, values: Values) -> None:
        """Set what is read of *values* on *span*."""
        attributes: Attributes = {}
        self.into(attributes, values)
        if attributes:
            # The engine's spans need not be told twice that they are legal.
            getattr(span, "set_legal_attributes", span.set_attributes)(attributes)

    def into(self, attributes: Attributes, values: Values) -> None:
        """Add what is read of *values*, the arguments of a call, to *attributes*; what fails is counted, not raised."""
        if self._parameters is not None:
            try:
                values = self._parameters.bound(values)
            except TypeError:
                # A wrong call: Python is about to say so itself.
                return
        limit = self._limit
        for index, function, key in self._steps:
            try:
                value: Any = values[index] if function is None else function(values[index])
                # What is legal as it is stays so: 0.5 µs less for each than asking the converters.
                kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
                if (
                    kind is float
                    or kind is bool
                    or (kind is str and len(value) <= limit and value.isascii())
                    or (kind is int and _INT64_MIN <= value <= _INT64_MAX)
                ):
                    attributes[key] = value
                else:
                    self._put(attributes, key, value)
            except FORGIVEN as error:  # user code and user objects
                forgive(self._name, f"attribute {key!r}", error)
        for read in self._free:
            read(values, self._settings, attributes)

    def _put(self, attributes: Attributes, key: str, value: Any) -> None:
        redactor = self._settings.redactor
        if key not in self._scalars:
            put(attributes, key, value, redactor, self._limit, self._name)
        elif (clean := scalar_value(value, self._limit, redactor)) is not None:
            attributes[key] = clean


def _is_plain(reader: ValueReader, settings: Settings) -> bool:
    """Tell whether what *reader* reads may leave the process as it is."""
    redactor = settings.redactor
    return (
        not redactor.reads_values
        and attribute_name(reader.key) == reader.key
        and not any(map(redactor.hides, (reader.key, *reader.names)))
    )
