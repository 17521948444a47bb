"""What importing costs: processor time of a fresh interpreter, from before the import to after it."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.harness import Effort, take_turns
from benchmarks.tables import Table, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

_API: Final = "import opentelemetry.trace"
_TRACEKIT: Final = "import tracekit"
_CASES: Final = {
    _API: _API,
    _TRACEKIT: "import opentelemetry.trace, tracekit",
    "from tracekit import traced": "from tracekit import traced",
    "import opentelemetry.sdk.trace": "import opentelemetry.sdk.trace",
    "by hand, OTLP/HTTP set up": "from benchmarks.stacks import set_up; set_up('stock', 'http://127.0.0.1:9')",
    "configure(), OTLP/HTTP": "from benchmarks.stacks import set_up; set_up('tracekit', 'http://127.0.0.1:9')",
}


def tables(effort: Effort) -> Iterator[Table]:
    """Measure each import in interpreters of its own."""
    title = "an import"
    if effort.wants(title):
        samples = take_turns({name: partial(_ms, code) for name, code in _CASES.items()}, effort.turns(20, 5))
        yield Table(title, "ms", samples, _API, [Target(_TRACEKIT, _API, 5, by="more")])


def _ms(code: str) -> float:
    timed = f"import os, time; start = time.process_time(); {code}; print(time.process_time() - start); "
    # No shutdown: nobody listens there.
    timed += "import sys; sys.stdout.flush(); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
    return float(done.stdout) * 1000
