"""Environment variables, as `configure()` reads them; `export` reads its own by the same rules."""

from __future__ import annotations

from tracekit._environment import Environment, wrong_variable

__all__ = ["Environment", "wrong_variable"]
