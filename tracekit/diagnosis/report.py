"""What was found out, one finding a line, for a reader and as JSON. No secret gets in here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

from tracekit._version import __version__
from tracekit.export.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Status: TypeAlias = Literal["ok", "info", "warn", "fail"]
Group: TypeAlias = Literal["versions", "settings", "libraries", "receiver", "span", "process"]

# Changes with each change that a reader of the JSON could trip over.
SCHEMA: Final = 1
_TITLES: Final[dict[Group, str]] = {
    "versions": "Versions",
    "settings": "Settings",
    "libraries": "Libraries",
    "receiver": "Receiver",
    "span": "Test span",
    "process": "Process",
}
_COLORS: Final[dict[Status, str]] = {"ok": "32", "info": "2", "warn": "33", "fail": "1;31"}
_INDENT: Final = " " * 8
_MAX_LINE: Final = 2_000


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing found out.

    Args:
        group: What it belongs to.
        check: What was looked at, a name that stays: "receiver.tls".
        status: "ok", "info" (nothing to judge), "warn" (may be meant so), "fail".
        message: What was found.
        advice: What to do about it.
        data: The same for programs.
    """

    group: Group
    check: str
    status: Status
    message: str
    advice: str = ""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def is_default(self) -> bool:
        """Whether it is a setting that nobody has set."""
        return self.group == "settings" and self.data.get("source") == "default"


@final
class Report:
    """All findings, in their order."""

    def __init__(self) -> None:
        self.findings: Final[list[Finding]] = []

    def add(
        self,
        group: Group,
        check: str,
        status: Status,
        message: str,
        advice: str = "",
        **data: Any,
    ) -> None:
        """Add a finding; the arguments are those of `Finding`."""
        self.findings.append(Finding(group, f"{group}.{check}", status, message, advice, data))

    @property
    def status(self) -> Status:
        """The worst of all."""
        found = {finding.status for finding in self.findings}
        return "fail" if "fail" in found else "warn" if "warn" in found else "ok"

    def json(self) -> str:
        """Return the report as JSON: keys are only ever added to it, unless `schema` changes."""
        findings = [
            {
                "check": finding.check,
                "group": finding.group,
                "status": finding.status,
                "message": finding.message,
                "advice": finding.advice,
                "data": finding.data,
            }
            for finding in self.findings
        ]
        whole = {"schema": SCHEMA, "tracekit": __version__, "status": self.status, "findings": findings}
        return json.dumps(whole, indent=2, default=str)

    def text(self, *, color: bool, is_verbose: bool = False) -> str:
        """Return the report for a reader: what is wrong first, then the rest; defaults if *is_verbose*."""
        paint: Callable[[str, str], str] = (lambda code, text: f"\x1b[{code}m{text}\x1b[0m") if color else _plain
        wrong = [finding for status in ("fail", "warn") for finding in self.findings if finding.status == status]
        rest = [finding for finding in self.findings if finding.status not in ("fail", "warn")]
        shown = rest if is_verbose else [finding for finding in rest if not finding.is_default]
        parts = [("Problems" if self.status == "fail" else "Warnings", wrong)]
        parts += [(title, [each for each in shown if each.group == group]) for group, title in _TITLES.items()]
        lines: list[str] = []
        for title, findings in parts:
            hidden = len(rest) - len(shown) if title == _TITLES["settings"] else 0
            if not findings and not hidden:
                continue
            lines += [""] * bool(lines) + [paint("1", title)]
            for finding in findings:
                mark = "-" if finding.status == "info" else finding.status
                # Some of it is somebody else's: what receivers and processes say.
                lines.append(
                    f"  {paint(_COLORS[finding.status], f'{mark:4}')}  {printable(finding.message, _MAX_LINE)}"
                )
                if finding.advice:
                    lines.append(f"{_INDENT}{printable(finding.advice, _MAX_LINE)}")
            if hidden:
                lines.append(f"  {paint(_COLORS['info'], '-   ')}  {_count(hidden, 'default')}, shown with --verbose")
        counts = {status: sum(f.status == status for f in wrong) for status in ("fail", "warn")}
        ending = ", ".join(
            _count(counts[s], noun) for s, noun in (("fail", "problem"), ("warn", "warning")) if counts[s]
        )
        return "\n".join([*lines, "", ending or "No problems."]) + "\n"


def _plain(_: str, text: str) -> str:
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
