"""Versions: Python's, OpenTelemetry's, the extras'; and what makes the spans."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tracekit.diagnosis.report import Report

_PYTHONS: Final = ((3, 10), (3, 14))
_EXTRAS: Final = ("otlp", "fastapi", "sqlalchemy", "httpx", "structlog", "loguru")
_REQUIREMENT: Final = re.compile(r"(?P<name>[\w.-]+)(?:\[[^\]]*\])?\s*>=\s*(?P<lowest>[\w.]+)")
_EXTRA: Final = re.compile(r"extra\s*==\s*['\"](?P<extra>[\w.-]+)['\"]")


def check_versions(report: Report) -> None:
    """Add what is installed here, and whether it is what tracekit was made for."""
    name = f"{platform.python_implementation()} {platform.python_version()}"
    lowest, highest = (".".join(map(str, release)) for release in _PYTHONS)
    is_known = _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1] and sys.implementation.name == "cpython"
    report.add(
        "versions",
        "python",
        "ok" if is_known else "warn",
        f"{name} at {sys.executable}" + ("" if is_known else f" (tested: CPython {lowest} to {highest})"),
        version=platform.python_version(),
        executable=sys.executable,
    )
    needed = _needed()
    for package, lowest in needed.get("", {}).items():
        installed = _installed(package)
        is_new = installed is not None and _key(installed) >= _key(lowest)
        report.add(
            "versions",
            package,
            "ok" if is_new else "fail",
            f"{package} {installed or 'is not installed'}" + ("" if is_new else f" (needed: {lowest} or newer)"),
            "" if is_new else f"pip install '{package}>={lowest}'",
            version=installed,
            lowest=lowest,
        )
    _check_engine(report)
    for extra in _EXTRAS:
        _check_extra(report, extra, needed.get(extra, {}))


def _check_engine(report: Report) -> None:
    from tracekit.recording import provider

    fits = bool(getattr(provider, "ENGINE_FITS", True))
    is_asked_for = os.environ.get("TRACEKIT_ENGINE") == "sdk"
    report.add(
        "versions",
        "engine",
        "ok" if fits else "info" if is_asked_for else "warn",
        f"spans are made by {'tracekit' if fits else 'the SDK'}'s engine" + (", as asked for" if is_asked_for else ""),
        "" if fits or is_asked_for else "They cost more: the log says which releases of opentelemetry-sdk fit",
        engine="tracekit" if fits else "sdk",
    )


def _check_extra(report: Report, extra: str, packages: dict[str, str]) -> None:
    found = {package: _installed(package) for package in packages}
    old = [name for name, installed in found.items() if installed and _key(installed) < _key(packages[name])]
    missing = [name for name, installed in found.items() if installed is None]
    shown = ", ".join(f"{name} {installed}" for name, installed in found.items() if installed)
    data: dict[str, Any] = {"packages": found}
    if old:
        needed = ", ".join(f"{name} {packages[name]}" for name in old)
        report.add(
            "versions",
            extra,
            "fail",
            f"extra {extra}: {shown} (needed: {needed} or newer)",
            f"pip install --upgrade 'tracekit[{extra}]'",
            **data,
        )
    elif missing and shown:
        message = f"extra {extra}: {shown}; {', '.join(missing)} is missing"
        report.add("versions", extra, "info", message, f"pip install 'tracekit[{extra}]'", **data)
    elif missing:
        report.add("versions", extra, "info", f"extra {extra} is not installed", **data)
    else:
        report.add("versions", extra, "ok", f"extra {extra}: {shown}", **data)


def _needed() -> dict[str, dict[str, str]]:
    """Return the lowest versions of what each extra needs, by package; what is always needed below an empty name."""
    needed: dict[str, dict[str, str]] = {}
    for requirement in requires("tracekit") or []:
        found, extra = _REQUIREMENT.match(requirement), _EXTRA.search(requirement)
        if found is not None:
            needed.setdefault(extra["extra"] if extra else "", {})[found["name"]] = found["lowest"]
    return needed


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _key(release: str) -> tuple[int, ...]:
    """Return what versions are compared by; a pre-release counts as its release."""
    return tuple(int(digits) for part in release.split(".")[:3] if (digits := re.sub(r"\D.*", "", part)))
