"""The command `tracekit`: its arguments, and what becomes of a command's errors. Each command has a file of its own."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from tracekit._version import __version__
from tracekit.cli import demo, view
from tracekit.errors import TracekitError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What shells give to a command that Ctrl-C has ended: 128 + SIGINT.
_INTERRUPTED: Final = 130

_DESCRIPTION: Final = """\
Trace Python with OpenTelemetry: a decorator, a context manager, one call to set it up.

  import tracekit

  tracekit.configure(service="shop")     # the trace tree on stderr; endpoint="http://host:4317" sends it on

  @tracekit.traced                       # a span for each call: name, arguments, outcome
  def create_order(order_id: int): ...
"""
_EPILOG: Final = """\
exit status: 0 done, 1 failed, 2 wrong arguments or something is not installed

`tracekit COMMAND --help` says more about a command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command that *argv* asks for and return its exit status.

    Args:
        argv: The arguments; None for those of the process.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
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
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # `tracekit ... | head`: the interpreter would flush once more, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tracekit",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tracekit {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    demo.add_to(commands)
    view.add_to(commands)
    return parser
