"""Libraries: what is traced here, what is not and why, and what could be."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracekit.diagnosis.report import Report


def check_libraries(report: Report) -> None:
    """Add each library that can be traced here, and those that could be."""
    try:
        from tracekit.instrumentation.survey import survey

        found = survey()
    except ImportError as error:
        report.add("libraries", "survey", "warn", f"the instrumentations cannot be looked at: {error}")
        return
    for library in found:
        data = {"name": library.name, "library": library.library, "by": library.by, "supported": library.supported}
        if library.state == "ready":
            message = f"{library.library or library.name} can be traced, by {library.by}"
            report.add("libraries", "ready", "ok", message, **data)
        elif library.state == "unsupported":
            message = (
                f"{library.name} is not traced: {library.by} supports {library.supported}, there is {library.library}"
            )
            advice = f"Upgrade one of them, or try it: instrument({library.name!r}, skip_dep_check=True)"
            report.add("libraries", "unsupported", "warn", message, advice, **data)
        elif library.state == "no library":
            message = f"{library.by or library.name} is installed, its library is not"
            report.add("libraries", "no_library", "info", message, **data)
    possible = [library for library in found if library.state == "no instrumentation"]
    if possible:
        report.add(
            "libraries",
            "possible",
            "info",
            f"could be traced too: {', '.join(library.library for library in possible)}",
            f"pip install {' '.join(sorted({library.by for library in possible}))}",
            packages={library.name: library.by for library in possible},
        )
    if any(library.state == "ready" for library in found):
        report.add("libraries", "use", "info", "each needs configure(instrument=[...]), or tracekit run")
