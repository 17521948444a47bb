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
    os.register_at_fork(after_in_child=_while_it_lives(renew))


def around_fork(before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]) -> None:
    """Call the bound methods *before* each fork and after it, for as long as their object lives."""
    if not hasattr(os, "register_at_fork"):
        return
    calls = {
        when: _while_it_lives(method)
        for when, method in (("before", before), ("after_in_parent", in_parent), ("after_in_child", in_child))
    }
    os.register_at_fork(**calls)


def _while_it_lives(bound: Callable[[], None]) -> Callable[[], None]:
    # Weak: what is registered stays registered for the life of the process.
    method = weakref.WeakMethod(bound)

    def call() -> None:
        alive = method()
        if alive is not None:
            alive()

    return call
