"""Environment variables, as `configure()` reads them; `export` reads its own by the same rules."""

from __future__ import annotations

from tracekit._environment import Environment as Environment
from tracekit._environment import wrong_variable as wrong_variable
