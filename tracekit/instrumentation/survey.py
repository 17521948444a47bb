"""Which installed libraries are traced, could be, and could not; nothing is imported or wired for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, Literal, final

from tracekit.instrumentation.registry import available

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

_NAME: Final = re.compile(r"[\w.-]+")


@final
@dataclass(frozen=True, slots=True)
class Surveyed:
    """
    A library that can be traced, or could be.

    Args:
        name: As `instrument` takes it; where it does not, the library's package.
        state: "ready", "unsupported" (its version), "no library", "no instrumentation".
        library: What is installed of the library, with its version.
        by: What makes its spans; what would, if it was installed.
        supported: The versions of the library that this supports.
    """

    name: str
    state: Literal["ready", "unsupported", "no library", "no instrumentation"]
    library: str = ""
    by: str = ""
    supported: str = ""


def survey() -> tuple[Surveyed, ...]:
    """Return what is known of each library that is installed here and can be traced."""
    ready = [_with_instrumentation(name, entry_point) for name, entry_point in available().items()]
    # Some have a name for each library that they trace, of which one is enough for them.
    told = {library.by for library in ready if library.library}
    ready = [library for library in ready if library.library or library.state != "ready" or library.by not in told]
    instrumentations = {
        entry_point.dist.name for entry_point in available().values() if entry_point and entry_point.dist
    }
    return (*ready, *_without_instrumentation(instrumentations))


def _with_instrumentation(name: str, entry_point: EntryPoint | None) -> Surveyed:
    installed = _installed(name)
    if name == "sqlalchemy":
        state: Literal["ready", "no library"] = "ready" if installed else "no library"
        return Surveyed(name, state, installed, "tracekit")
    if entry_point is None or entry_point.dist is None:
        return Surveyed(name, "ready", installed, "" if entry_point is None else entry_point.value)
    by = f"{entry_point.dist.name} {entry_point.dist.version}"
    from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts

    conflict = get_dist_dependency_conflicts(entry_point.dist)
    if conflict is None:
        return Surveyed(name, "ready", installed, by)
    required = str(conflict.required or ", ".join(map(str, conflict.required_any)))
    found = str(conflict.found or ", ".join(map(str, conflict.found_any)))
    if not conflict.found and not conflict.found_any:
        return Surveyed(name, "no library", "", by, required)
    return Surveyed(name, "unsupported", found, by, required)


def _without_instrumentation(there: set[str]) -> Iterator[Surveyed]:
    """Yield the installed libraries that OpenTelemetry has an instrumentation for, which is not installed."""
    try:
        from opentelemetry.instrumentation.bootstrap_gen import libraries
    except ImportError:
        return
    seen: set[str] = set()
    entries: list[dict[str, Any]] = list(libraries)
    for entry in entries:
        package = str(entry["instrumentation"]).partition("==")[0]
        requirement = str(entry["library"])
        found = _NAME.match(requirement)
        if found is None or package in there or found[0] in seen or not _is_for(package, found[0]):
            continue
        installed = _installed(found[0])
        if installed:
            seen.add(found[0])
            yield Surveyed(found[0], "no instrumentation", installed, package, requirement)


def _is_for(package: str, library: str) -> bool:
    """Tell whether the instrumentation *package* is of *library*, and not of what merely goes with it."""
    name = package.removeprefix("opentelemetry-instrumentation-")
    library = library.replace("_", "-").lower()
    # SQLAlchemy is traced without one.
    return name != "sqlalchemy" and (name.partition("-")[0] in library or library in name)


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except (PackageNotFoundError, ValueError):
        return ""
