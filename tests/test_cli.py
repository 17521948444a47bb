"""The command `tracekit`: what it says about itself, and what becomes of mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import tracekit
from tracekit.cli import COMMANDS, main

SCRIPT: Final = Path(sys.executable).with_name("tracekit")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tracekit", *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)


def test_version_is_the_packages() -> None:
    ran = run("--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"tracekit {tracekit.__version__}\n", "")


@pytest.mark.skipif(not SCRIPT.exists(), reason="tracekit is not installed in this environment")
def test_the_installed_command_is_the_module() -> None:
    ran = subprocess.run([SCRIPT, "--version"], capture_output=True, encoding="utf-8", check=True)
    assert ran.stdout == run("--version").stdout


def test_help_names_the_commands_and_shows_the_first_lines_to_write() -> None:
    ran = run("--help")
    assert ran.returncode == 0
    assert "demo" in ran.stdout
    assert 'tracekit.configure(service="shop")' in ran.stdout


def test_no_command_is_a_mistake_that_shows_the_help() -> None:
    ran = run()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "commands:" in ran.stderr


@pytest.mark.parametrize("arguments", [["dmeo"], ["demo", "--quick"], ["--verison"]])
def test_a_wrong_argument_is_said_in_a_line(arguments: list[str]) -> None:
    ran = run(*arguments)
    assert ran.returncode == 2
    assert "tracekit" in ran.stderr.splitlines()[-1]
    assert arguments[-1] in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr


def test_a_missing_extra_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ImportError", encoding="utf-8")
    ran = run("demo", PYTHONPATH=str(tmp_path))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "tracekit demo: pip install 'tracekit[demo]' first (missing: uvicorn)\n"


def test_main_answers_with_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: tracekit" in capsys.readouterr().err


def test_the_command_is_there_at_once() -> None:
    code = (
        "import sys; from tracekit.cli import main; main([]); "
        "print(*({'opentelemetry.sdk', 'httpx', 'uvicorn', 'fastapi', 'wrapt'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert ran.stdout.split() == []


def test_a_command_is_imported_where_it_is_asked_for_only() -> None:
    code = "import sys; from tracekit.cli import main; main([]); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert not [name for name in ran.stdout.split() if name.startswith("tracekit.cli.")]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_teaches_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert f"tracekit {command}" in said
    assert "examples:" in said
    # Any console can show it.
    assert said.isascii()


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's redirections")
@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "2>&-"])
def test_a_stream_that_is_closed_is_no_error(streams: str) -> None:
    ran = subprocess.run(["sh", "-c", f"{sys.executable} -m tracekit --version {streams}"], check=False)
    assert ran.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    span = {"traceId": "1" * 32, "spanId": "1" * 16, "name": "a"}
    (tmp_path / "f").write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}), encoding="utf-8")
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "tracekit", "view", str(tmp_path / "f")]
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    assert (ran.returncode, ran.stderr) == (1, "tracekit: [Errno 28] No space left on device\n")
