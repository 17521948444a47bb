"""The rooms of tracekit: which there are, what each may import, and what `import tracekit` costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Bottom to top. A module imports from lower rows only; a package's name stands for all of its modules, which may
# import each other. A new file gets its row first.
LAYERS: Final = (
    (
        "errors",
        "_semconv",
        "_version",
        "_stats",
        "_fork",
        "_exit",
        "_threads",
        "_context",
        "_scalars",
        "redaction",
        "typing",
    ),
    ("_diagnostics", "_environment", "_ratio"),
    ("_redaction",),
    ("_attributes", "_metrics"),
    ("_config",),
    ("_w3c", "_context_block"),
    ("_carriers",),
    ("_naming", "propagation"),
    ("_extractors",),
    ("_signature",),
    ("_parameters",),
    ("_reading",),
    ("_extraction",),
    ("_operation",),
    ("_exceptions", "_relations"),
    ("_span",),
    ("_current", "_generators"),
    ("_wrappers", "_block"),
    ("_decorator",),
    ("sampling", "export", "recording"),
    ("messaging", "logs", "concurrency", "instrumentation"),
    ("configuration",),
    ("testing", "view", "running", "diagnosis"),
    ("pytest_plugin",),
    ("cli",),
    ("__init__", "__main__"),
)

# Libraries with one room each.
USERS_OF: Final = {
    "opentelemetry.sdk": {"configuration", "export", "recording", "sampling", "testing"},
    "wrapt": {"instrumentation.patching"},
}

PACKAGE: Final = Path(__file__).parent.parent / "tracekit"


class Module(NamedTuple):
    """One file: its name below `tracekit` (`export.otlp`) and its path."""

    name: str
    path: Path

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]


class Import(NamedTuple):
    target: str
    line: int


def _modules() -> Iterator[Module]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield Module(".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts), path)


MODULES: Final = tuple(_modules())
ROW: Final = {room: number for number, row in enumerate(LAYERS) for room in row}

# The pipeline's end knows nothing of how spans are made. (The engine does: it makes those of operations.)
MAKING_SPANS: Final = range(ROW["_naming"], ROW["_decorator"] + 1)
ENDING_SPANS: Final = ("sampling", "export")


def _imports(module: Module) -> Iterator[Import]:
    """Every import anywhere in the file: at the top, in functions and for type checkers."""
    for node in ast.walk(ast.parse(module.path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: write imports from the root, `from tracekit...`"
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", node.lineno)


def _is_in(target: str, package: str) -> bool:
    return target == package or target.startswith(package + ".")


def _room_of(target: str) -> str:
    """`tracekit.export.otlp.encode` -> `export`; a name of the front door itself -> `__init__`."""
    room = target.split(".")[1] if "." in target else "__init__"
    return room if room in {module.room for module in MODULES} else "__init__"


def _may_import(room: str, other: str) -> bool:
    if room == other or not {room, other} <= ROW.keys():
        return True  # a missing row is another test's failure
    return ROW[other] < ROW[room] and not (room in ENDING_SPANS and ROW[other] in MAKING_SPANS)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_module_has_a_row_in_the_layers(module: Module) -> None:
    assert module.room in ROW, f"{module.path.name}: add {module.room!r} to LAYERS in {Path(__file__).name}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_imports_point_down(module: Module) -> None:
    wrong = [
        f"{module.path}:{line}: {module.name} imports {target}, which is not below it"
        for target, line in _imports(module)
        if _is_in(target, "tracekit") and not _may_import(module.room, _room_of(target))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", USERS_OF)
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_library_is_used_in_its_room_only(module: Module, library: str) -> None:
    if {module.room, module.name} & USERS_OF[library]:
        return
    wrong = [
        f"{module.path}:{line}: {module.name} imports {target}; only {', '.join(sorted(USERS_OF[library]))} may"
        for target, line in _imports(module)
        if _is_in(target, library)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_module_begins_with_the_sentence_that_says_what_it_does(module: Module) -> None:
    docstring = ast.get_docstring(ast.parse(module.path.read_bytes()))
    assert docstring, f"{module.path} has no docstring"
    assert docstring.splitlines()[0], f"{module.path}: the docstring's first line is empty"


def test_no_module_is_called_utils() -> None:
    vague = {"utils", "util", "helpers", "common", "misc"}
    assert not [module.path for module in MODULES if vague & set(module.name.replace("_", ".").split("."))]


def test_import_tracekit_loads_nothing_heavy() -> None:
    heavy = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation", "wrapt", "grpc", "asyncio")
    heavy += ("fastapi", "starlette", "sqlalchemy", "httpx", "structlog", "loguru", "sqlite3", "http.client")
    loaded = _run(
        "import sys; before = set(sys.modules); import tracekit; print(*(set(sys.modules) - before), sep='\\n')"
    ).split()
    assert "tracekit" in loaded
    assert not [name for name in loaded for package in heavy if _is_in(name, package)]


def test_a_traced_call_loads_no_sdk() -> None:
    loaded = _run("import sys; from tracekit import traced; traced(lambda: None)(); print(*sys.modules, sep='\\n')")
    assert not [name for name in loaded.split() if _is_in(name, "opentelemetry.sdk") or _is_in(name, "wrapt")]


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
