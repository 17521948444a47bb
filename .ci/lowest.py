"""Print the lower bounds of what tracekit needs at run time as pip constraints: the oldest versions it allows."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

# The tools that run the tests may be new; what users install may be old.
_TOOLS: Final = {"test", "bench"}
_BOUND: Final = re.compile(r'"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([0-9][^",;]*)')
_LIST: Final = re.compile(r"^([a-z-]+) = \[(.*?)\]$", re.MULTILINE | re.DOTALL)


def lower_bounds(pyproject: str) -> list[str]:
    """Return `name==version` for each lower bound of the core and of the extras for users."""
    # Read by hand: tomllib came with Python 3.11.
    project = pyproject.partition("\n[project]\n")[2].partition("\n[project.scripts]\n")[0]
    return [
        f"{name}=={version}"
        for extra, requirements in _LIST.findall(project)
        if extra not in _TOOLS
        for name, version in _BOUND.findall(requirements)
    ]


if __name__ == "__main__":
    print("\n".join(lower_bounds(Path(sys.argv[1]).read_text(encoding="utf-8"))))
