"""Which propagators carry context over boundaries: `propagators=` or `OTEL_PROPAGATORS`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator

from tracekit.configuration.arguments import items, wrong_argument
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracekit._environment import Environment

_VARIABLE: Final = "OTEL_PROPAGATORS"
_GROUP: Final = "opentelemetry_propagator"
_EXAMPLE: Final = 'propagators=["tracecontext", "baggage", "b3"]'
# Where the names come from that OpenTelemetry's documentation promises.
_PACKAGES: Final = {
    "b3": "opentelemetry-propagator-b3",
    "b3multi": "opentelemetry-propagator-b3",
    "jaeger": "opentelemetry-propagator-jaeger",
    "xray": "opentelemetry-propagator-aws-xray",
    "ottrace": "opentelemetry-propagator-ot-trace",
}


def propagator_of(
    given: Sequence[str | TextMapPropagator] | TextMapPropagator | None, variables: Environment
) -> TextMapPropagator | None:
    """
    Return the propagator that `configure(propagators=given)` asks for; None: neither it nor the variable says.

    Raises:
        ConfigurationError: If a name is unknown, or its package is not installed.

    Source: OpenTelemetry specification, configuration/sdk-environment-variables, OTEL_PROPAGATORS.
    """
    # Read even if the argument wins: OpenTelemetry reads it when imported, and fails then.
    variable = variables.text(_VARIABLE)
    named = (
        None if variable is None else _composite(_VARIABLE, tuple(filter(None, map(str.strip, variable.split(",")))))
    )
    if given is None:
        return named
    if isinstance(given, TextMapPropagator):
        return given
    expected = "a list of names and propagators"
    found = items("propagators", given, lambda item: isinstance(item, (str, TextMapPropagator)), expected, _EXAMPLE)
    if not found:
        raise wrong_argument(given, name="propagators", expected=expected, write=_EXAMPLE)
    return _composite("propagators", found)


def _composite(source: str, members: tuple[object, ...]) -> TextMapPropagator:
    if members == ("none",):
        members = ()
    unique = dict.fromkeys(member.lower() if isinstance(member, str) else member for member in members)
    return CompositePropagator(
        [member if isinstance(member, TextMapPropagator) else _named(source, str(member)) for member in unique]
    )


def _named(source: str, name: str) -> TextMapPropagator:
    found = next(iter(entry_points(group=_GROUP, name=name)), None)
    if found is None:
        if name in _PACKAGES:
            msg = f"{source}: the propagator {name!r} needs: pip install {_PACKAGES[name]}"
            raise ConfigurationError(msg)
        known = sorted({entry.name for entry in entry_points(group=_GROUP)} | _PACKAGES.keys())
        msg = f"{source}: {name!r} is no propagator, expected a list of {', '.join(known)}. Write tracecontext,baggage."
        raise ConfigurationError(msg)
    try:
        propagator: object = found.load()()
    except Exception as error:
        msg = f"{source}: the propagator {name!r} ({found.value}) could not be made ({type(error).__name__})."
        raise ConfigurationError(msg) from error
    if not isinstance(propagator, TextMapPropagator):
        msg = f"{source}: {name!r} ({found.value}) made a {type(propagator).__name__}, expected a TextMapPropagator."
        raise ConfigurationError(msg)
    return propagator
