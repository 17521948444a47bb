"""The start of each process below `tracekit run`: set-up, libraries, functions; and what to tell of it."""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING, Final

from tracekit.errors import TracekitError
from tracekit.running.plan import Plan

if TYPE_CHECKING:
    from tracekit.instrumentation.matching import Matching


class _State:
    """What the start of this process has made."""

    matching: Matching | None = None


state: Final = _State()


def start() -> None:
    """Do what the plan in the environment says. Whatever fails, the program runs: `run` has checked the plan before."""
    plan = Plan.of(os.environ)
    if plan is None:
        return
    try:
        _start(plan)
    except TracekitError as error:
        _tell(f"this process is not traced: {error}")
    except Exception as error:  # noqa: BLE001  # the program must run
        _tell(f"this process is not traced: {type(error).__name__}: {error}")


def _start(plan: Plan) -> None:
    from tracekit.configuration import configure
    from tracekit.configuration.ending import ending
    from tracekit.instrumentation.automatic import instrument_on_import
    from tracekit.instrumentation.matching import trace_matching

    configure(**plan.options)
    tell = _tell if plan.is_verbose else None
    instrument_on_import(plan.instrument, plan.leave_out, tell=tell)
    if plan.trace:
        state.matching = trace_matching(plan.trace, plan.exclude, tell=tell)
        report = _Report(plan, state.matching)
        atexit.register(report)
        # A server ends by its signal, not by an exit.
        ending.before_death(report)


class _Children:
    """Knows whether this process has started others: then they do the work."""

    def __init__(self) -> None:
        self._has_forked = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_parent=self._on_fork)

    def __bool__(self) -> bool:
        spawning = ("multiprocessing.popen_spawn_posix", "multiprocessing.popen_spawn_win32")
        return self._has_forked or any(name in sys.modules for name in spawning)

    def _on_fork(self) -> None:
        self._has_forked = True


class _Report:
    """Tells at the end, once in each process, what the patterns have come to."""

    def __init__(self, plan: Plan, matching: Matching) -> None:
        self._plan = plan
        self._matching = matching
        self._children = _Children()
        self._told_by = 0

    def __call__(self) -> None:
        process = os.getpid()
        if self._told_by == process:
            return
        self._told_by = process
        matching, patterns = self._matching, " ".join(self._plan.trace)
        if matching.functions:
            where = "" if process == self._plan.process else f" in process {process}"
            _tell(f"--trace {patterns}: traced {matching}{where}")
        elif process == self._plan.process and not self._children:
            _tell(f"--trace {patterns}: no function matches, nothing was traced by it. {matching.advice}")


def _tell(what: str) -> None:
    # Not the log: the program has not set it up yet.
    if sys.stderr is not None:  # None below pythonw
        sys.stderr.write(f"tracekit run: {what}\n")
