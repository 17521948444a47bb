"""`python -m tracekit.running script.py`: what `tracekit run` becomes where the script's own functions are traced."""

from __future__ import annotations

import sys

from tracekit.running.script import run_script
from tracekit.running.startup import state

if __name__ == "__main__":
    del sys.argv[0]
    run_script(sys.argv[0], state.matching)
