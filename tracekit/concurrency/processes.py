"""Functions sent to another process: tracing is set up there as it is here, and they run as children of the sender."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, Generic, ParamSpec, TypeVar, final

from tracekit._config import runtime
from tracekit._diagnostics import logger, report_failure
from tracekit.propagation import remote_parent

P = ParamSpec("P")
R = TypeVar("R")


@final
class SentFunction(Generic[P, R]):
    """
    *func* as it arrives in another process.

    Args:
        func: What to call.
        carrier: The trace and baggage it continues.
        setup: What `setup_to_send` said in the process it comes from.
    """

    __slots__ = ("_carrier", "_func", "_setup")

    def __init__(self, func: Callable[P, R], carrier: dict[str, str], setup: bytes | None) -> None:
        self._func: Final = func
        self._carrier: Final = carrier
        self._setup: Final = setup

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Set tracing up if nothing has, and call the function in the context it was sent with."""
        # Here and not on arrival: schedulers unpickle functions that they only pass on.
        if self._setup is not None and runtime.provider is None:
            _set_up(self._setup)
        with remote_parent(self._carrier):
            return self._func(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (SentFunction, (self._func, self._carrier, self._setup))


def setup_to_send() -> bytes | None:
    """Return what sets tracing up in another process as in this one, or None where there is no telling."""
    return None if runtime.setup is None else _pickled(runtime.setup)


@lru_cache(maxsize=1)
def _pickled(setup: partial[Any]) -> bytes | None:
    bad = [name for name, value in setup.keywords.items() if not _can_be_pickled(value)]
    if bad == ["sample"]:
        # A sampler with a lock. What is traced there has its parent here, whose sampler has decided.
        return pickle.dumps(partial(setup, sample=None))
    if bad:
        logger.warning(
            "worker processes are not set up, so what they trace is lost: %s of configure() cannot be pickled. Call "
            "configure() in the workers too, or give exporter= and endpoint= as text",
            " and ".join(f"{name}=" for name in bad),
        )
        return None
    return pickle.dumps(setup)


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001  # the user's exporter, sampler or pattern
        return False
    return True


_setting_up: Final = threading.Lock()


def _set_up(setup: bytes) -> None:
    with _setting_up:
        _set_up_once(setup)


@lru_cache(maxsize=1)
def _set_up_once(setup: bytes) -> None:
    try:
        pickle.loads(setup)()  # noqa: S301  # from the process whose function is about to be run
    except Exception as error:  # noqa: BLE001  # an exporter's module that is not here
        report_failure("tracekit.concurrency", "setting up a worker process", error)
