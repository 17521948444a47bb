"""Running processes: what became of their spans. They are asked on the socket that `TRACEKIT_STATUS` opens."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

from tracekit.configuration.status import VARIABLE, sockets_in, status_directory, status_of
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tracekit.diagnosis.report import Report

_ALL: Final = "all"
_FIGURES: Final = ("started", "sampled", "not_sampled", "exported", "spooled", "queued")

_LONG_S: Final = 120.0
_HELD: Final = (("queued", "waiting in memory"), ("spooled", "kept on disk"))


def check_processes(report: Report, asked: Sequence[str], variables: Mapping[str, str]) -> None:
    """
    Add what each of the processes *asked* for tells of its spans.

    Raises:
        ConfigurationError: One is neither a process id nor `all`.
    """
    for word in asked:
        if word != _ALL and not (word.isascii() and word.isdecimal()):
            msg = f"--pid {word}: expected the id of a process, or all. Write --pid 4711"
            raise ConfigurationError(msg)
    if not hasattr(socket, "AF_UNIX"):
        report.add("process", "status", "fail", "processes cannot be asked on this system")
        return
    directory = status_directory(variables.get(VARIABLE, "").strip() or None)
    sockets = sockets_in(directory)
    wanted = dict.fromkeys(sockets if _ALL in asked else [int(word) for word in asked])
    for pid in wanted:
        _check_process(report, pid, sockets.get(pid), is_named=_ALL not in asked)
    if not report.findings:
        advice = f"Start processes with {VARIABLE}=1, by the same user"
        report.add("process", "status", "warn", f"no process tells of its spans in {directory}", advice)


def _check_process(report: Report, pid: int, path: Path | None, *, is_named: bool) -> None:
    advice = f"Start it with {VARIABLE}=1, by the same user; it tells once it has called configure()"
    if path is None:
        report.add("process", "status", "fail", f"process {pid} does not tell of its spans", advice, pid=pid)
        return
    try:
        told = status_of(path)
    except ConnectionRefusedError:
        # Killed: it could not tidy up.
        with contextlib.suppress(OSError):
            path.unlink()
        if is_named:
            report.add("process", "status", "fail", f"process {pid} has ended", pid=pid)
        return
    except OSError as error:
        report.add("process", "status", "fail", f"process {pid} does not answer: {error}", pid=pid)
        return
    _add(report, pid, told)


def _add(report: Report, pid: int, told: Mapping[str, Any]) -> None:
    stats: dict[str, Any] = told.get("stats") or {}
    figures = ", ".join(f"{stats.get(name, 0):,} {name.replace('_', ' ')}" for name in _FIGURES)
    head = f"process {pid}, {told.get('program', '')}, up {told.get('up_s', 0):,.0f} s, tracekit {told.get('tracekit')}"
    report.add("process", "status", "ok", f"{head}: {told.get('configuration')}", **told)
    report.add(
        "process", "spans", "ok", f"spans: {figures}", pid=pid, **{name: stats.get(name, 0) for name in _FIGURES}
    )
    dropped: dict[str, int] = stats.get("dropped") or {}
    if dropped:
        reasons = ", ".join(f"{spans:,} {reason}" for reason, spans in dropped.items())
        report.add("process", "dropped", "warn", f"dropped: {reasons}", pid=pid, dropped=dropped)
    if stats.get("internal_errors"):
        message = f"{stats['internal_errors']:,} failures inside tracekit or what is plugged into it"
        report.add("process", "errors", "warn", message, "The log tracekit names the first of each kind", pid=pid)
    for trouble in told.get("receivers") or ():
        message = f"{trouble['receiver']} {trouble['what']} ({trouble['why']}), {_ago(trouble['ago_s'])}"
        held = [f"{where}: {stats[name]:,}" for name, where in _HELD if stats.get(name)]
        if held:
            message += f"; spans {', '.join(held)}"
        report.add("process", "receiver", "warn", message, pid=pid, **trouble)
    for state in told.get("instrumented") or ():
        report.add("process", "instrumented", "ok", f"traces {state['name']}, by {state['by']}", pid=pid, **state)


def _ago(time_s: float) -> str:
    return f"{time_s:,.0f} s ago" if time_s < _LONG_S else f"{time_s / 60:,.0f} min ago"
