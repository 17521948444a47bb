"""How far a long reading has come, on standard error where that is a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, final

from typing_extensions import Self

if TYPE_CHECKING:
    from types import TracebackType

_FIRST_S: Final = 0.5
_EVERY_S: Final = 0.1
_CELLS: Final = 30
_MB: Final = 1_000_000


@final
class Progress:
    """
    A bar that is drawn over and over in one line, and gone when the `with` block ends; nothing where nobody looks.

    Args:
        total: How many bytes there are to read; 0 if nobody knows.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._read = 0
        self._is_shown = sys.stderr.isatty()
        self._next_s = time.monotonic() + _FIRST_S
        self._drawn = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._drawn:
            self._draw("")

    def add(self, size: int) -> None:
        """Count *size* more bytes as read."""
        self._read += size
        if self._is_shown and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _EVERY_S
            self._draw(self._text())

    def _text(self) -> str:
        size = f"{self._read / _MB:,.0f} MB"
        if not self._total:
            return f"reading {size}"
        share = min(1.0, self._read / self._total)
        return f"reading [{'#' * int(share * _CELLS):.<{_CELLS}}] {share:4.0%} of {self._total / _MB:,.0f} MB"

    def _draw(self, text: str) -> None:
        # Spaces instead of a code that clears the line: any terminal knows them.
        sys.stderr.write(f"\r{text.ljust(self._drawn)}" + ("" if text else "\r"))
        sys.stderr.flush()
        self._drawn = len(text)
