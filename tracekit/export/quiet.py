"""The context exporters run in: instrumented clients must not trace the sending of traces."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.context import (
    _SUPPRESS_INSTRUMENTATION_KEY,  # pyright: ignore[reportPrivateUsage]  # what the SDK and instrumentations share
    attach,
    detach,
    get_value,
    set_value,
)

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Suppress instrumentation while exporting."""
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # noqa: FBT003  # the value, not an option
    try:
        yield
    finally:
        detach(token)


def is_quiet() -> bool:
    """Tell whether instrumentation is suppressed here."""
    return bool(get_value(_SUPPRESS_INSTRUMENTATION_KEY))
