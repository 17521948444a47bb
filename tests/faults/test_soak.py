"""A short soak: while everything fails at random, nothing is lost unseen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_nothing_is_lost_unseen_while_everything_fails() -> None:
    soaked = subprocess.run(
        [sys.executable, "-m", "tests.faults.soak", "--seconds", "6"],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert soaked.returncode == 0, soaked.stdout + soaked.stderr
    assert "Everything is accounted for." in soaked.stdout
