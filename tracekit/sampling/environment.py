"""The sampler that `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` ask for."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)

from tracekit._environment import Environment, wrong_variable
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIXED: Final[Mapping[str, Sampler]] = {
    "always_on": ALWAYS_ON,
    "always_off": ALWAYS_OFF,
    "parentbased_always_on": DEFAULT_ON,
    "parentbased_always_off": DEFAULT_OFF,
}
_BY_RATIO: Final = {"traceidratio": TraceIdRatioBased, "parentbased_traceidratio": ParentBasedTraceIdRatio}
_ENTRY_POINT_GROUP: Final = "opentelemetry_traces_sampler"


def sampler_from_environment(variables: Environment) -> Sampler:
    """
    Return the sampler the environment names, `parentbased_always_on` where it names none.

    A name OpenTelemetry does not define is looked up among the installed `opentelemetry_traces_sampler` entry points.

    Raises:
        ConfigurationError: A variable is set to what it cannot be.

    Source: SDK environment variables specification, general SDK configuration.
    """
    given = variables.text(OTEL_TRACES_SAMPLER) or "parentbased_always_on"
    name = given.lower()
    if name in _FIXED:
        return _FIXED[name]
    if name in _BY_RATIO:
        ratio = variables.number(OTEL_TRACES_SAMPLER_ARG, maximum=1.0)
        return _BY_RATIO[name](1.0 if ratio is None else ratio)
    return _plugged_in(given, variables.text(OTEL_TRACES_SAMPLER_ARG) or "")


def _plugged_in(name: str, argument: str) -> Sampler:
    found = next(iter(entry_points(group=_ENTRY_POINT_GROUP, name=name)), None)
    if found is None:
        known = ", ".join((*_FIXED, *_BY_RATIO))
        raise wrong_variable(
            OTEL_TRACES_SAMPLER, name, f"one of {known}, or an installed {_ENTRY_POINT_GROUP} entry point"
        )
    try:
        sampler = found.load()(argument)
    except Exception as error:
        msg = f"{OTEL_TRACES_SAMPLER}={name!r}: {found.value} could not make a sampler ({type(error).__name__})."
        raise ConfigurationError(msg) from error
    if not isinstance(sampler, Sampler):
        msg = f"{OTEL_TRACES_SAMPLER}={name!r}: {found.value} made a {type(sampler).__name__}, expected a Sampler."
        raise ConfigurationError(msg)
    return sampler
