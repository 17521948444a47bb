"""
Imported by every Python process below `tracekit run`, before its program: the directory is in PYTHONPATH.

Needs no package: the process may be of another Python, without tracekit.
"""

# ruff: noqa: INP001  # on the path itself, in no package
from __future__ import annotations

import os
import sys
from importlib import import_module


def _leave_the_path() -> None:
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  # pathlib costs 5 ms each start
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]  # noqa: PTH100


def _import_the_one_behind() -> None:
    """Import the sitecustomize that would have been imported without this one, if there is one."""
    ours = sys.modules.pop("sitecustomize")
    try:
        import_module("sitecustomize")  # another one: ours has left the path
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        sys.modules.setdefault("sitecustomize", ours)


def _start() -> None:
    try:
        from tracekit.running.startup import start
    except ImportError as error:
        sys.stderr.write(f"tracekit run: {sys.executable} does not trace, tracekit cannot be imported there: {error}\n")
    else:
        start()


_leave_the_path()
try:
    _start()
finally:
    _import_the_one_behind()
