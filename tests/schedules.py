"""
Random programs of tasks, generators and threads, run plain or traced: what a traced program is compared with.

A program is a tree of functions of all kinds; each knows who first steps it, which is to be the parent of its span. The
event loop's clock is virtual and its threads are waited for, so that a program runs the same way each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import itertools
import sys
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import anyio
import anyio.lowlevel
import trio
import trio.testing
from hypothesis import strategies as st

from tracekit import current_span, traced

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

    from hypothesis.strategies import SearchStrategy

Step: TypeAlias = "tuple[Any, ...]"


class Boom(Exception):  # noqa: N818  # not always an error
    """What a function of a program raises."""


class Node(NamedTuple):
    """
    A function of a program, called once at most.

    Args:
        kind: "function", "coroutine", "generator" or "async generator".
        steps: What it does; in a "yield" what its consumer does comes in between.
    """

    kind: str
    steps: tuple[Step, ...]


# Where each of a generator's steps is taken, and what becomes of it after a few.
PLACES: Final = ("here", "thread", "empty thread")
TASKS: Final = ("here", "task")
ENDS: Final = ("exhaust", "close", "close elsewhere", "throw", "drop", "drop in a cycle", "keep")


def _nodes(kind: str, depth: int) -> SearchStrategy[Node]:
    is_async = kind in ("coroutine", "async generator")
    simple: list[SearchStrategy[Step]] = [st.just(("raise",))]
    if is_async:
        simple = [
            st.just(("pause",)),
            st.integers(0, 3).map(lambda time: ("sleep", time)),
            st.just(("pause",)),
            *simple,
        ]
    if "generator" in kind:
        simple = [st.just(("yield",)), st.just(("yield",)), *simple]
    steps = st.one_of(simple)
    if depth:
        steps = st.one_of(_calls(depth - 1, is_async=is_async), steps)
    block = st.lists(steps, min_size=1, max_size=3).map(tuple)
    caught = block.map(lambda body: ("catch", body))
    last = st.lists(st.sampled_from([("pause",), ("sleep", 1)]) if is_async else st.just(("note",)), max_size=2)
    finally_ = st.tuples(st.just("finally"), block, last.map(tuple))
    whole = st.lists(st.one_of(steps, steps, caught, finally_), max_size=5).map(tuple)
    return st.builds(Node, st.just(kind), whole)


def _calls(depth: int, *, is_async: bool) -> SearchStrategy[Step]:
    coroutines = st.deferred(lambda: _nodes("coroutine", depth))
    several = st.lists(coroutines, min_size=1, max_size=3).map(tuple)
    calls: list[SearchStrategy[Step]] = [
        st.tuples(st.just("call"), st.deferred(lambda: _nodes("function", depth))),
        st.tuples(
            st.just("generator"),
            st.deferred(lambda: _nodes("generator", depth)),
            st.lists(st.sampled_from(PLACES), max_size=3).map(tuple),
            st.sampled_from(ENDS),
        ),
    ]
    if is_async:
        calls += [
            st.tuples(st.just("await"), coroutines),
            st.tuples(st.just("gather"), several, st.booleans()),
            st.tuples(st.just("group"), several),
            st.tuples(st.just("task"), coroutines, st.sampled_from(["wait", "cancel", "leave"])),
            st.tuples(st.just("wait_for"), coroutines, st.integers(0, 3)),
            st.tuples(st.just("timeout"), coroutines, st.integers(0, 3)),
            st.tuples(
                st.just("async generator"),
                st.deferred(lambda: _nodes("async generator", depth)),
                st.lists(st.sampled_from(TASKS), max_size=3).map(tuple),
                st.sampled_from(ENDS),
            ),
        ]
    return st.one_of(calls)


def programs() -> SearchStrategy[Node]:
    """Make programs: coroutines that call, await, start, step, cancel and abandon others."""
    return _nodes("coroutine", 3)


class NumberedTask(asyncio.Task[Any]):
    """A task that sets of tasks hold in its order: what has several tasks to cancel goes through a set."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], *, loop: VirtualLoop, **options: Any) -> None:
        self._number = next(loop.numbers)
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as there is nothing else to do."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.numbers = itertools.count()
        self.set_task_factory(lambda loop, coroutine, **options: NumberedTask(coroutine, loop=loop, **options))  # type: ignore[arg-type]

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Run:
    """
    One run of a program.

    Args:
        is_traced: Whether each function is decorated.
        cancel_at: At which pause, counted over all tasks, a task is cancelled; None: never.
        cancels_all: Whether that is the task of the whole program, or the one that pauses.
    """

    def __init__(self, *, is_traced: bool, cancel_at: int | None = None, cancels_all: bool = False) -> None:
        self._is_traced = is_traced
        self._cancel_at = cancel_at
        self._cancels_all = cancels_all
        self._cancel: Callable[[], object] = lambda: None
        self._has_cycles = False
        self._names: dict[int, str] = {}  # by the id of the node
        self._kept: list[Any] = []
        self.pauses = 0
        # What each function saw, in its order; by its name. Between functions the order of a loop's end is its own.
        self.log: dict[str, list[object]] = defaultdict(list)
        # The parents that spans are to have, by names.
        self.parents: dict[str, str | None] = {}
        # Where another span was current than that of the function which ran.
        self.misplaced: list[str] = []

    def of(self, program: Node) -> object:
        """Run *program* to its end and return what came of it."""
        self._name(program)
        loop = VirtualLoop()
        loop.set_exception_handler(lambda *_: None)  # of tasks nobody waits for
        try:
            asyncio.set_event_loop(loop)
            try:
                task = loop.create_task(self._call(program, None))
                self._cancel = task.cancel
                return ("returned", loop.run_until_complete(task))
            except BaseException as error:  # noqa: BLE001  # it is the answer
                return ("raised", shape(error))
            finally:
                self._end(loop)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _name(self, part: object) -> None:
        if isinstance(part, Node):
            self._names[id(part)] = f"s.n{len(self._names)}"
        if isinstance(part, tuple):
            for inner in part:
                self._name(inner)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        # As asyncio.run does.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        for task in left:
            with contextlib.suppress(BaseException):
                loop.run_until_complete(task)
        self._collect()
        loop.run_until_complete(loop.shutdown_asyncgens())
        self._close_kept()

    def _close_kept(self) -> None:
        for kept in self._kept:
            if inspect.isgenerator(kept):
                with contextlib.suppress(Boom):
                    kept.close()
        self._kept.clear()

    def _collect(self) -> None:
        if self._has_cycles:
            gc.collect()

    # --- functions ---------------------------------------------------------------------------------------------------

    def _call(self, node: Node, parent: str | None) -> Any:
        """Call the function of *node*: for a generator function nothing of it runs yet."""
        name = self._names[id(node)]
        body: Callable[[Node, str, str | None], Any] = {
            "function": self._function,
            "coroutine": self._coroutine,
            "generator": self._generator,
            "async generator": self._async_generator,
        }[node.kind]
        return (traced(name, capture=False)(body) if self._is_traced else body)(node, name, parent)

    def _function(self, node: Node, name: str, parent: str | None) -> object:
        self._enter(name, parent)
        for step in node.steps:
            run(self._sync_step(step, name))
        return name

    async def _coroutine(self, node: Node, name: str, parent: str | None) -> object:
        self._enter(name, parent)
        for step in node.steps:
            await self._step(step, name)
        return name

    def _generator(self, node: Node, name: str, parent: str | None) -> Generator[Any, Any, Any]:
        self._enter(name, parent)
        for step in node.steps:
            yield from self._sync_step(step, name)
        return name

    async def _async_generator(self, node: Node, name: str, parent: str | None) -> AsyncGenerator[Any, Any]:
        self._enter(name, parent)
        for step in node.steps:
            if step[0] == "yield":
                yield self._note(name, "yields")
            elif step[0] == "finally":
                try:
                    for inner in step[1]:
                        if inner[0] == "yield":
                            yield self._note(name, "yields")
                        else:
                            await self._step(inner, name)
                finally:
                    for inner in step[2]:
                        await self._step(inner, name)
            else:
                await self._step(step, name)
            self._note(name, step[0])

    def _enter(self, name: str, parent: str | None) -> None:
        self.parents[name] = parent
        self._note(name, "entered")

    def _note(self, name: str, what: object) -> object:
        self.log[name].append(what)
        if self._is_traced and getattr(current_span(), "name", None) != name:
            self.misplaced.append(f"{name} {what}: {current_span()}")
        return what

    # --- steps -------------------------------------------------------------------------------------------------------

    def _sync_step(self, step: Step, me: str) -> Generator[Any, Any, None]:  # noqa: C901  # a case for each step
        kind, *given = step
        if kind == "yield":
            yield self._note(me, "yields")
        elif kind == "raise":
            raise Boom(me)
        elif kind == "call":
            self._note(me, self._call(given[0], me))
        elif kind == "generator":
            self._consume(me, *given)
        elif kind == "catch":
            try:
                for inner in given[0]:
                    yield from self._sync_step(inner, me)
            except Exception as error:  # noqa: BLE001  # a program's
                self._note(me, shape(error))
        elif kind == "finally":
            try:
                for inner in given[0]:
                    yield from self._sync_step(inner, me)
            finally:
                for inner in given[1]:
                    run(self._sync_step(inner, me))
        self._note(me, kind)

    async def _step(self, step: Step, me: str) -> None:  # noqa: C901  # likewise
        kind, *given = step
        if kind == "pause":
            await self._pause()
        elif kind == "sleep":
            await self._pause()
            await self._sleep(given[0])
        elif kind == "catch":
            try:
                for inner in given[0]:
                    await self._step(inner, me)
            except Exception as error:  # noqa: BLE001  # a program's
                self._note(me, shape(error))
        elif kind == "finally":
            try:
                for inner in given[0]:
                    await self._step(inner, me)
            finally:
                for inner in given[1]:
                    await self._step(inner, me)
        elif kind == "async generator":
            await self._consume_async(me, *given)
        elif kind in ("await", "gather", "group", "task", "wait_for", "timeout"):
            await self._wait(me, kind, *given)
        else:
            run(self._sync_step(step, me))
        self._note(me, kind)

    async def _pause(self) -> None:
        self.pauses += 1
        if self.pauses - 1 == self._cancel_at:
            task = asyncio.current_task()
            assert task is not None
            _ = self._cancel() if self._cancels_all else task.cancel()
        await asyncio.sleep(0)

    async def _sleep(self, time: float) -> None:
        await asyncio.sleep(time)

    async def _wait(self, me: str, kind: str, what: Any, how: Any = None) -> None:  # noqa: C901  # likewise
        if kind == "await":
            self._note(me, await self._call(what, me))
        elif kind == "gather":
            answers = await asyncio.gather(*(self._call(node, me) for node in what), return_exceptions=how)
            self._note(me, [shape(answer) if isinstance(answer, BaseException) else answer for answer in answers])
        elif kind == "group" and sys.version_info >= (3, 11):
            async with asyncio.TaskGroup() as group:
                for node in what:
                    group.create_task(self._call(node, me))
        elif kind == "group":
            async with anyio.create_task_group() as tasks:
                for node in what:
                    tasks.start_soon(self._call, node, me)
        elif kind == "timeout" and sys.version_info >= (3, 11):
            async with asyncio.timeout(how):
                self._note(me, await self._call(what, me))
        elif kind in ("wait_for", "timeout"):
            self._note(me, await asyncio.wait_for(self._call(what, me), how))
        else:
            task = asyncio.create_task(self._call(what, me))
            if how == "leave":
                self._kept.append(task)
                return
            await self._pause()
            if how == "cancel":
                task.cancel()
            self._note(me, await task)

    # --- generators --------------------------------------------------------------------------------------------------

    def _consume(self, me: str, node: Node, places: tuple[str, ...], end: str) -> None:
        generator = self._call(node, None if places[:1] == ("empty thread",) else me)

        def pull() -> object:
            return next(generator, "exhausted")

        for place in places:
            self._note(me, ("pulled", _in_place(place, pull)))
        if end == "exhaust":
            self._note(me, ("rest", list(generator)))
        elif end == "close":
            generator.close()
        elif end == "close elsewhere":
            _in_place("empty thread", generator.close)
        elif end == "throw":
            self._note(me, generator.throw(Boom("thrown")))
        else:
            self._leave(generator, end)

    def _leave(self, generator: object, end: str) -> None:
        if end == "keep":
            self._kept.append(generator)
        elif end == "drop in a cycle":
            self._has_cycles = True
            cycle = [generator]
            cycle.append(cycle)

    async def _consume_async(self, me: str, node: Node, places: tuple[str, ...], end: str) -> None:
        generator = self._call(node, me)

        async def pull() -> object:
            return await generator.__anext__()

        async def rest() -> object:
            return [item async for item in generator]

        async def close() -> object:
            return await generator.aclose()

        async def throw() -> object:
            return await generator.athrow(Boom("thrown"))

        for place in places:
            try:
                self._note(me, ("pulled", await self._take(pull, place)))
            except StopAsyncIteration:
                self._note(me, "exhausted")
        if end == "exhaust":
            self._note(me, ("rest", await rest()))
        elif end == "throw":
            self._note(me, await throw())
        elif end.startswith("close"):
            await self._take(close, "task" if end == "close elsewhere" else "here")
        else:
            self._leave(generator, end)

    async def _take(self, step: Callable[[], Coroutine[Any, Any, object]], place: str) -> object:
        return await (asyncio.create_task(step()) if place == "task" else step())


class AnyRun(Run):
    """
    One run of a program on anyio; tasks that are waited for are task groups, time-outs are cancel scopes.

    Args:
        backend: "asyncio" or "trio".
    """

    def __init__(self, backend: str, *, is_traced: bool, cancel_at: int | None = None) -> None:
        super().__init__(is_traced=is_traced, cancel_at=cancel_at)
        self._backend = backend

    def of(self, program: Node) -> object:
        self._name(program)
        options: dict[str, Any] = {"loop_factory": VirtualLoop}
        if self._backend == "trio":
            trio._core._run._r.seed(0)  # the order of its tasks
            options = {"clock": trio.testing.MockClock(autojump_threshold=0)}
        try:
            return ("returned", anyio.run(self._main, program, backend=self._backend, backend_options=options))
        except BaseException as error:  # noqa: BLE001  # it is the answer
            return ("raised", shape(error))
        finally:
            self._close_kept()

    async def _main(self, program: Node) -> object:
        try:
            with anyio.CancelScope() as scope:
                self._cancel = scope.cancel
                return await self._call(program, None)
            return "cancelled"
        finally:
            self._collect()

    async def _pause(self) -> None:
        self.pauses += 1
        if self.pauses - 1 == self._cancel_at:
            self._cancel()
        await anyio.lowlevel.checkpoint()

    async def _sleep(self, time: float) -> None:
        await anyio.sleep(time)

    async def _wait(self, me: str, kind: str, what: Any, how: Any = None) -> None:
        if kind == "await":
            self._note(me, await self._call(what, me))
        elif kind in ("wait_for", "timeout"):
            with anyio.move_on_after(how):
                self._note(me, await self._call(what, me))
        else:
            async with anyio.create_task_group() as group:
                for node in (what,) if isinstance(what, Node) else what:
                    group.start_soon(self._call, node, me)
                await self._pause()
                if how == "cancel":
                    group.cancel_scope.cancel()

    async def _take(self, step: Callable[[], Coroutine[Any, Any, object]], place: str) -> object:
        answers: list[object] = []

        async def work() -> None:
            try:
                answers.append(await step())
            except StopAsyncIteration:
                answers.append("exhausted")

        if place == "here":
            return await step()
        async with anyio.create_task_group() as group:
            group.start_soon(work)
        return answers[0]


def run(steps: Generator[Any, Any, None]) -> None:
    """Run what yields nothing."""
    for _ in steps:
        pass


def _in_place(place: str, call: Callable[[], object]) -> object:
    """Run *call* in *place* to its end; what it raises is raised here."""
    if place == "here":
        return call()
    context = contextvars.copy_context() if place == "thread" else contextvars.Context()
    answers: list[object] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(context.run(call))
        except BaseException as error:  # noqa: BLE001  # handed on
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors.pop()
    return answers[0]


def shape(error: object) -> object:
    """Return what can be compared of *error*: its type and arguments, and those of what is in it."""
    if not isinstance(error, BaseException):
        return error
    inside = [shape(inner) for inner in getattr(error, "exceptions", ())]
    return (type(error).__name__, inside or [shape(arg) for arg in error.args])
