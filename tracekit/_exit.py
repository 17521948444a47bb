"""What is done last before the process ends, after the exit functions of the program, which may be traced."""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_jobs: Final[list[Callable[[], None]]] = []


def at_the_end(job: Callable[[], None]) -> None:
    """Call *job* at exit, after the exit functions registered since tracekit was imported."""
    _jobs.append(job)


def _run() -> None:
    while _jobs:
        _jobs.pop()()


# Here and now: exit functions run in the opposite order of their registration.
atexit.register(_run)
