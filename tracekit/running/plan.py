"""What `tracekit run` was asked for, on its way to the processes of the program: in an environment variable."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = "TRACEKIT_RUN"
_PATH: Final = "PYTHONPATH"
_HOOK: Final = Path(__file__).with_name("hook")


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """
    What each process does when it starts.

    Args:
        options: Arguments of `configure()`.
        instrument: Libraries to trace; None for all that are installed.
        leave_out: Libraries not to trace.
        trace: Patterns of functions to trace.
        exclude: Patterns of functions not to trace.
        is_verbose: Tell of each library and module that is traced.
        process: The id of the first process: `exec` keeps it.
    """

    options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    instrument: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] = ()
    trace: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    is_verbose: bool = False
    process: int = 0

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Plan | None:
        """Read the plan from the environment; None where there is none that can be read."""
        try:
            fields: Any = json.loads(variables.get(VARIABLE, ""))
            for name in ("instrument", "leave_out", "trace", "exclude"):
                fields[name] = None if fields[name] is None else tuple(fields[name])
            return cls(**fields)
        except (ValueError, TypeError, KeyError):
            return None

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return *variables* for the program: with this plan, and with the hook that reads it."""
        # An empty entry would be the working directory.
        path = os.pathsep.join(filter(None, [str(_HOOK), variables.get(_PATH, "")]))
        return {**variables, _PATH: path, VARIABLE: json.dumps(dataclasses.asdict(self))}
