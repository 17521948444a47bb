"""The SDK's own tests of tracing, run on the spans of tracekit's engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any, Final

import pytest
from sdists import unpacked

_HERE: Final = Path(__file__).parent

# Tests of the SDK that the engine does not pass, by node id, and why. A reason must be a field without a public name.
EXCEPTIONS: Final[dict[str, str]] = {}

# The release with which the range of dependencies begins, and the release of its conventions.
LOWEST: Final = ("1.43.0", "0.64b0")


def installed() -> tuple[str, str]:
    """Return the releases of the SDK, and of the conventions, that are installed here."""
    required = " ".join(requires("opentelemetry-sdk") or ())
    (conventions,) = re.findall(r"opentelemetry-semantic-conventions\s*==\s*(\S+)", required)
    return version("opentelemetry-sdk"), conventions


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "release", sorted({LOWEST, installed()}), ids=lambda release: f"opentelemetry-sdk-{release[0]}"
)
def test_the_engine_passes_the_sdks_own_tests(release: tuple[str, str], tmp_path: Path) -> None:
    sdk, conventions = release
    pinned = [f"opentelemetry-test-utils=={conventions}"]
    if release != installed():
        # First on the path: these are imported in place of those that are installed.
        pinned += [f"opentelemetry-{part}=={sdk}" for part in ("api", "sdk")]
        pinned.append(f"opentelemetry-semantic-conventions=={conventions}")
    home = unpacked("opentelemetry-sdk", sdk, *pinned)
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "swap_engine", "-p", "no:cacheprovider", "-q", "--tb=short"),
            *(f"--deselect={test}" for test in EXCEPTIONS),
            "tests/trace",
        ],
        cwd=home / "sdist",
        env={
            **os.environ,
            # Its tests start `python`.
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join((str(home / "site"), str(_HERE))),
            "SDK_SUITE_REPORT": str(report),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    output = f"{done.stdout[-20_000:]}{done.stderr[-5_000:]}"
    assert report.exists(), output
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    assert {test: outcome for test, outcome in found["outcomes"].items() if outcome == "failed"} == {}, output
    assert list(found["outcomes"].values()).count("passed") > 250, output
    assert found["spans"] > 60, output
