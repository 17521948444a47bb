"""`tracekit view`: the traces of files, as trees, waterfalls, critical paths or one table."""

from __future__ import annotations

import argparse
import errno
import glob
import os
import sqlite3
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from tracekit.cli.progress import Progress
from tracekit.errors import TracekitError
from tracekit.export.text import printable
from tracekit.view import report
from tracekit.view.following import Follower, GrowingFile, GrowingPipe
from tracekit.view.layout import Layout
from tracekit.view.reading import SpanReader
from tracekit.view.selection import Selection, duration_ns, time_ns
from tracekit.view.sorting import SortedSpans
from tracekit.view.summary import Summary, render_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from tracekit.export.record import SpanRecord
    from tracekit.view.following import Arrival

_STDIN: Final = "-"
_STDOUT: Final = "-"
_MAX_PATH: Final = 4_096
_MB: Final = 1_000_000

_DESCRIPTION: Final = """\
Show the traces of OTLP/JSON files: what called what, how long it took, why it failed.

Files are those of configure(exporter="file:traces.jsonl"), of the OpenTelemetry Collector's file exporter, and what
backends such as Tempo give out: one request a line or a formatted document, plain or gzip. Spans of one trace are
joined, in whichever files they are.
"""
_EPILOG: Final = """\
examples:
  tracekit view traces.jsonl                           every trace as a tree, the oldest first
  tracekit view orders.jsonl payments.jsonl            spans of several services, joined
  tracekit view --errors --since 10m traces.jsonl      what failed lately: the exception, its line, the way to it
  tracekit view --slow 500ms --waterfall traces.jsonl  what took half a second and more, as bars
  tracekit view --name "db.*" --slow 50ms traces.jsonl traces in which a db.* span took that long
  tracekit view --trace 4bf92f35 --critical-path traces.jsonl
                                                       what one trace had to wait for
  tracekit view --summary traces.jsonl                 calls, errors, p50/p95/p99 and self time of each operation
  tracekit view --limit 1 traces.jsonl                 the newest trace
  tracekit view --html traces.html traces.jsonl        one page for the browser: search, zoom, every attribute
  tracekit view --follow traces.jsonl                  traces as they come; Ctrl-C ends it
  zcat traces-*.gz | tracekit view -                   a pipe (gzip files can also be named as they are)

no trace at hand? `tracekit demo --save traces.jsonl` makes some, one of them with a bug to find.

exit status:
  0  something was shown
  1  nothing to show: no trace is as asked for, or there are no spans in the files
  2  wrong arguments, or a file cannot be read
Lines that cannot be read are left out, counted on standard error, and change none of these.
"""


class ViewError(TracekitError):
    """A file cannot be read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does and takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.add_argument("files", nargs="+", metavar="FILE", help="a trace file, a pattern of them, or - for a pipe")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is appended, also after rotation")
    parser.set_defaults(run=run)

    wanted = parser.add_argument_group("which traces (all that is asked for must hold)")
    wanted.add_argument("--trace", metavar="ID", default="", help="whose id begins so")
    wanted.add_argument(
        "--name",
        metavar="PATTERN",
        default="",
        help="with a span of that name; --errors and --slow then mean that span",
    )
    wanted.add_argument("--errors", action="store_true", help="with a failed span")
    wanted.add_argument("--slow", metavar="TIME", type=_duration, default=0, help="that took so long: 250ms, 1.5s, 2m")
    wanted.add_argument(
        "--since", metavar="TIME", type=_time, default=0, help="not over before: 10m, 2h, 2026-03-01T14:30"
    )
    wanted.add_argument("--limit", metavar="N", type=_limit, default=-1, help="the newest N; rows of --summary")

    views = parser.add_argument_group("how (trees if nothing is said)").add_mutually_exclusive_group()
    views.add_argument("--waterfall", action="store_true", help="a bar for each span, from its start to its end")
    views.add_argument("--critical-path", action="store_true", help="the spans that each trace had to wait for")
    views.add_argument("--summary", action="store_true", help="a table of all operations, by self time")
    views.add_argument("--html", metavar="OUT", help="one page for the browser, which needs no network; - for a pipe")


def run(arguments: argparse.Namespace) -> int:
    """
    Show the traces and return the exit status.

    Raises:
        ViewError: A file cannot be read.
    """
    try:
        if arguments.follow:
            return _follow(arguments)
        return _view(arguments)
    except sqlite3.Error as error:
        msg = f"spans cannot be sorted in the directory for temporary files ({error}); set TMPDIR to one with more room"
        raise ViewError(msg) from error


def _view(arguments: argparse.Namespace) -> int:
    names = [*_expanded(arguments.files)]
    selection = _selection(arguments)
    with SortedSpans(selection) as spans:
        _read(names, spans)
        if arguments.html:
            shown = _write_html(arguments, spans)
        else:
            shown = _show_summary(arguments, spans, selection) if arguments.summary else _show_traces(arguments, spans)
        if not shown:
            print(_nothing_text(arguments, spans), file=sys.stderr)
    return 0 if shown else 1


def _nothing_text(arguments: argparse.Namespace, spans: SortedSpans) -> str:
    if not spans.size:
        return "no spans in these files"
    traces = spans.count_traces()
    if not traces:
        return f"no trace has an id that begins with {arguments.trace}"
    return f"none of {traces:,} traces is as asked for" if traces > 1 else "the only trace is not as asked for"


def _show_traces(arguments: argparse.Namespace, spans: SortedSpans) -> int:
    layout, write = Layout.of(sys.stdout), _writer(arguments)
    shown = 0
    for trace in spans.traces(arguments.limit):
        if shown:
            sys.stdout.write("\n")
        sys.stdout.write(write(trace.spans, layout, ""))
        shown += 1
        if trace.left_out:
            print(_left_out_text(trace.spans[0].trace_id, trace.left_out), file=sys.stderr)
    return shown


def _show_summary(arguments: argparse.Namespace, spans: SortedSpans, selection: Selection) -> int:
    summary = Summary(selection)
    left_out: list[str] = []
    with Progress("adding up", spans.size, "spans") as progress:
        for trace in spans.traces():
            summary.add(trace.spans)
            progress.add(len(trace.spans))
            if trace.left_out:
                left_out.append(_left_out_text(trace.spans[0].trace_id, trace.left_out))
    for text in left_out:
        print(text, file=sys.stderr)
    if summary.spans:
        sys.stdout.write(render_summary(summary, Layout.of(sys.stdout), arguments.limit))
    return summary.spans


def _write_html(arguments: argparse.Namespace, spans: SortedSpans) -> int:
    """Write the page, also where it has nothing to show: who opens it should not see the one of last time."""
    from tracekit.view.page import save_page, write_page

    def wanted() -> Iterator[SpanRecord]:
        for trace in spans.traces(arguments.limit):
            yield from trace.spans
            if trace.left_out:
                print(_left_out_text(trace.spans[0].trace_id, trace.left_out), file=sys.stderr)

    title = ", ".join("standard input" if name == _STDIN else Path(name).name for name in arguments.files[:3])
    if arguments.html == _STDOUT:
        written = write_page(sys.stdout.buffer, wanted(), title=title)
    else:
        out = Path(arguments.html)
        if out.is_file() and any(name != _STDIN and out.samefile(name) for name in _expanded(arguments.files)):
            msg = f"{_shown(arguments.html)} is one of the files to read: name another one after --html"
            raise ViewError(msg)
        with _unreadable(arguments.html):
            written = save_page(out, wanted(), title=title)
    if written.left_out:
        print(
            f"{written.left_out:,} spans of the newest traces are not in the page: say which with --since or --limit",
            file=sys.stderr,
        )
    return written.spans


def _left_out_text(trace_id: str, left_out: int) -> str:
    return f"trace {trace_id}: its last {left_out:,} spans were left out, one trace must fit into memory"


def _follow(arguments: argparse.Namespace) -> int:
    """Show traces until there is no more to come: for files, until somebody ends it."""
    if arguments.html:
        msg = "--html waits for the end of the files, which --follow never sees; `tracekit serve` has a page that grows"
        raise ViewError(msg)
    if arguments.summary or arguments.limit >= 0:
        option = "--summary" if arguments.summary else "--limit"
        msg = f"{option} waits for the end of the files, which --follow never sees: leave one of them out"
        raise ViewError(msg)
    names = [*_expanded(arguments.files, may_be_missing=True)]
    follower = Follower([GrowingPipe(0) if name == _STDIN else GrowingFile(Path(name)) for name in names])
    layout, write, selection = Layout.of(sys.stdout), _writer(arguments), _selection(arguments)
    shown = 0

    def show(arrivals: Iterator[Arrival]) -> None:
        nonlocal shown
        for spans, is_late in arrivals:
            if selection.wants(spans):
                sys.stdout.write(("\n" if shown else "") + write(spans, layout, "late" if is_late else ""))
                sys.stdout.flush()
                shown += 1

    try:
        with _unreadable(*names):
            show(follower.traces())
    finally:
        # Ctrl-C is how it ends: what waited for more is not kept back.
        show(follower.rest())
        _say_damage(follower.malformed_lines)
    return 0 if shown else 1


def _read(names: Sequence[str], spans: SortedSpans) -> None:
    malformed_lines = 0
    with Progress("reading", sum(map(_size, names)), "MB", _MB) as progress:
        for name in names:
            reader = SpanReader()
            with _unreadable(name), _opened(name) as file:
                for batch in reader.read(file, progress.add):
                    spans.add(batch)
            malformed_lines += reader.malformed_lines
    _say_damage(malformed_lines)


def _say_damage(lines: int) -> None:
    if lines:
        what = "1 line holds no spans" if lines == 1 else f"{lines:,} lines hold no spans"
        print(f"{what}, or some that cannot be read, which were left out", file=sys.stderr)


def _selection(arguments: argparse.Namespace) -> Selection:
    return Selection(
        trace=arguments.trace.lower(),
        name=arguments.name,
        errors=arguments.errors,
        slow_ns=arguments.slow,
        since_ns=arguments.since,
    )


def _writer(arguments: argparse.Namespace) -> Callable[[Sequence[SpanRecord], Layout, str], str]:
    if arguments.waterfall:
        return report.waterfall
    return report.path if arguments.critical_path else report.tree


def _expanded(names: Sequence[str], *, may_be_missing: bool = False) -> Iterator[str]:
    """
    Yield *names*, patterns as the files they match: shells of Windows leave that to the command.

    Raises:
        ViewError: One is there, but no file, or nothing is there.
    """
    for name in names:
        path = Path(name)
        with _unreadable(name):
            is_file, is_directory = path.is_file(), path.is_dir()
        if name == _STDIN or is_file:
            yield name
        elif is_directory:
            msg = f"{_shown(name)} is a directory: name the files in it, {_shown(str(path / '*.jsonl'))}"
            raise ViewError(msg)
        elif matches := sorted(glob.glob(name)):  # noqa: PTH207  # Path.glob takes no absolute patterns
            yield from matches
        elif not path.exists() and not may_be_missing:
            msg = f"{_shown(name)}: {os.strerror(errno.ENOENT)}"
            raise ViewError(msg)
        else:
            yield name


def _size(name: str) -> int:
    return 0 if name == _STDIN else Path(name).stat().st_size


@contextmanager
def _opened(name: str) -> Generator[BinaryIO, None, None]:
    if name == _STDIN:
        if cast("object", sys.stdin) is None:  # `<&-`, or Windows without a console
            msg = "standard input is closed: name a file, or let a program write into a pipe"
            raise ViewError(msg)
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


@contextmanager
def _unreadable(*names: str) -> Generator[None, None, None]:
    """Say which file an error is about."""
    try:
        yield
    except BrokenPipeError:  # of standard output
        raise
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else ", ".join(names)
        msg = f"{_shown(name)}: {error.strerror or error}"
        raise ViewError(msg) from error


def _shown(path: str) -> str:
    """Return *path* as it may be printed: names of files are no friends either."""
    return printable(path, _MAX_PATH)


def _duration(text: str) -> int:
    try:
        return duration_ns(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _time(text: str) -> int:
    try:
        return time_ns(text, time.time_ns())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _limit(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        msg = f"{text!r} is no number of traces; write 1 or more"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
