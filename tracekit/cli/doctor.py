"""`tracekit doctor`: what is installed, what is set and by what, whether spans arrive, and what became of them."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tracekit._environment import Environment
from tracekit.diagnosis.report import Report
from tracekit.errors import TracekitError
from tracekit.export.text import for_encoding, wants_color

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from tracekit.export.connection import Connection

_DESCRIPTION: Final = """\
Look at what decides whether spans arrive: versions, every setting and where it comes from, libraries that are or could
be traced, and the receiver: its name, connection, certificate and protocol. Secrets are not shown.
"""
_EPILOG: Final = """\
examples:
  tracekit doctor                                  what the environment says
  tracekit doctor --send                           and send a test span
  tracekit doctor --endpoint http://localhost:4317 --send
  tracekit doctor --pid 4711                       what became of the spans of a process started with TRACEKIT_STATUS=1
  tracekit doctor --json

exit status: 0 no problem (there may be warnings), 1 a problem, 2 wrong arguments
"""
_OPTIONS: Final = ("service", "environment", "exporter", "endpoint", "protocol", "insecure")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command to *parser*."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("--send", action="store_true", help="send a test span, and tell what the receiver answers")
    parser.add_argument(
        "--pid", metavar="PID", action="append", default=[], help="a process to ask, or all; may be given again"
    )
    parser.add_argument("--verbose", action="store_true", help="show the settings that have their defaults too")
    parser.add_argument("--json", action="store_true", help="write JSON, always of everything")
    given = parser.add_argument_group("as the program gives them to configure()")
    given.add_argument("--service", metavar="NAME")
    given.add_argument("--environment", metavar="NAME")
    given.add_argument("--exporter", metavar="WHERE", help="otlp, console, file:PATH, none")
    given.add_argument("--endpoint", metavar="URL")
    given.add_argument("--protocol", choices=("grpc", "http/protobuf"))
    given.add_argument("--insecure", action=argparse.BooleanOptionalAction)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Find everything out, print it, and return the exit status."""
    given = {name: getattr(arguments, name) for name in _OPTIONS}
    report = Report()
    with _without_variables() as variables:
        if arguments.pid:
            from tracekit.diagnosis.processes import check_processes

            check_processes(report, arguments.pid, variables)
        else:
            _check(report, given, variables, send=arguments.send)
    if arguments.json:
        print(report.json())
    else:
        text = report.text(color=wants_color(sys.stdout), is_verbose=arguments.verbose)
        sys.stdout.write(for_encoding(text, sys.stdout.encoding))
    return 1 if report.status == "fail" else 0


def _check(report: Report, given: Mapping[str, Any], variables: Mapping[str, str], *, send: bool) -> None:
    from tracekit.diagnosis.libraries import check_libraries
    from tracekit.diagnosis.receiver import check_receiver
    from tracekit.diagnosis.settings import check_settings
    from tracekit.diagnosis.versions import check_versions

    check_versions(report)
    check_settings(report, given, variables)
    check_libraries(report)
    connection = _connection(report, given, variables, send=send)
    if connection is None:
        return
    check_receiver(report, connection)
    if send:
        from tracekit.diagnosis.sending import check_sending

        check_sending(report, connection, given, variables)


def _connection(
    report: Report, given: Mapping[str, Any], variables: Mapping[str, str], *, send: bool
) -> Connection | None:
    """Add where spans go; return how to reach it, if that is a receiver."""
    from tracekit.configuration.exporters import ExportOptions, sinks_of
    from tracekit.export.connection import resolve_connection

    environment = Environment(variables)
    to = {name: given[name] for name in ("endpoint", "protocol", "insecure")}
    try:
        exporter = given["exporter"]
        chosen = [word.strip() for word in exporter.split(",")] if exporter else "auto"
        sinks = sinks_of(chosen, ExportOptions(**to), environment)
        others = [sink.label for sink in sinks if sink.metrics != "otlp"]
        if others or not sinks:
            report.add(
                "receiver", "exporter", "info", f"spans go to: {', '.join(others) or 'nowhere'}", exporters=others
            )
        if not send and len(others) == len(sinks):
            return None
        return resolve_connection(environment, "traces", **to)
    except TracekitError as error:
        # Unless a variable alone is wrong, which has been said.
        if all(finding.message != str(error) for finding in report.findings):
            report.add("receiver", "endpoint", "fail", str(error))
        return None


@contextmanager
def _without_variables() -> Generator[Mapping[str, str], None, None]:
    """
    Take OpenTelemetry's variables out of the environment, and give them to who looks at them.

    Some of its packages read them when they are imported, and fail then.
    """
    variables = dict(os.environ)
    taken = {name: value for name, value in variables.items() if name.startswith("OTEL_")}
    handler = logging.NullHandler()
    # What it logs is about its own doings here.
    logging.getLogger("tracekit").addHandler(handler)
    for name in taken:
        del os.environ[name]
    try:
        yield variables
    finally:
        os.environ.update(taken)
        logging.getLogger("tracekit").removeHandler(handler)
