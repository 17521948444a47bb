"""The command `tracekit`: its arguments, and what becomes of a command's errors. Each command has a file of its own."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from tracekit._version import __version__
from tracekit.errors import TracekitError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Each command and what it does. The command NAME is `tracekit/cli/NAME.py`, which is imported where it is asked for;
# its `add_arguments(parser)` says the rest and sets the default `run`: a function of the arguments that returns the
# exit status.
COMMANDS: Final = {
    "demo": "run a real order service and print its traces",
    "doctor": "find out why spans do not arrive",
    "run": "run a program with tracing, without a change to it",
    "view": "show the traces of files: trees, waterfalls, summaries",
    "serve": "receive traces on this machine and show them in the browser",
}

# What shells give to a command that a signal has ended: 128 + its number.
_INTERRUPTED: Final = 130
_PIPE_CLOSED: Final = 141

_DESCRIPTION: Final = """\
Trace Python with OpenTelemetry: a decorator, a context manager, one call to set it up.

  import tracekit

  tracekit.configure(service="shop")     # the trace tree on stderr; endpoint="http://host:4317" sends it on

  @tracekit.traced                       # a span for each call: name, arguments, outcome
  def create_order(order_id: int): ...
"""
_EPILOG: Final = """\
exit status: 0 done, 1 failed or nothing found, 2 wrong arguments or something is not installed

`tracekit COMMAND --help` says more about a command.
"""


class _Command(Protocol):
    """The module of a command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command that *argv* asks for and return its exit status.

    Args:
        argv: The arguments; None for those of the process.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    _prepare_streams()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        return _failure_of_output(error)


def _run(argv: list[str]) -> int:
    parser = _parser(_command_in(argv))
    try:
        arguments = parser.parse_args(argv)
    finally:
        # `--help | head`: argparse leaves by an exit, and the interpreter would complain of a closed pipe.
        sys.stdout.flush()
    run: Callable[[argparse.Namespace], int] | None = arguments.run
    if run is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        status = run(arguments)
        # Here, where a reader that has gone away is no traceback.
        sys.stdout.flush()
    except TracekitError as error:
        print(f"tracekit {arguments.command}: {error}", file=sys.stderr)
        return 2
    return status


def _command_in(argv: list[str]) -> str:
    """Return the first of *argv* that is no option: options that stand before a command take no value."""
    return next((argument for argument in argv if not argument.startswith("-")), "")


def _parser(chosen: str) -> argparse.ArgumentParser:
    """Return the parser of all commands; only the *chosen* one is imported and knows its arguments."""
    parser = argparse.ArgumentParser(
        prog="tracekit",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tracekit {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, does in COMMANDS.items():
        command = commands.add_parser(name, help=does, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == chosen:
            cast("_Command", import_module(f"tracekit.cli.{name}")).add_arguments(command)
    return parser


def _prepare_streams() -> None:
    """Let no character fail that the terminal's encoding lacks, and no stream that was closed before the start."""
    for name in ("stdout", "stderr"):
        # `>&-`, or Windows without a console.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  # the process's
    stream = cast("object", sys.stdout)
    if isinstance(stream, io.TextIOWrapper):
        cast("io.TextIOWrapper", stream).reconfigure(errors="backslashreplace")


def _failure_of_output(error: OSError) -> int:
    """Return the exit status for output that cannot be written: quietly where the reader of a pipe has gone away."""
    # The interpreter would flush once more at its end, and complain.
    with suppress(OSError, ValueError):  # of a stream that is none of the system's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # `tracekit ... | head`. Windows calls it an invalid argument.
    if isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL):
        return _PIPE_CLOSED
    print(f"tracekit: {error}", file=sys.stderr)
    return 1
