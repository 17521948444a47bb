"""A context that is current for a block. Outside of spans, nothing else in tracekit attaches a context."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, final

from opentelemetry import context as context_api

from tracekit._context import come_back_to, enclosing, has_left

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.context import Context


@final
class _Frame:
    """
    One entry into a block.

    It is *stale* once it was left where its context could not be taken away: out of order, or from another task.
    """

    __slots__ = ("around", "context", "is_stale", "outer", "previous", "token")

    def __init__(self, context: Context, previous: Context) -> None:
        self.context = context
        self.is_stale = False
        self.outer, self.previous = _skip_stale(_innermost.get(), previous)
        # Where to come back to instead, if spans that are open now have ended by then.
        self.around = tuple(enclosing(self.previous))
        _innermost.set(self.outer)  # or the token would keep all stale blocks before it alive
        self.token = _innermost.set(self)

    def was_entered_here(self) -> bool:
        """Tell whether this is the task or thread that entered the block, not one that got a copy of its context."""
        try:
            _innermost.reset(self.token)
        except ValueError:
            return False
        return True


# The blocks open here, innermost first. A token of OpenTelemetry's `attach` knows only one way out: its `detach` logs
# an error in another task, and out of order it brings back a context that has been left.
_innermost: ContextVar[_Frame | None] = ContextVar("tracekit_context_block", default=None)


def _skip_stale(frame: _Frame | None, context: Context) -> tuple[_Frame | None, Context]:
    """Return the first block from *frame* outwards that is not stale, and *context* without those that are."""
    while frame is not None and frame.is_stale:
        if context is frame.context:
            context = _before(frame)
        frame = frame.outer
    return frame, context


def _before(frame: _Frame) -> Context:
    """Return the context from before *frame*, without the spans that have been left meanwhile."""
    context = frame.previous
    for active, outside in frame.around:
        if not has_left(active):
            break
        context = outside
    return context


def _close_below(frame: _Frame) -> None:
    """Have the spans that were opened directly in *frame* come back to the context from before it."""
    layers = list(enclosing(context_api.get_current()))
    block = _innermost.get()
    while block is not None:
        if block.context is frame.context and not block.is_stale:
            return  # entered more than once
        layers.extend(block.around)
        block = block.outer
    for active, _ in layers:
        come_back_to(active, _before(frame), instead_of=frame.context)


@final
class ContextBlock:
    """
    Makes *context* current inside `with` or `async with`; may be entered again, also from other threads and tasks.

    Leaving it brings back the context from before, whatever was attached inside. Where that would be wrong (blocks that
    overlap, a generator closed by another task) it changes nothing, and the blocks around repair it when they end.

    Args:
        context: The context to make current.
        previous: The context to come back to, where *context* is current already; None: attach *context*.
    """

    __slots__ = ("_context", "_frames", "_previous")

    def __init__(self, context: Context, previous: Context | None = None) -> None:
        self._context: Final = context
        self._previous: Final = previous
        self._frames: Final[list[_Frame]] = []

    def __enter__(self) -> Context:
        previous = self._previous
        if previous is None:
            previous = context_api.get_current()
            context_api.attach(self._context)
        self._frames.append(_Frame(self._context, previous))
        return self._context

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        innermost, _ = _skip_stale(_innermost.get(), self._context)
        if innermost is not None and innermost in self._frames:
            self._frames.remove(innermost)
            outer, context = _skip_stale(innermost.outer, _before(innermost))
            context_api.attach(context)
            innermost.is_stale = not innermost.was_entered_here()
            _innermost.set(outer)
        elif self._frames:
            frame = self._frames.pop()
            frame.is_stale = True
            _close_below(frame)

    async def __aenter__(self) -> Context:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)
