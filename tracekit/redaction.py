"""What secrets look like, whatever they are called: patterns for `configure(redact=[...])`, and how to make more."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, final

REDACTED: Final = "[redacted]"


@final
class SecretValue:
    """
    What one kind of secret looks like; it is hidden in values, messages, stack traces and keys, the rest of them stays.

    Args:
        pattern: A regular expression. Of a match its group `secret` is hidden; all of it if there is no such group.
        is_secret: Asked about the text of each match (None: every match is a secret).
    """

    __slots__ = ("_group", "_is_secret", "_pattern")

    def __init__(self, pattern: str | re.Pattern[str], is_secret: Callable[[str], bool] | None = None) -> None:
        self._pattern = re.compile(pattern)
        self._group = "secret" if "secret" in self._pattern.groupindex else 0
        self._is_secret = is_secret

    def __repr__(self) -> str:
        return f"SecretValue({self._pattern.pattern!r})"

    def hide(self, text: str) -> str:
        """Return *text* with `[redacted]` in the place of each such secret."""
        return self._pattern.sub(self._hidden, text)

    def _hidden(self, match: re.Match[str]) -> str:
        start, end = (place - match.start() for place in match.span(self._group))
        whole = match.group()
        if start < 0 or (self._is_secret is not None and not self._is_secret(match.group(self._group))):
            return whole
        return whole[:start] + REDACTED + whole[end:]


def _passes_luhn(text: str) -> bool:
    digits = [int(digit) for digit in text if digit.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


# Each expression starts with something rare or takes a bounded number of characters: texts may be 64 kB long.
BEARER_TOKENS: Final = SecretValue(r"(?i)\b(?:bearer|basic)\s{1,8}(?P<secret>[\w.~+/-]{6,}=*)")
JSON_WEB_TOKENS: Final = SecretValue(r"eyJ[\w-]{10,}(?:\.[\w-]*){0,2}")
CARD_NUMBERS: Final = SecretValue(
    r"(?<![0-9])(?=[2-6])"
    r"(?:[0-9]{13,19}|[0-9]{4}(?:[ -][0-9]{4}){2}[ -][0-9]{1,7}|[0-9]{4}[ -][0-9]{6}[ -][0-9]{5})(?![0-9])",
    _passes_luhn,
)
EMAIL_ADDRESSES: Final = SecretValue(r"[\w.!#$%&'*+=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
# Not a port: the colon of `http://localhost:8080/users/me@example.com` comes before no password.
URL_PASSWORDS: Final = SecretValue(r"""://[^\s/?#:@]{0,256}:(?![0-9]{1,5}(?:[/?#]|$))(?P<secret>[^\s"'<>]{1,512})@""")
CONNECTION_STRINGS: Final = SecretValue(
    r"(?i)(?:password|passwd|pwd|secret|token|api[_ -]?key|access[_ -]?key|account[_ -]?key)['\"]?\s{0,8}[=:]\s{0,8}"
    r"(?P<secret>\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|[^\s;,&\"']+)"
)

SECRET_VALUES: Final = (
    BEARER_TOKENS,
    JSON_WEB_TOKENS,
    CARD_NUMBERS,
    EMAIL_ADDRESSES,
    URL_PASSWORDS,
    CONNECTION_STRINGS,
)
