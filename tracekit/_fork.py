"""Forks: renewing what a child process must not inherit from its parent."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def in_forked_child(renew: Callable[[], None]) -> None:
    """Call the bound method *renew* in every forked child, for as long as its object lives."""
    if not hasattr(os, "register_at_fork"):
        return
    # Weak: what is registered stays registered for the life of the process.
    method = weakref.WeakMethod(renew)

    def call() -> None:
        alive = method()
        if alive is not None:
            alive()

    os.register_at_fork(after_in_child=call)
