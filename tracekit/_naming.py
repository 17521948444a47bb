"""Span names: `service.operation`, low cardinality, made once."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, Final, cast

from tracekit._diagnostics import FORGIVEN

_BEFORE_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def span_name(name: str | None, *, service: str | None, module: str, qualname: str) -> str:
    """
    Return the span name of an operation.

    Args:
        name: The name given: used as it is if it has a dot, else the operation; None takes the callable's own.
        service: The service given, if any.
        module: `__module__` of the callable.
        qualname: `__qualname__` of the callable.
    """
    if name is not None and "." in name:
        return name
    owner, _, own_name = qualname.rpartition(".")
    operation = name if name is not None else own_name
    if service is None:
        # A function defined inside another belongs to its module, not to that function.
        in_class = owner and not owner.endswith("<locals>")
        service = snake_case(owner.rpartition(".")[2]) if in_class else module_service(module)
    return f"{service}.{operation}"


def named(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return what *func* is called by: itself, what a partial is of, or the class of a callable object."""
    while issubclass(type(func), functools.partial):
        func = cast("functools.partial[Any]", func).func
    return func if own_text(func, "__qualname__") is not None else type(func)


def own_text(target: object, attribute: str) -> str | None:
    """Return an attribute of *target* if it is a string: callable objects answer with anything, or raise."""
    try:
        found: object = getattr(target, attribute, None)
    except FORGIVEN:  # a property, a `__getattr__`
        return None
    return found if type(found) is str else None


def module_service(module: str) -> str:
    """Return the service that *module* (its dotted name) stands for: its last component, for `__main__` the script."""
    # Processes that multiprocessing spawns run the script under the second name.
    if module in ("__main__", "__mp_main__"):
        return main_name(module)
    last = module.rpartition(".")[2]
    return module.rpartition(".")[0].rpartition(".")[2] if last == "__init__" else last


def main_name(module: str = "__main__") -> str:
    """Return what the program is called: the stem of its script, the module of `python -m`, else "main"."""
    main = sys.modules.get(module)
    spec_name: str | None = getattr(getattr(main, "__spec__", None), "name", None)
    if spec_name and spec_name != "__main__":  # which is what a directory or a zip file that is run has
        package, _, last = spec_name.rpartition(".")
        return package.rpartition(".")[2] if last == "__main__" else last
    file: str | None = getattr(main, "__file__", None)
    if not file or file.startswith("<"):
        return "main"
    stem = PurePath(file).stem
    return Path(file).absolute().parent.stem if stem == "__main__" else stem


def snake_case(class_name: str) -> str:
    """Return *class_name* in snake_case: `PaymentGateway` -> payment_gateway, `HTTPClient` -> http_client."""
    return _BEFORE_CAPITAL.sub("_", class_name).lower()
