"""Sending a request until the receiver has taken or refused it: when to try again, and what the log is told."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING, Final, Protocol, final

from tracekit._diagnostics import logger
from tracekit._fork import in_forked_child
from tracekit._threads import Empty, RLock, SimpleQueue
from tracekit.export.answer import Answer, Taken, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 30.0
_SHORTEST_ATTEMPT_S: Final = 0.05
# The first failure may be a connection that the receiver closed just then.
_FAILURES_TO_TELL: Final = 2
_TELL_EVERY_S: Final = 60.0
_UNAVAILABLE: Final = "takes no spans now"

# Not the module's own functions: a program may have seeded them, in each of its processes with the same number.
_random: Final = SystemRandom()


@final
@dataclass(frozen=True, slots=True)
class Trouble:
    """
    What a receiver last had against spans of this process.

    Args:
        what: What happened, for a reader: "refused spans".
        why: What it answered.
        at_s: When, in seconds since the epoch.
    """

    what: str
    why: str
    at_s: float


# By receiver; for whoever asks this process how it is.
troubles: Final[dict[str, Trouble]] = {}


class Transport(Protocol):
    """What makes one attempt."""

    def send(self, body: bytes, timeout_s: float) -> Answer:
        """Send *body* and return the answer, or that there was none within *timeout_s*."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


@final
class Sender:
    """
    Sends requests to one receiver; from any thread.

    Connections and their threads do not survive a fork, so none is made before the first request, nor in a forked
    child before its own.

    Args:
        receiver: What to call it before a reader.
        make: Makes the transport.
        timeout_s: Longest time for one attempt, in seconds.
        kept_in: Where spans are kept on disk that the receiver cannot take.

    Source: OTLP specification 1.5, OTLP/HTTP and OTLP/gRPC, throttling and retryable answers.
    """

    def __init__(
        self, receiver: str, make: Callable[[], Transport], timeout_s: float, kept_in: str | None = None
    ) -> None:
        self.timeout_s: Final = timeout_s
        self._receiver: Final = receiver
        self._meanwhile: Final = "trying again" if kept_in is None else f"they are kept in {kept_in} until it does"
        self._make: Final = make
        self._of_parent: list[Transport] = []
        self._transport: Transport | None = None
        self._is_closed = False
        self._impatient_until_s = 0.0
        self._begin()
        in_forked_child(self._begin)

    def _begin(self) -> None:
        if self._transport is not None:
            # Kept: its finalizer would close, in this process, a connection that the parent uses.
            self._of_parent.append(self._transport)
            self._transport = None
        # Two threads may come at once: with what is queued, and with what is on disk.
        self._making = RLock()
        self._nudges: SimpleQueue[None] = SimpleQueue()
        self._failures = 0
        self._down_until_s = 0.0
        self._told_at_s: dict[str, float] = {}
        troubles.pop(self._receiver, None)

    @property
    def is_down(self) -> bool:
        """Whether the receiver could not be reached, and it is too early to try again."""
        return time.monotonic() < self._down_until_s

    @property
    def is_patient(self) -> bool:
        """Whether anything is tried again at this time."""
        return not self._is_closed and time.monotonic() >= self._impatient_until_s

    @property
    def was_down(self) -> bool:
        """Whether the receiver could not be reached when last tried."""
        return self._failures > 0

    @property
    def down_for_s(self) -> float:
        """When to try again, in seconds from now."""
        return max(0.0, self._down_until_s - time.monotonic())

    def attempt(self, body: bytes, timeout_s: float | None = None) -> Answer:
        """Send *body* once."""
        if self._is_closed:
            return Unavailable("closed")
        transport = self._transport or self._made()
        answer = transport.send(body, self.timeout_s if timeout_s is None else min(timeout_s, self.timeout_s))
        self._learn(answer)
        return answer

    def _made(self) -> Transport:
        with self._making:
            if self._transport is None:
                self._transport = self._make()
            return self._transport

    def send(self, body: bytes, patience_s: float) -> Answer:
        """Send *body*, again and again for *patience_s* while the receiver cannot take it."""
        deadline_s = time.monotonic() + patience_s
        failures = 0
        while True:
            answer = self.attempt(body, max(_SHORTEST_ATTEMPT_S, deadline_s - time.monotonic()))
            if not isinstance(answer, Unavailable):
                return answer
            failures += 1
            delay_s = backoff_s(failures) if answer.retry_after_s is None else answer.retry_after_s
            if not self.is_patient or time.monotonic() + delay_s >= deadline_s:
                return answer
            if self._sleep(delay_s, is_asked_for=answer.retry_after_s is not None):
                failures = 0

    def hurry(self) -> None:
        """Try again now what waits for a better moment, unless the receiver has named one."""
        self._nudges.put(None)

    def lose_patience(self, for_s: float) -> None:
        """For so many seconds try nothing again: there is another place for it."""
        self._impatient_until_s = time.monotonic() + for_s
        self.hurry()

    def close(self) -> None:
        """Send nothing any more."""
        self._is_closed = True
        self.hurry()
        if self._transport is not None:
            self._transport.close()

    def _sleep(self, delay_s: float, *, is_asked_for: bool) -> bool:
        """Wait for *delay_s*; tells whether it was cut short."""
        until_s = time.monotonic() + delay_s
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                self._nudges.get(timeout=left_s)
            except Empty:
                return False
            if not self.is_patient or not is_asked_for:
                return True
        return False

    def _learn(self, answer: Answer) -> None:
        if isinstance(answer, Unavailable):
            self._failures += 1
            delay_s = backoff_s(self._failures) if answer.retry_after_s is None else answer.retry_after_s
            self._down_until_s = time.monotonic() + min(delay_s, 3_600.0)
            self._note(_UNAVAILABLE, answer.why)
            if self._failures == _FAILURES_TO_TELL and not self._is_closed:
                self._tell("unavailable", f"%s {_UNAVAILABLE} (%s); %s", answer.why, self._meanwhile)
            return
        if self._failures and self._trouble_is(_UNAVAILABLE):
            troubles.pop(self._receiver, None)
        was_told = self._failures >= _FAILURES_TO_TELL
        self._failures, self._down_until_s = 0, 0.0
        if was_told:
            logger.info("tracekit: %s takes spans again", self._receiver)
        if not isinstance(answer, Taken):
            self._note("refused spans", answer.why)
            self._tell("refused", "%s refused spans (%s)", answer.why)
        elif answer.rejected or answer.message:
            why = answer.message or f"{answer.rejected}"
            self._note("rejected spans", why)
            self._tell("rejected", "%s rejected spans (%s)", why)

    def _note(self, what: str, why: str) -> None:
        troubles[self._receiver] = Trouble(what, why, time.time())

    def _trouble_is(self, what: str) -> bool:
        trouble = troubles.get(self._receiver)
        return trouble is not None and trouble.what == what

    def _tell(self, kind: str, text: str, *why: str) -> None:
        """Warn, once a minute at most for each *kind*."""
        now_s = time.monotonic()
        if now_s >= self._told_at_s.get(kind, -_TELL_EVERY_S) + _TELL_EVERY_S:
            self._told_at_s[kind] = now_s
            logger.warning(f"tracekit: {text}", self._receiver, *why)


def backoff_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row; no two processes wait for the same time."""
    longest_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 16))
    return jittered(longest_s)


def jittered(time_s: float) -> float:
    """Return between half of *time_s* and all of it."""
    return _random.uniform(time_s / 2, time_s)
