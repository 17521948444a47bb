"""
Random generator functions, and random ways to consume them: what a traced generator is compared with.

A body is written out as Python source, because only source has all of Python's semantics: what `except` and `finally`
do to a `yield`, which exception is the context of which.
"""

from __future__ import annotations

import asyncio
import sys
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

    from hypothesis.strategies import SearchStrategy


class RefusedError(Exception):
    """An application's own exception, with arguments of its own."""


RAISED: Final = (
    *("ValueError(1)", "RefusedError('no', 2)", "StopIteration(3)", "StopAsyncIteration(4)", "GeneratorExit()"),
    *("KeyboardInterrupt()", "CancelledError()", "RuntimeError('mine')"),
)
CAUGHT: Final = ("ValueError", "Exception", "BaseException", "GeneratorExit", "(StopIteration, RuntimeError)")
THROWN: Final[tuple[Callable[[], BaseException], ...]] = (
    lambda: ValueError(9),
    lambda: RefusedError("thrown", 8),
    GeneratorExit,
    lambda: StopIteration(7),
    lambda: StopAsyncIteration(6),
    KeyboardInterrupt,
    asyncio.CancelledError,
)

_SIMPLE: Final = (
    *("saw((yield 1))", "saw((yield 2))", "yield 3", "saw(handled())", "saw(current())", "raise"),
    *("raise ValueError(5) from KeyError(6)", *(f"raise {made}" for made in RAISED)),
)


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _try(body: list[str], caught: str | None, handler: list[str], last: list[str] | None) -> list[str]:
    lines = ["try:", *_indented(body)]
    if caught is not None:
        lines += [f"except {caught}:", *_indented(handler)]
    if last is not None or caught is None:
        lines += ["finally:", *_indented(last or ["saw('finally')"])]
    return lines


def _compound(blocks: SearchStrategy[list[str]], *, is_async: bool) -> SearchStrategy[list[str]]:
    nested = [
        st.builds(_try, blocks, st.sampled_from(CAUGHT), blocks, st.none() | blocks),
        st.builds(_try, blocks, st.none(), st.just(["pass"]), blocks),
        st.builds(lambda body: ["for _ in range(2):", *_indented(body)], blocks),
    ]
    if not is_async:
        nested.append(
            st.builds(lambda body: ["def part():", "    yield 0", *_indented(body), "saw((yield from part()))"], blocks)
        )
    return st.one_of(nested)


def _blocks(*, is_async: bool) -> SearchStrategy[list[str]]:
    leaving = ("return",) if is_async else ("return", "return 'value'")
    simple = (*_SIMPLE, *leaving, *(("await pause()", "saw(await pause())") if is_async else ()))
    # Yields come first: the simplest body that Hypothesis shrinks to should be one that yields.
    statement = st.sampled_from(simple).map(lambda line: [line])

    def extend(inner: SearchStrategy[list[str]]) -> SearchStrategy[list[str]]:
        block = st.lists(inner, min_size=1, max_size=4).map(lambda parts: [line for part in parts for line in part])
        return _compound(block, is_async=is_async) | block

    return st.recursive(statement, extend, max_leaves=12)


class Body(NamedTuple):
    """A generator function, as source; *make* compiles it, with the names its code uses."""

    source: str

    def make(self, saw: Callable[[object], None], current: Callable[[], object]) -> Callable[[], Any]:
        def handled() -> object:
            return shape(sys.exc_info()[1])

        scope: dict[str, Any] = {
            "saw": saw,
            "current": current,
            "handled": handled,
            "pause": pause,
            "RefusedError": RefusedError,
            "CancelledError": asyncio.CancelledError,
            "__name__": "bodies",
        }
        exec(compile(self.source, "<body>", "exec"), scope)
        function: Callable[[], Any] = scope["body"]
        return function


def bodies(*, is_async: bool) -> SearchStrategy[Body]:
    """Make sources of generator functions, or async ones, without parameters."""
    head = "async def body():" if is_async else "def body():"

    def write(lines: list[str]) -> Body:
        return Body("\n".join([head, "    if False: yield", "    saw('started')", *_indented(lines), ""]))

    return _blocks(is_async=is_async).map(write)


class Step(NamedTuple):
    """
    One thing a consumer does.

    Args:
        kind: "send", "throw", "close", or "cancel": send, and raise CancelledError where the body awaits.
        value: What is sent (an int or None), or what makes the exception that is thrown.
        while_handling: Whether the consumer is handling an exception of its own meanwhile.
    """

    kind: str
    value: Any = None
    while_handling: bool = False


def steps(*, is_async: bool) -> SearchStrategy[list[Step]]:
    """Make what consumers do, in a row."""
    flags = st.booleans()
    kinds = [
        st.builds(Step, st.just("send"), st.none(), flags),
        st.builds(Step, st.just("send"), st.none() | st.integers(10, 12), flags),
        st.builds(Step, st.just("throw"), st.sampled_from(THROWN), flags),
        st.builds(Step, st.just("close"), st.none(), flags),
    ]
    if is_async:
        kinds.append(st.builds(Step, st.just("cancel"), st.none(), flags))
    return st.lists(st.one_of(kinds), max_size=7)


def shape(exc: BaseException | None) -> object:
    """Return what can be compared of *exc*: its type, arguments, cause and context, all the way down."""
    return _shape(exc, ())


def _shape(exc: BaseException | None, seen: tuple[int, ...]) -> object:
    if exc is None:
        return None
    if id(exc) in seen:
        return "again"
    seen = (*seen, id(exc))
    # The text of Python's own RuntimeError names the function in some versions: the first word is enough.
    return (
        type(exc).__name__,
        exc.args,
        _shape(exc.__cause__, seen),
        _shape(exc.__context__, seen),
        exc.__suppress_context__,
    )


def answer(generator: Generator[Any, Any, Any], step: Step) -> object:
    """Take *step* and return what came of it, in a form that can be compared."""

    def take() -> object:
        if step.kind == "throw":
            return generator.throw(step.value())
        if step.kind == "close":
            return generator.close()
        return generator.send(step.value)

    return _answer(take, step)


def async_answer(generator: AsyncGenerator[Any, Any], step: Step) -> object:
    """Take *step*, running it to its end without an event loop, and return what came of it."""

    def take() -> object:
        if step.kind == "throw":
            return run(generator.athrow(step.value()))
        if step.kind == "close":
            return run(generator.aclose())
        return run(generator.asend(step.value), cancelled=step.kind == "cancel")

    return _answer(take, step)


def finish(generator: Generator[Any, Any, Any]) -> None:
    """Close *generator* until it has come to its end: some ignore a GeneratorExit or two."""
    while generator.gi_frame is not None:
        answer(generator, Step("close"))


def async_finish(generator: AsyncGenerator[Any, Any]) -> None:
    """Step *generator* until it has come to its end, if it can: one that ignored a GeneratorExit is stuck for good."""
    for _ in range(50):
        if generator.ag_frame is None:
            return
        async_answer(generator, Step("throw", KeyboardInterrupt))


def _answer(take: Callable[[], object], step: Step) -> object:
    try:
        if step.while_handling:
            try:
                raise LookupError("the consumer's own")  # noqa: TRY301, EM101  # handled around the step on purpose
            except LookupError:
                return ("answered", take())
        return ("answered", take())
    except BaseException as exc:  # noqa: BLE001  # it is the answer
        return ("raised", shape(exc))


@types.coroutine
def pause() -> Generator[str, object, str]:
    """Await once, as an operation of an event loop would."""
    yield "paused"
    return "resumed"


def run(coroutine: Coroutine[Any, Any, Any], *, cancelled: bool = False) -> object:
    """Run *coroutine* to its end; with *cancelled*, raise CancelledError where it awaits first."""
    step: Callable[[], object] = lambda: coroutine.send(None)  # noqa: E731  # changes below
    while True:
        try:
            step()
        except StopIteration as stop:
            return stop.value
        step = (lambda: coroutine.throw(asyncio.CancelledError())) if cancelled else (lambda: coroutine.send(None))
        cancelled = False
