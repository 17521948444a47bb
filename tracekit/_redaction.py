"""Which names are secret. Values under such a name leave the process as `[redacted]` only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, final

REDACTED: Final = "[redacted]"

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
_INSIDE_WORDS: Final = frozenset({"password", "passwd", "apikey", "credential", "authorization"})
_ENDING_WORDS: Final = frozenset({"token", "secret", "cookie"})

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")
_MAX_REMEMBERED: Final = 4_096


def words(name: str) -> list[str]:
    """Split *name* into lower-case words: `X-Api-Key`, `apiKey` and `api_key` all give api, key."""
    return [word.lower() for word in _WORD.findall(name)]


@final
class Redactor:
    """
    Tells secret names from harmless ones; by whole words, case-insensitive, in any spelling.

    Args:
        names: Names to hide besides `DEFAULT_NAMES`; several words match in sequence.
        patterns: Compiled expressions searched in the whole name.
    """

    __slots__ = ("_answers", "_patterns", "_phrases")

    def __init__(self, names: Iterable[str] = (), patterns: Iterable[re.Pattern[str]] = ()) -> None:
        self._phrases = tuple(tuple(words(name)) for name in (*DEFAULT_NAMES, *names))
        self._patterns = tuple(patterns)
        self._answers: dict[str, bool] = {}

    def hides(self, name: str) -> bool:
        """Tell whether the value called *name* must not leave the process."""
        answer = self._answers.get(name)
        if answer is None:
            answer = self._decide(name)
            if len(self._answers) < _MAX_REMEMBERED:
                self._answers[name] = answer
        return answer

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
