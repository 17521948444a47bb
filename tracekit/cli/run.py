"""
`tracekit run`: a program with tracing, without a change to it.

The program takes this process's place (exec), as if it had been started without tracekit: its arguments, `__main__`,
tracebacks, signals and exit status are its own. What it is to do is in the environment, where its workers find it too.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracekit._environment import Environment
from tracekit.errors import ConfigurationError, InstrumentationError, TracekitError
from tracekit.running.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DESCRIPTION: Final = """\
Run a program with tracing, without a change to it: a script, a module or a command such as uvicorn, gunicorn or celery.
Its worker processes are traced too. Each installed instrumentation is put to use once its library is imported.
"""
_EPILOG: Final = """\
examples:
  tracekit run shop.py                                    the trace tree on stderr
  tracekit run --endpoint http://localhost:4317 -m shop.worker
  tracekit run --service shop --sample 0.1 uvicorn shop.main:app --workers 4
  tracekit run --trace 'shop.*' --exclude 'shop.models.*' gunicorn shop.wsgi
  tracekit run --exporter file:traces.jsonl --instrument httpx,redis celery -A shop worker

OTEL_* variables hold where no option is given. A program that calls tracekit.configure() itself sets up anew.
The exit status is the program's; 2 where it was not started, 127 where there is no such command.
"""
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126
# What servers are given to serve: `shop.main:app`.
_APPLICATION: Final = re.compile(r"(?P<module>[A-Za-z_][\w.]*):[A-Za-z_]\w*(\(.*\))?")
_PYTHON: Final = re.compile(r"python[\d.]*(\.exe)?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command to *parser*."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.usage = "tracekit run [options] (script.py | -m module | command) [arguments of the program]"
    sending = parser.add_argument_group("where spans go")
    sending.add_argument("--service", metavar="NAME", help="service.name (default: the program's name)")
    sending.add_argument("--environment", metavar="NAME", help="deployment.environment.name: production")
    sending.add_argument("--exporter", metavar="WHERE", help="otlp, console, file:PATH, none, or several by commas")
    sending.add_argument("--endpoint", metavar="URL", help="an OTLP receiver: http://localhost:4317")
    sending.add_argument("--protocol", choices=("grpc", "http/protobuf"), help="default: by the endpoint's port")
    sampling = parser.add_argument_group("which spans")
    sampling.add_argument("--sample", metavar="RATIO", type=float, help="share of new traces, from 0 to 1")
    sampling.add_argument("--keep-errors", action="store_true", help="keep traces not sampled that fail")
    sampling.add_argument(
        "--keep-slower-than", metavar="SECONDS", type=float, help="keep traces not sampled that take so long"
    )
    what = parser.add_argument_group("what is traced")
    what.add_argument(
        "--instrument", metavar="LIBRARIES", help="only these, by commas: fastapi,httpx (default: all installed; none)"
    )
    what.add_argument("--no-instrument", metavar="LIBRARIES", default="", help="not these, by commas")
    what.add_argument(
        "--trace",
        metavar="PATTERN",
        action="append",
        default=[],
        help="functions to trace too: 'shop.*', 'shop.orders.Orders.create_*'; may be given again",
    )
    what.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="functions that --trace leaves alone"
    )
    what.add_argument("--no-arguments", action="store_true", help="do not record arguments of traced functions")
    what.add_argument("--redact", metavar="NAME", action="append", default=[], help="names that hold secrets too")
    what.add_argument("--metrics", action="store_true", help="measure operations, sampled or not")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell which libraries and functions are traced")
    parser.add_argument("-m", dest="module", metavar="MODULE", nargs=argparse.REMAINDER, help="run a module")
    parser.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """
    Become the program. Returns only where it could not be started, or cannot take this process's place (Windows).

    Raises:
        TracekitError: An option or a variable is wrong.
    """
    program: list[str] = arguments.program[1:] if arguments.program[:1] == ["--"] else arguments.program
    if not (arguments.module or program):
        msg = "what to run is missing. Write tracekit run script.py, tracekit run -m module, or tracekit run command"
        raise ConfigurationError(msg)
    plan = _plan(arguments, _name_of(arguments.module, program))
    _check(plan)
    command = _module_command(arguments.module) if arguments.module else _command(program, plan)
    if command is None:
        print(f"tracekit run: {program[0]}: no such script or command", file=sys.stderr)
        return _NOT_FOUND
    return _become(command, plan.environment(os.environ))


def _plan(arguments: argparse.Namespace, name: str) -> Plan:
    options: dict[str, Any] = {
        "service": arguments.service or _service(name),
        "environment": arguments.environment,
        "endpoint": arguments.endpoint,
        "protocol": arguments.protocol,
        "sample": arguments.sample,
        "keep_slower_than_s": arguments.keep_slower_than,
        "redact": arguments.redact or None,
    }
    options = {option: value for option, value in options.items() if value is not None}
    if arguments.exporter:
        options["exporter"] = _listed(arguments.exporter)
    for option, value, default in (
        ("keep_errors", arguments.keep_errors, False),
        ("metrics", arguments.metrics, False),
        ("capture_arguments", not arguments.no_arguments, True),
    ):
        if value is not default:
            options[option] = value
    wanted = arguments.instrument
    return Plan(
        options=options,
        instrument=None if wanted is None else tuple(name for name in _listed(wanted) if name != "none"),
        leave_out=tuple(_listed(arguments.no_instrument)),
        trace=tuple(arguments.trace),
        exclude=tuple(arguments.exclude),
        is_verbose=arguments.verbose,
        process=os.getpid(),
    )


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _service(name: str) -> str | None:
    """Return the service's name where the environment gives none: in workers the program's name is not to be seen."""
    variables = Environment()
    attributes = variables.pairs("OTEL_RESOURCE_ATTRIBUTES") or {}
    return None if variables.text("OTEL_SERVICE_NAME") or "service.name" in attributes else name or None


def _name_of(module: Sequence[str] | None, program: Sequence[str]) -> str:
    if module:
        return module[0]
    name, arguments = Path(program[0]).stem or Path(program[0]).resolve().name, program[1:]
    if _PYTHON.fullmatch(Path(program[0]).name):
        after_m = arguments[arguments.index("-m") + 1 :] if "-m" in arguments else ()
        return next(iter(after_m), next((Path(word).stem for word in arguments if word.endswith(".py")), name))
    served = next((found for word in arguments if (found := _APPLICATION.fullmatch(word))), None)
    return name if served is None else served["module"].partition(".")[0]


def _check(plan: Plan) -> None:
    """
    Refuse here what would otherwise go wrong in each process of the program.

    Raises:
        TracekitError: An option or a variable is wrong.
    """
    if sys.flags.ignore_environment:
        msg = "Python was told to ignore its environment (-E, -I), in which the program finds what to trace"
        raise ConfigurationError(msg)
    from tracekit.configuration import configure
    from tracekit.instrumentation.registry import available

    for pattern in (*plan.trace, *plan.exclude):
        if not pattern.strip(".") or any(char.isspace() or char in "/:" for char in pattern):
            msg = f"--trace {pattern!r}: expected the name of a module or function. Write --trace 'shop.orders.*'"
            raise InstrumentationError(msg)
    known = {name.replace("_", "-") for name in available()}
    for name in (*(plan.instrument or ()), *plan.leave_out):
        if name.replace("_", "-").lower() not in known:
            installed = ", ".join(sorted(known))
            msg = f"no instrumentation {name!r} is installed. There are: {installed}"
            raise InstrumentationError(msg)
    configure(**plan.options).shutdown(0)


def _module_command(module: Sequence[str]) -> list[str]:
    return [sys.executable, *_interpreter_options(), "-m", *module]


def _command(program: Sequence[str], plan: Plan) -> list[str] | None:
    """Return what to execute; None if there is nothing of that name."""
    name = program[0]
    if name.endswith((".py", ".pyw")) and Path(name).is_file() and plan.trace:
        # Its own functions can only be reached from below it.
        return [sys.executable, *_interpreter_options(), "-m", "tracekit.running", *program]
    if name.endswith((".py", ".pyz", ".pyw")) or Path(name, "__main__.py").is_file():
        return [sys.executable, *_interpreter_options(), *program] if Path(name).exists() else None
    # First what stands beside this Python: a command of another environment may not have tracekit.
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=beside) if os.sep not in name else None
    found = found or shutil.which(name)
    if found is not None:
        return [found, *program[1:]]
    return [sys.executable, *_interpreter_options(), *program] if Path(name).is_file() else None


def _interpreter_options() -> list[str]:
    """Return the options this Python was started with (-W, -X, -O, ...), as multiprocessing hands them on."""
    # Its name has an underscore, and is what the standard library's own packages use.
    options: Callable[[], list[str]] = vars(subprocess)["_args_from_interpreter_flags"]
    return options()


def _become(command: Sequence[str], environment: dict[str, str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        if sys.platform == "win32":
            # There exec starts a process and leaves this one, whose shell would not wait.
            return subprocess.call(command, env=environment)  # noqa: S603  # what the user asks for
        os.execve(command[0], list(command), environment)  # noqa: S606  # what the user asks for
    except PermissionError as error:
        print(f"tracekit run: {command[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_EXECUTABLE
    except OSError as error:
        msg = f"{command[0]}: {error.strerror}"
        raise TracekitError(msg) from error
