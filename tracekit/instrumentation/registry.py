"""Which libraries can be instrumented, and which are. Nothing else reads entry points."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final, cast

from tracekit.errors import InstrumentationError
from tracekit.instrumentation.wiring import Official

if TYPE_CHECKING:
    from tracekit.instrumentation.wiring import Instrumented, Wiring

_GROUP: Final = "opentelemetry_instrumentor"
_PREFIX: Final = "opentelemetry-instrumentation-"

# Libraries that need more than their official instrumentation gives; each is also an extra of tracekit.
_OWN: Final = ("fastapi", "sqlalchemy", "httpx")

_lock: Final = threading.RLock()
_wirings: Final[dict[str, Wiring]] = {}


def instrument(*names: str, **options: Any) -> tuple[Instrumented, ...]:
    """
    Trace *names*: `instrument("fastapi", app=app)`, `instrument("sqlalchemy", engine=engine)`, `instrument("redis")`.

    Spans go to the provider tracekit uses at the time of each span, so the order of this call, `configure()` and the
    making of apps, engines and clients does not matter. Calling it again changes nothing.

    Args:
        names: `fastapi`, `sqlalchemy`, `httpx`, or any library with an installed `opentelemetry-instrumentation-*`
            package, by the name of its entry point or package: `redis`, `celery`, `aiohttp-client`, `grpc`.
        options: For one name only. `app=` (fastapi and other web frameworks), `engine=` or `engines=` (sqlalchemy),
            `client=` (httpx and others) instrument that one object, nothing else; the rest goes to the official
            instrumentation. `skip_dep_check=True` tries one that does not support the installed version.

    Returns:
        For each library whether it was wired, by what, and if not, why not.

    Raises:
        InstrumentationError: A name is unknown, a package is missing, or an option is wrong.
    """
    _check(names, options)
    with _lock:
        # All are found before any is wired: a typing error in the last name must not leave the first ones wired.
        found = [wiring for name in names for wiring in _find(_normal(name))]
        return tuple(wiring.wire(dict(options)) for wiring in found)


def uninstrument(*names: str, **options: Any) -> None:
    """
    Take back what `instrument` did, for *names* or for all; what was not instrumented here is left as it is.

    Args:
        names: As for `instrument`; none means all.
        options: For one name only: the `app=`, `engine=`, `engines=` or `client=` to leave alone from now on.
    """
    if names or options:
        _check(names, options)
    with _lock:
        if not names:
            wirings = list(_wirings.values())
        else:
            wirings = [_wirings[name] for each in names for name in _entry_names(_normal(each)) if name in _wirings]
        for wiring in wirings:
            wiring.unwire(dict(options))


def instrumented() -> tuple[Instrumented, ...]:
    """Return what is wired now."""
    with _lock:
        states = [wiring.state for wiring in _wirings.values()]
    return tuple(state for state in states if state.is_wired)


def available() -> dict[str, EntryPoint | None]:
    """Return what `instrument` takes here: the installed instrumentations by name, None for tracekit's own."""
    # Needs the library only.
    found: dict[str, EntryPoint | None] = {"sqlalchemy": None}
    for entry_point in entry_points(group=_GROUP):
        found.setdefault(_normal(entry_point.name), entry_point)
    return dict(sorted(found.items()))


def _check(names: tuple[object, ...], options: dict[str, Any]) -> None:
    for name in names:
        if not isinstance(name, str):
            msg = f'instrument() was given {name!r}; expected names of libraries. Write instrument("redis", "celery").'
            raise InstrumentationError(msg)
    if not names or (options and len(names) > 1):
        msg = (
            f"instrument() was given {len(names)} names and the options {sorted(options)}; options belong to one "
            'library. Write instrument("fastapi", app=app).'
        )
        raise InstrumentationError(msg)


def _find(name: str) -> list[Wiring]:
    """Return the wirings of *name*, made on first use."""
    if name in _OWN:
        if name not in _wirings:
            _wirings[name] = _own(name)
        return [_wirings[name]]
    found = list(_entries(name))
    if not found:
        raise InstrumentationError(_unknown(name))
    for entry_point in found:
        key = _normal(entry_point.name)
        if key not in _wirings:
            _wirings[key] = Official(key, entry_point)
    return [_wirings[_normal(entry_point.name)] for entry_point in found]


def _own(name: str) -> Wiring:
    official = next(_entries(name), None)
    if name != "sqlalchemy" and official is None:
        raise InstrumentationError(_unknown(name))
    try:
        make = import_module(f"tracekit.instrumentation.{name}").make_wiring
        return cast("Wiring", make(official))
    except ImportError as error:
        msg = f"instrument({name!r}) needs: pip install 'tracekit[{name}]' ({error})"
        raise InstrumentationError(msg) from error


def _entry_names(name: str) -> list[str]:
    return [name] if name in _OWN else [_normal(entry_point.name) for entry_point in _entries(name)]


def _entries(name: str) -> Iterator[EntryPoint]:
    """Yield the entry point called *name*, else those of the package called so: `grpc` has four."""
    installed = entry_points(group=_GROUP)
    exact = next((entry_point for entry_point in installed if _normal(entry_point.name) == name), None)
    if exact is not None:
        yield exact
        return
    for entry_point in installed:
        if entry_point.dist is not None and _normal(entry_point.dist.name) == _PREFIX + name:
            yield entry_point


def _unknown(name: str) -> str:
    if name in _OWN:
        return f"instrument({name!r}) needs: pip install 'tracekit[{name}]'"
    installed = sorted({*_OWN, *(_normal(entry_point.name) for entry_point in entry_points(group=_GROUP))})
    return (
        f"instrument({name!r}): no instrumentation of that name is installed (there are: {', '.join(installed)}). "
        + _advice(name)
    )


def _advice(name: str) -> str:
    """Say what to install for *name*, by the list that OpenTelemetry ships."""
    try:
        from opentelemetry.instrumentation.bootstrap_gen import libraries
    except ImportError:
        return f"OpenTelemetry's are called like this: pip install {_PREFIX}{name}"
    known = {entry["instrumentation"].partition("==")[0] for entry in libraries}
    meant = sorted(package for package in known if name in package.split("-") or package == _PREFIX + name)
    if meant:
        return f"Install it: pip install {' or '.join(meant)}"
    # No package name is made up here: somebody might have registered it.
    return f"OpenTelemetry has none either; a package of others brings it by an entry point in {_GROUP!r}."


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
