"""How spans are gathered before they are sent: the `OTEL_BSP_*` variables."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, final

from typing_extensions import Self

if TYPE_CHECKING:
    from tracekit._environment import Environment


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Batching:
    """
    The options of `BatchProcessor` that the environment sets; None leaves one at its default.

    Source: OpenTelemetry specification, configuration/sdk-environment-variables, batch span processor.
    """

    max_queue_size: int | None = None
    max_batch_size: int | None = None
    schedule_delay_s: float | None = None
    export_timeout_s: float | None = None

    @classmethod
    def of(cls, variables: Environment) -> Self:
        """Read the variables; times are in milliseconds there."""
        delay_ms = variables.integer("OTEL_BSP_SCHEDULE_DELAY")
        timeout_ms = variables.integer("OTEL_BSP_EXPORT_TIMEOUT")
        return cls(
            max_queue_size=variables.integer("OTEL_BSP_MAX_QUEUE_SIZE", minimum=1),
            max_batch_size=variables.integer("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", minimum=1),
            schedule_delay_s=None if delay_ms is None else delay_ms / 1000,
            export_timeout_s=None if timeout_ms is None else timeout_ms / 1000,
        )

    def given(self) -> dict[str, Any]:
        """Return the options that are set, as keyword arguments."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
