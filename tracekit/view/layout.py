"""How views are written: how wide, in which colours and characters. All text of spans goes through here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TextIO, final

from tracekit.export.text import CUT, columns_of, fitted, for_encoding, printable, wants_color
from tracekit.export.tree import TreeOptions, trace_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from tracekit.export.record import SpanRecord

# Where no terminal says it: a file, a pipe.
_COLUMNS: Final = 100
_MIN_COLUMNS: Final = 40
_MAX_COLUMNS: Final = 240
_MAX_TEXT: Final = 500

BOLD, DIM, RED, CYAN = "1", "2", "1;31", "36"
# For services, in the order in which they come.
SERVICE_COLORS: Final = ("34", "32", "35", "33", "36", "94", "92", "95")


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """
    How a view is written.

    Args:
        columns: How wide.
        color: Whether to use terminal colours.
        encoding: The encoding of where it is written; None for any character.
    """

    columns: int = _COLUMNS
    color: bool = False
    encoding: str | None = None

    @classmethod
    def of(cls, stream: TextIO) -> Self:
        """Return the layout that suits *stream*."""
        columns = shutil.get_terminal_size((_COLUMNS, 0)).columns
        return cls(
            min(_MAX_COLUMNS, max(_MIN_COLUMNS, columns)), wants_color(stream), getattr(stream, "encoding", None)
        )

    @property
    def tree(self) -> TreeOptions:
        """The same for trees."""
        return TreeOptions(color=self.color)

    def paint(self, code: str, text: str) -> str:
        """Return *text* in the colour *code*, if there are colours."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.color and text else text

    def text(self, text: str, limit: int = _MAX_TEXT) -> str:
        """Return somebody else's *text* so that it can be written: one line, no control characters."""
        return for_encoding(printable(text, limit), self.encoding)

    def header(self, spans: Sequence[SpanRecord], note: str = "") -> str:
        """Return the line that names the trace of *spans*."""
        return for_encoding(trace_header(spans, self.tree, note), self.encoding)

    def fitted(self, text: str, columns: int) -> str:
        """Return *text*, made by `text`, in exactly so many *columns*."""
        return fitted(text, columns, for_encoding(CUT, self.encoding))

    def columns_of(self, text: str) -> int:
        """Return how many columns *text* takes."""
        return columns_of(text)
