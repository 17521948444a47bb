"""The packages whose own test suites are run with every function decorated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True)
class Package:
    """
    A release whose sdist brings its tests.

    Args:
        name: What the registry calls it.
        version: The release; also of its tests.
        modules: The top-level modules whose functions are decorated.
        tests: Where its tests are, in the sdist.
        options: For pytest: plugins the suite needs, settings it would else find unknown.
        requires: What its tests need besides what this environment has, pinned.
        left_out: Tests that are not run at all, and why. The reason must hold for the run with empty closures too.
    """

    name: str
    version: str
    modules: tuple[str, ...]
    tests: str = "tests"
    options: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


_ANYIO: Final = ("-p", "anyio.pytest_plugin")
_ASYNCIO: Final = ("-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function")
_ASYNCIO_REQUIRES: Final = ("pytest-asyncio==1.3.0", "backports-asyncio-runner==1.2.0; python_version < '3.11'")

PACKAGES: Final = (
    # Iterators: 200 generators, some endless, some that look at how far they were read.
    Package(
        "more-itertools",
        "10.8.0",
        ("more_itertools",),
        left_out=tuple(
            (f"tests/{test}", "calls functions of the package millions of times: minutes, with any decorator")
            for test in (
                "test_more.py::DiscreteFourierTransformTests::test_roundtrip",
                "test_more.py::ExtractTests::test_all_orderings",
                "test_recipes.py::PolynomialFromRootsTests::test_large",
                "test_recipes.py::PrimeFunctionTests::test_primes",
            )
        ),
    ),
    # Curried functions that read signatures; generators again.
    Package("toolz", "1.2.0", ("toolz", "tlz"), tests="toolz"),
    # A compiler whose products call back; async generators.
    Package("jinja2", "3.1.6", ("jinja2",)),
    # A state machine without I/O.
    Package("h11", "0.16.0", ("h11",), tests="h11"),
    # Frames, descriptors, tracebacks, generated classes.
    Package("boltons", "26.2.0", ("boltons",)),
    # Retries in functions, coroutines, generators and with-blocks.
    Package(
        "tenacity",
        "9.2.1",
        ("tenacity",),
        options=_ASYNCIO,
        requires=_ASYNCIO_REQUIRES,
        left_out=(
            (
                "tests/test_asyncio.py::TestContextManager::test_sleeps",
                "asserts that a retry takes less than 1.1 milliseconds",
            ),
        ),
    ),
    # Threads calling coroutines calling threads, with contexts carried between them.
    Package("asgiref", "3.10.0", ("asgiref",), options=_ASYNCIO, requires=_ASYNCIO_REQUIRES),
    # ASGI on asyncio and trio: streams, websockets, background tasks.
    Package(
        "starlette",
        "0.49.3",
        ("starlette",),
        # What it imports from anyio has since been given another name.
        options=(*_ANYIO, "-W", "ignore:The anyio:DeprecationWarning"),
        requires=("python-multipart==0.0.20",),
    ),
)
