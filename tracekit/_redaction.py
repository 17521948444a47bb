"""What is secret, by name, by look or by the program's own rule. It leaves the process as `[redacted]` only."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, final

from tracekit._diagnostics import FORGIVEN, forgive
from tracekit.redaction import REDACTED, SecretValue

__all__ = ["REDACTED", "Redactor", "Rule", "words"]

# Given a key and its value, tells whether to hide the value, or returns what to record instead.
Rule: TypeAlias = "Callable[[str, Any], object]"

DEFAULT_NAMES: Final = (
    "password",
    "passwd",
    "secret",
    "token",
    "authorization",
    "api_key",
    "apikey",
    "cookie",
    "credential",
    "private_key",
    "session_id",
    "ssn",
    "card_number",
    "cvv",
)

# No English word contains these, so they are found inside longer words too ("dbpassword"),
# and those of the second set end no common word ("authtoken"; but "tokenizer", "secretary" are harmless).
_INSIDE_WORDS: Final = frozenset(
    {"password", "passwd", "apikey", "credential", "authorization", "privatekey", "sessionid", "cardnumber"}
)
_ENDING_WORDS: Final = frozenset({"token", "secret", "cookie"})
# Numbers of tokens are what language models are paid by: `max_tokens`, `usage.input_tokens`, `token_count`.
_COUNTED_TOKENS: Final = frozenset({"input", "output", "prompt", "completion", "max", "min", "total", "num", "n"})
_TOKEN_COUNTS: Final = frozenset({"count", "counts", "usage", "limit"})

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")
_MAX_REMEMBERED: Final = 4_096


def words(name: str) -> list[str]:
    """Split *name* into lower-case words: `X-Api-Key`, `apiKey` and `api_key` all give api, key."""
    return [word.lower() for word in _WORD.findall(name)]


@final
class Redactor:
    """
    Tells secrets from harmless names and values; names by whole words, case-insensitive, in any spelling.

    Args:
        names: Names to hide besides `DEFAULT_NAMES`; several words match in sequence.
        patterns: Compiled expressions searched in the whole name.
        values: What secrets look like, whatever they are called.
        rules: Asked about each key and its value.
    """

    __slots__ = ("_answers", "_asking", "_patterns", "_phrases", "_rules", "_values", "reads_values")

    def __init__(
        self,
        names: Iterable[str] = (),
        patterns: Iterable[re.Pattern[str]] = (),
        values: Iterable[SecretValue] = (),
        rules: Iterable[Rule] = (),
    ) -> None:
        self._phrases = tuple(tuple(words(name)) for name in (*DEFAULT_NAMES, *names))
        self._patterns = tuple(patterns)
        self._values = tuple(values)
        self._rules = tuple(rules)
        self._answers: dict[str, bool] = {}
        self._asking = threading.local()
        # Names alone are asked about otherwise.
        self.reads_values: Final = bool(self._values or self._rules)

    def hides(self, name: str) -> bool:
        """Tell whether the value called *name* must not leave the process."""
        answer = self._answers.get(name)
        if answer is None:
            answer = self._decide(name)
            if len(self._answers) < _MAX_REMEMBERED:
                self._answers[name] = answer
        return answer

    def scrub(self, text: str) -> str:
        """Return *text* without what looks like a secret."""
        for value in self._values:
            try:
                text = value.hide(text)
            except FORGIVEN as error:  # the user's `is_secret`
                forgive("redact", "a SecretValue", error)
                return REDACTED
        return text

    def judge(self, key: str, value: Any) -> Any:
        """Return *value*, `[redacted]` or what a rule wants recorded in its place; any object at all."""
        for rule in self._rules:
            if getattr(self._asking, "now", False):
                # A rule that logs, or sets an attribute: what it says then is not asked about again.
                return REDACTED
            self._asking.now = True
            try:
                verdict = rule(key, value)
                if verdict is True:
                    return REDACTED
                if verdict is not None and verdict is not False:
                    value = verdict
            except FORGIVEN as error:  # user code
                forgive("redact", f"the rule {getattr(rule, '__name__', type(rule).__name__)!r}", error)
                return REDACTED
            finally:
                self._asking.now = False
        return value

    def _decide(self, name: str) -> bool:
        in_name = words(name)
        return any(_contains(in_name, phrase) for phrase in self._phrases) or any(
            pattern.search(name) for pattern in self._patterns
        )


def _contains(in_name: list[str], phrase: tuple[str, ...]) -> bool:
    size = len(phrase)
    if not size:
        return False
    joined = "".join(phrase)
    for start, word in enumerate(in_name):
        if joined == "token" and _counts_tokens(in_name, start):
            continue
        if word in (joined, joined + "s"):
            return True
        if joined in _INSIDE_WORDS and joined in word:
            return True
        if joined in _ENDING_WORDS and word.endswith((joined, joined + "s")):
            return True
        run = in_name[start : start + size]
        if len(run) == size and run[:-1] == list(phrase[:-1]) and run[-1] in (phrase[-1], phrase[-1] + "s"):
            return True
    return False


def _counts_tokens(in_name: list[str], place: int) -> bool:
    before, word, after = in_name[place - 1] if place else "", in_name[place], [*in_name, ""][place + 1]
    return (word == "tokens" and before in _COUNTED_TOKENS) or (word in ("token", "tokens") and after in _TOKEN_COUNTS)
