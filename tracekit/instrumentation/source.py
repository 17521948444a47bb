"""
Tracing of the functions of `__main__`, which run before anybody could replace them: they are decorated in the source.

Line numbers stay; functions under a decorator that may look into them are left alone.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from types import CodeType

Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"

# What the source calls. In the builtins: no name is added to the module.
_NAME: Final = "__tracekit_trace__"
# Decorators that take any function for what it is.
_HARMLESS: Final = frozenset(
    {"staticmethod", "classmethod", "abstractmethod", "contextmanager", "asynccontextmanager", "override", "final"}
)


def compile_traced(
    source: str | bytes, file: str, is_meant: Callable[[str], bool], trace: Callable[[str, Any], Any]
) -> CodeType:
    """
    Return the code of *source* in which each function that *is_meant* is given to *trace* when it is defined.

    Args:
        source: The source of a module.
        file: Where it is from.
        is_meant: Asked about each qualified name.
        trace: Given the qualified name and the function; returns what to put in its place.

    Raises:
        SyntaxError: As `compile`.
    """
    tree = ast.parse(source, file)
    for qualname, function in _functions(tree.body, ""):
        if is_meant(qualname) and all(_is_harmless(decorator) for decorator in function.decorator_list):
            call = ast.Call(ast.Name(_NAME, ast.Load()), [ast.Constant(qualname)], [])
            for node in ast.walk(call):
                ast.copy_location(node, function)
            function.decorator_list.append(call)

    def tracing(qualname: str) -> Callable[[Any], Any]:
        return lambda function: trace(qualname, function)

    setattr(builtins, _NAME, tracing)
    return compile(tree, file, "exec", dont_inherit=True)


def _functions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, Function]]:
    """Yield the functions of a module and the methods of its classes, also those below `if` and `try`."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + statement.name, statement
        elif isinstance(statement, ast.ClassDef):
            yield from _functions(statement.body, f"{prefix}{statement.name}.")
        elif isinstance(statement, (ast.If, ast.Try, ast.With)):
            yield from _functions(statement.body, prefix)
            yield from _functions(getattr(statement, "orelse", []), prefix)


def _is_harmless(decorator: ast.expr) -> bool:
    name = decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", None)
    return name in _HARMLESS
