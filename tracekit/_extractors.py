"""The words users say what to record with: `arg(...)`, `result(...)`, `SpanAttribute(...)`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast, final

from tracekit.errors import InstrumentationError


@final
class SpanAttribute:
    """
    Mark a parameter in `Annotated` as an attribute: `order_id: Annotated[int, SpanAttribute("order.id")]`.

    Args:
        key: The attribute's key; None takes the parameter's name.

    Raises:
        InstrumentationError: *key* is no non-empty string.
    """

    __slots__ = ("key",)

    def __init__(self, key: str | None = None) -> None:
        if key is not None and not is_name(key):
            msg = f"SpanAttribute got {key!r} as its key, expected a non-empty string. Write SpanAttribute('order.id')."
            raise InstrumentationError(msg)
        self.key = key

    def __repr__(self) -> str:
        return f"SpanAttribute({self.key!r})"


@final
class Path:
    """A dotted way into an argument or a result; made by `arg` and `result`."""

    __slots__ = ("of_result", "steps", "text")

    def __init__(self, text: str, *, of_result: bool) -> None:
        verb, example = ("result", "result('status')") if of_result else ("arg", "arg('order.id')")
        names = text.split(".") if is_name(text) else [""]
        if not all(names) and not (of_result and text == ""):
            msg = f"{verb}({text!r}) got {text!r}, expected names joined by dots. Write {example}."
            raise InstrumentationError(msg)
        self.text = text
        self.steps: tuple[str, ...] = tuple(names) if text else ()
        self.of_result = of_result

    def __repr__(self) -> str:
        return f"{'result' if self.of_result else 'arg'}({self.text!r})"


def arg(path: str) -> Path:
    """
    Return an extractor of *path*: a parameter, then attributes, keys or indexes, as in `arg("order.items.0.sku")`.

    Raises:
        InstrumentationError: *path* is not names joined by dots.
    """
    return Path(path, of_result=False)


def result(path: str = "") -> Path:
    """
    Return an extractor of *path* in the return value; an empty path is the return value itself.

    Raises:
        InstrumentationError: *path* is not names joined by dots.
    """
    return Path(path, of_result=True)


def is_name(given: object) -> bool:
    """Tell whether *given* is a non-empty string."""
    return isinstance(given, str) and given != ""


def follow(value: Any, steps: Iterable[str]) -> Any:
    """
    Return what *steps* lead to from *value*: each one is a key of a mapping, an index of a sequence, or an attribute.

    Raises:
        LookupError: A key or an index is not there.
        AttributeError: An attribute is not there.
    """
    for step in steps:
        # type(): a `__class__` may lie.
        kind = cast("Any", type(value))
        if issubclass(kind, Mapping):
            value = value[step]
        elif issubclass(kind, Sequence) and step.lstrip("-").isdecimal():
            value = value[int(step)]
        else:
            value = getattr(value, step)
    return value
