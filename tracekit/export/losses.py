"""Saying in the log that spans are lost: when it starts and once a minute, with totals, never for each span."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, final

from tracekit._diagnostics import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SAY_EVERY_S: Final = 60.0


@final
class Losses:
    """
    What the log knows of the spans one processor has dropped.

    Args:
        dropped: The spans dropped so far, by reason.
    """

    __slots__ = ("_dropped", "_next_line_s", "_said", "_saying")

    def __init__(self, dropped: Callable[[], Mapping[str, int]]) -> None:
        self._dropped: Final = dropped
        self.forget()

    def forget(self) -> None:
        """Begin anew (a forked child)."""
        self._said: Mapping[str, int] = {}
        self._next_line_s = 0.0
        self._saying = threading.Lock()

    def say(self, *, now: bool = False) -> None:
        """
        Log what has been dropped since the last line, if there is anything and a minute has passed.

        Args:
            now: Do not wait for the minute to pass.
        """
        if time.monotonic() < self._next_line_s and not now:
            return
        # Never waited for: a logging handler may end a span, and lose it too.
        if not self._saying.acquire(blocking=False):
            return
        try:
            self._write()
        except Exception:  # noqa: BLE001  # a log handler: the loss is counted all the same
            return
        finally:
            self._saying.release()

    def _write(self) -> None:
        dropped = self._dropped()
        news = {reason: spans - self._said.get(reason, 0) for reason, spans in dropped.items()}
        since = sum(news.values())
        if not since:
            return
        self._next_line_s = time.monotonic() + SAY_EVERY_S
        self._said = dropped
        lost = {reason: spans for reason, spans in news.items() if spans}
        reasons = ", ".join(f"{reason} {spans}" if len(lost) > 1 else reason for reason, spans in lost.items())
        total = sum(dropped.values())
        # The first time they are the same.
        so_far = f", {total} so far" if total != since else ""
        logger.warning("tracekit: spans dropped: %d (%s)%s", since, reasons, so_far)
