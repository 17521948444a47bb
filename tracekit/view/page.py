"""
The page that shows traces in a browser: one HTML file with its style, its code and its data. It loads nothing.

No text of a trace becomes HTML or code: it stands in the page as JSON, the page's code writes it with `textContent`
only, and the content security policy lets nothing run but the code whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, final

from tracekit.view.rows import Resources, span_row, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracekit.export.record import SpanRecord

# In this order: they are one program.
_SCRIPTS: Final = (
    "dom.js",
    "format.js",
    "spans.js",
    "search.js",
    "theme.js",
    "rows.js",
    "traces.js",
    "range.js",
    "waterfall.js",
    "flame.js",
    "details.js",
    "live.js",
    "page.js",
)
_DATA: Final = "{{data}}"
_MAX_SPANS: Final = 200_000


@final
@dataclass(frozen=True, slots=True)
class Written:
    """What is in a page: its *spans*, and how many more there were than a browser should hold."""

    spans: int
    left_out: int


def save_page(path: Path, spans: Iterable[SpanRecord], *, title: str, max_spans: int = _MAX_SPANS) -> Written:
    """
    Write the page of *spans* to the file at *path*: all of it, or the file stays what it was.

    Args:
        path: The file; traces may hold personal data, so its owner alone may read it.
        spans: The spans, those to keep first.
        title: What the page calls them: the name of a file.
        max_spans: Leave out and count what is more.

    Raises:
        OSError: The file cannot be written.
    """
    # A temporary file is its owner's (0600).
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        error.filename = str(path)  # what was asked for, not the temporary file
        raise
    try:
        with os.fdopen(descriptor, "wb") as out:
            written = write_page(out, spans, title=title, max_spans=max_spans)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
    return written


def write_page(out: BinaryIO, spans: Iterable[SpanRecord], *, title: str, max_spans: int = _MAX_SPANS) -> Written:
    """Write the page of *spans* to *out*; the arguments are those of `save_page`."""
    before, after = _page(connect="'none'")
    written = left_out = 0
    resources = Resources()
    out.write(before)
    out.write(b'{"spans":[')
    for span in spans:
        if written == max_spans:
            left_out += 1
            continue
        row = to_json(span_row(span, resources.number_of(span)))
        out.write(f"{',' if written else ''}\n{row}".encode("ascii"))
        written += 1
    out.write(f'\n],"resources":[{",".join(resources.rows())}],'.encode("ascii"))
    out.write(f'"title":{to_json(title)},"leftOut":{left_out}}}'.encode("ascii"))
    out.write(after)
    return Written(written, left_out)


def live_page(**settings: Any) -> bytes:
    """Return the page that asks the server it comes from for its spans, with *settings* for its code."""
    before, after = _page(connect="'self'")
    return before + to_json({"live": settings}).encode("ascii") + after


def content_security_policy(*, connect: str) -> str:
    """Return the policy of a page that may connect to *connect*."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(_script())}",
            f"style-src {_hash(_asset('page.css'))}",
            "img-src data:",
            f"connect-src {connect}",
            "base-uri 'none'",
            "form-action 'none'",
            # `innerHTML` and its like raise, whoever calls them.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


@cache
def _page(*, connect: str) -> tuple[bytes, bytes]:
    """Return what stands before the data and what after it."""
    text = _asset("page.html")
    for name, part in (
        ("{{policy}}", content_security_policy(connect=connect)),
        ("{{style}}", _asset("page.css")),
        ("{{script}}", _script()),
    ):
        text = text.replace(name, part)
    before, _, after = text.partition(_DATA)
    return before.encode("utf-8"), after.encode("utf-8")


@cache
def _script() -> str:
    return "\n".join(_asset(name) for name in _SCRIPTS)


@cache
def _asset(name: str) -> str:
    return (files("tracekit.view") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
