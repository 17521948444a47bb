"""A provider for instrumented libraries: its spans go to the provider tracekit uses when they start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from opentelemetry.trace import NoOpTracer, Tracer, TracerProvider
from typing_extensions import override

from tracekit._config import runtime
from tracekit._diagnostics import report_failure

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_NO_TRACER: Final = NoOpTracer()


@final
class FollowingTracer(Tracer):
    """
    A tracer of the provider of the moment.

    A library keeps its tracer for the life of the process; `configure()` and tests change the provider under it.
    """

    __slots__ = ("_made", "_scope")

    def __init__(self, *scope: Any) -> None:
        self._scope = scope
        # One tuple, so that a reader never pairs a new provider with an old tracer.
        self._made: tuple[TracerProvider | None, Tracer] = (None, _NO_TRACER)

    @property
    def current(self) -> Tracer | None:
        """The tracer for the next span, or None while there is no provider."""
        provider = runtime.provider
        made_by, tracer = self._made
        if provider is made_by:
            return None if provider is None else tracer
        if provider is None:
            return None
        try:
            tracer = provider.get_tracer(*self._scope)
        except Exception as error:  # noqa: BLE001  # the user's provider
            report_failure("tracekit.instrumentation", "get_tracer", error)
            return None
        self._made = (provider, tracer)
        return tracer

    @override
    def start_span(self, *args: Any, **kwargs: Any) -> Span:
        return (self.current or _NO_TRACER).start_span(*args, **kwargs)

    @override
    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return (self.current or _NO_TRACER).start_as_current_span(*args, **kwargs)


@final
class FollowingProvider(TracerProvider):
    """What an instrumentation gets as `tracer_provider`."""

    __slots__ = ()

    @override
    def get_tracer(self, *args: Any, **kwargs: Any) -> FollowingTracer:
        return FollowingTracer(*_positional(*args, **kwargs))


def _positional(
    instrumenting_module_name: str,
    instrumenting_library_version: str | None = None,
    schema_url: str | None = None,
    attributes: Any = None,
) -> tuple[Any, ...]:
    scope = (instrumenting_module_name, instrumenting_library_version, schema_url)
    return scope if attributes is None else (*scope, attributes)


following_provider: Final = FollowingProvider()
