"""Other people's test suites, run with each function of their package traced: not one result may differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from packages import PACKAGES, Package
from sdists import unpacked

_HERE: Final = Path(__file__).parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_suite_of_a_package_cannot_tell_traced_functions_from_empty_closures(package: Package, tmp_path: Path) -> None:
    home = unpacked(package.name, package.version, f"{package.name}=={package.version}", *package.requires)
    expected = _run(package, home, "closure", tmp_path)
    traced = _run(package, home, "traced", tmp_path)

    differing = {
        test: (expected["outcomes"].get(test), traced["outcomes"].get(test))
        for test in sorted({*expected["outcomes"], *traced["outcomes"]})
        if expected["outcomes"].get(test) != traced["outcomes"].get(test)
    }
    assert not differing, f"{differing}\n{traced['output']}"
    assert list(expected["outcomes"].values()).count("passed") > 50, expected["output"]
    assert traced["decorated"] > 50
    assert traced["started"] > 1_000
    assert traced["ended"] == traced["started"]
    assert traced["left_current"] == []
    assert traced["complaints"] == []


def _run(package: Package, home: Path, decorator: str, tmp_path: Path) -> dict[str, Any]:
    report = tmp_path / f"{decorator}.json"
    asked = {"modules": package.modules, "decorator": decorator, "report": str(report)}
    left_out = [f"--deselect={test}" for test, _ in package.left_out]
    command = [sys.executable, "-m", "pytest", "-p", "instrument", *package.options, "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-q", "--tb=short", *left_out, package.tests],
        cwd=home / "sdist",
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": os.pathsep.join((str(home / "site"), str(_HERE))),
            "TRANSPARENCY": json.dumps(asked),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    output = f"{done.stdout[-20_000:]}{done.stderr[-5_000:]}"
    assert report.exists(), output
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return {**found, "output": output}
