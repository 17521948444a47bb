"""Click, Typer, Celery and pytest read and run traced functions as they do plain ones."""

from __future__ import annotations

import doctest
import inspect
import sys
import textwrap
import warnings
from typing import TYPE_CHECKING, Annotated

import celery
import click
import pytest
import typer
from click.testing import CliRunner
from typer.testing import CliRunner as TyperRunner

from tracekit import traced

if TYPE_CHECKING:
    from tracekit.testing import CapturedSpans

pytest_plugins = ["pytester"]


def test_click_passes_options_arguments_and_context_to_a_traced_command(spans: CapturedSpans) -> None:
    @click.group()
    @traced("tool.main")
    def main() -> None:
        """A tool."""

    @main.command()
    @click.argument("name")
    @click.option("--times", default=1)
    @click.pass_context
    @traced("tool.greet", capture=("name", "times"))
    def greet(ctx: click.Context, name: str, times: int) -> None:
        """Greet NAME."""
        click.echo(f"hello {name}! " * times)
        ctx.exit(0)

    done = CliRunner().invoke(main, ["greet", "ada", "--times", "2"])
    assert (done.exit_code, done.output) == (0, "hello ada! hello ada! \n")
    assert "Greet NAME." in CliRunner().invoke(main, ["greet", "--help"]).output
    assert spans.one("tool.greet").attributes["times"] == 2


app = typer.Typer()


@app.command()
@traced("shell.order")
def order(item: str, amount: Annotated[int, typer.Option(help="How many.")] = 1, express: bool = False) -> None:
    """Order an ITEM."""
    typer.echo(f"{amount} {item} {express}")


@app.command()
@traced("shell.fail")
def fail() -> None:
    raise typer.Exit(3)


def test_typer_makes_options_of_the_parameters_of_a_traced_command(spans: CapturedSpans) -> None:
    done = TyperRunner().invoke(app, ["order", "tea", "--amount", "2", "--express"])
    assert (done.exit_code, done.output) == (0, "2 tea True\n")
    assert TyperRunner().invoke(app, ["order", "tea", "--amount", "many"]).exit_code == 2
    assert TyperRunner().invoke(app, ["fail"]).exit_code == 3
    assert "How many." in TyperRunner().invoke(app, ["order", "--help"], terminal_width=100).output
    assert spans.one("shell.order").attributes["item"] == "tea"


@pytest.fixture
def worker() -> celery.Celery:
    worker = celery.Celery("worker", broker="memory://", backend="cache+memory://", set_as_current=False)
    worker.conf.update(task_always_eager=True, task_eager_propagates=True)
    return worker


def test_celery_checks_the_arguments_of_a_traced_task(worker: celery.Celery, spans: CapturedSpans) -> None:
    @worker.task
    @traced("tasks.add")
    def add(x, y=1):  # type: ignore[no-untyped-def]
        return x + y

    assert add.delay(2, y=3).get() == 5
    with pytest.raises(TypeError, match=r"add\(\) missing 1 required positional argument: 'x'"):
        add.delay()
    with pytest.raises(TypeError):
        add.delay(1, 2, 3)
    # Refused before it was called.
    assert spans.one("tasks.add").attributes["y"] == 3


def test_celery_binds_and_retries_a_traced_task(worker: celery.Celery, spans: CapturedSpans) -> None:
    @worker.task(bind=True, max_retries=2, name="tasks.flaky")
    @traced("tasks.flaky")
    def flaky(self: celery.Task, wanted: int) -> int:
        if self.request.retries < wanted:
            raise self.retry(countdown=0)
        return self.request.retries

    worker.conf.task_eager_propagates = False  # Celery would raise Retry itself to the caller
    assert flaky.delay(2).get() == 2
    assert len(spans.all("tasks.flaky")) == 3


def test_pytest_takes_traced_fixtures_and_tests_for_what_they_are(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        textwrap.dedent(
            """
            import pytest
            from tracekit import traced

            log = []

            @pytest.fixture
            @traced("fixtures.number")
            def number():
                return 7

            @pytest.fixture
            @traced("fixtures.resource")
            def resource(number, request):
                log.append("set up")
                yield number + 1
                log.append("torn down")

            @pytest.fixture
            @traced("fixtures.served")
            async def served(resource):
                yield resource + 1

            @pytest.fixture
            def anyio_backend():
                return "asyncio"

            @traced
            def test_function(resource, number, spans):
                assert (number, resource) == (7, 8)

            @pytest.mark.parametrize("wanted", [9])
            @pytest.mark.anyio
            @traced
            async def test_coroutine(served, wanted):
                assert served == wanted

            @traced
            class TestClass:
                def test_method(self, number):
                    assert number == 7

            @traced
            def test_fails(number):
                assert number == 8

            def test_teardown():
                assert log == ["set up", "torn down"] * 2
            """
        )
    )
    done = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:asyncio", "-q")
    done.assert_outcomes(passed=4, failed=1)
    # Assertions are rewritten, so they tell the values.
    done.stdout.fnmatch_lines(["*assert 7 == 8*"])


def test_pytest_shows_no_parameter_that_a_traced_fixture_does_not_have() -> None:
    @traced
    def fixture(tmp_path: str, *, monkeypatch: object = None) -> None: ...

    assert list(inspect.signature(fixture).parameters) == ["tmp_path", "monkeypatch"]


def test_doctest_finds_the_examples_of_a_traced_function() -> None:
    """A module's functions are those that have its globals."""
    found = doctest.DocTestFinder().find(_twice, "twice", globs={"twice": _twice})
    module_wide = doctest.DocTestFinder().find(sys.modules[__name__])
    assert [len(test.examples) for test in found] == [1]
    assert f"{__name__}._twice" in [test.name for test in module_wide if test.examples]


@traced
def _twice(number: int) -> int:
    """
    Double *number*.

    >>> _twice(2)
    4
    """
    return number * 2


def test_a_warning_at_the_callers_level_belongs_to_the_module_of_the_traced_function() -> None:
    @traced
    def old() -> None:
        warnings.warn("old", DeprecationWarning, stacklevel=2)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module=__name__)
        old()
