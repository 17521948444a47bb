"""How far something long has come, on standard error where that is a terminal."""

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


@final
class Progress:
    """
    A bar that is drawn over and over in one line, and gone when the `with` block ends; nothing where nobody looks.

    Args:
        doing: What is done.
        total: How much of it there is to do; 0 if nobody knows.
        unit: What it is counted in.
        per_unit: How much makes one of these.
    """

    def __init__(self, doing: str, total: int, unit: str, per_unit: int = 1) -> None:
        self._doing, self._total, self._unit, self._per_unit = doing, total, unit, per_unit
        self._done = 0
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
        """Count *size* more as done."""
        self._done += size
        if self._is_shown and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _EVERY_S
            self._draw(self._text())

    def _text(self) -> str:
        if not self._total:
            return f"{self._doing} {self._done / self._per_unit:,.0f} {self._unit}"
        share = min(1.0, self._done / self._total)
        whole = f"{self._total / self._per_unit:,.0f} {self._unit}"
        return f"{self._doing} [{'#' * int(share * _CELLS):.<{_CELLS}}] {share:4.0%} of {whole}"

    def _draw(self, text: str) -> None:
        # Spaces instead of a code that clears the line: any terminal knows them.
        sys.stderr.write(f"\r{text.ljust(self._drawn)}" + ("" if text else "\r"))
        sys.stderr.flush()
        self._drawn = len(text)
