"""
What is global: the settings that calls read, the provider that makes their spans, and how they were set up.

`configure()` and `tracekit.testing` write here; everything else reads an immutable snapshot.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from opentelemetry import trace as trace_api

from tracekit._diagnostics import report_failure
from tracekit._redaction import Redactor
from tracekit._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import partial

    from opentelemetry.trace import Tracer, TracerProvider

    from tracekit._metrics import OperationMetrics

DEFAULT_STRING_LIMIT: Final = 2_048


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """
    The settings a call reads; `configure()` makes a new one each time.

    Args:
        capture_arguments: Record scalar arguments of operations that say nothing about attributes.
        code_location: Record `code.file.path` and `code.line.number` too.
        expected: Exception types that are never counted as errors.
        metrics: What measures every call; None where that is switched off.
        redactor: Which names are secret.
        string_limit: Longest attribute string, in characters.
    """

    capture_arguments: bool = True
    code_location: bool = False
    expected: tuple[type[BaseException], ...] = ()
    metrics: OperationMetrics | None = None
    redactor: Redactor = field(default_factory=Redactor)
    string_limit: int = DEFAULT_STRING_LIMIT


@final
class Runtime:
    """The one holder of global state: settings, and a provider that comes before OpenTelemetry's global one."""

    __slots__ = ("_captures", "_configured", "_lock", "_provider", "_setup", "settings", "state")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.settings = Settings()
        self._setup: partial[Any] | None = None
        self._configured: TracerProvider | None = None
        self._captures: list[TracerProvider] = []
        # The last of those: what calls read.
        self._provider: TracerProvider | None = None
        # Another object after each change: by it a call sees, with one comparison, that nothing has changed.
        self.state = object()

    @property
    def provider(self) -> TracerProvider | None:
        """The provider set here, else OpenTelemetry's global one, else None."""
        return self._provider or _global_provider()

    @property
    def is_set(self) -> bool:
        """Whether the provider was set here: then it is the same until `state` is another."""
        return self._provider is not None

    @property
    def setup(self) -> partial[Any] | None:
        """How to set up another process likewise; None where that was not said, or while spans are captured."""
        return None if self._captures else self._setup

    def use(
        self,
        *,
        settings: Settings | None = None,
        provider: TracerProvider | None = None,
        setup: partial[Any] | None = None,
    ) -> Callable[[], None]:
        """
        Take *settings* and *provider* from now on (None: keep what there is), made by *setup* (None: not to be said).

        Returns:
            An undo that puts back what was there before.
        """
        with self._lock:
            before = (self.settings, self._configured, self._setup)
            self._setup = setup
            if settings is not None:
                self.settings = settings
            if provider is not None:
                self._configured = provider
            self._choose()

        def undo() -> None:
            with self._lock:
                self.settings, self._configured, self._setup = before
                self._choose()

        return undo

    def capture(self, provider: TracerProvider) -> Callable[[], None]:
        """
        Let *provider* make all spans, whatever `use` has set or sets meanwhile.

        Returns:
            An undo, which may come in any order with others.
        """
        with self._lock:
            self._captures.append(provider)
            self._choose()

        def undo() -> None:
            with self._lock:
                self._captures.remove(provider)
                self._choose()

        return undo

    def _choose(self) -> None:
        self._provider = self._captures[-1] if self._captures else self._configured
        self.state = object()


def tracer_of(provider: TracerProvider) -> Tracer | None:
    """Return tracekit's tracer of *provider*, or None if that provider makes no spans (`OTEL_SDK_DISABLED`)."""
    try:
        tracer = provider.get_tracer("tracekit", __version__)
    except Exception as error:  # noqa: BLE001  # the user's provider
        report_failure("tracekit", "get_tracer", error)
        return None
    return None if isinstance(tracer, trace_api.NoOpTracer) else tracer


# The public getter costs 1 µs while no provider is set: it looks into os.environ each time.
READS_GLOBAL: Final = hasattr(trace_api, "_TRACER_PROVIDER") and "OTEL_PYTHON_TRACER_PROVIDER" not in os.environ


def _global_provider() -> TracerProvider | None:
    if READS_GLOBAL:
        return trace_api._TRACER_PROVIDER  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    provider = trace_api.get_tracer_provider()
    return None if isinstance(provider, trace_api.ProxyTracerProvider) else provider


runtime: Final = Runtime()
