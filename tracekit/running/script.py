"""
A script whose own functions are traced, run as Python runs a script. Only `tracekit run --trace` comes here.

To the script it is the first module there is: its name, globals, path, arguments, tracebacks and exit are as always.
"""

from __future__ import annotations

import builtins
import os
import sys
from importlib.machinery import SourceFileLoader
from io import open_code
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType, TracebackType

    from tracekit.instrumentation.matching import Matching


def run_script(path: str, matching: Matching | None) -> None:
    """Run the script *path*, whose arguments stand in `sys.argv` already, as `__main__`."""
    path = os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118  # as Python has it
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(path))  # noqa: PTH120  # as Python has it
    main = sys.modules["__main__"]
    namespace = vars(main)
    annotations: dict[str, Any] = {"__annotations__": {}} if sys.version_info < (3, 14) else {}
    namespace.clear()
    namespace.update(
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __loader__=SourceFileLoader("__main__", path),
        __spec__=None,
        **annotations,
        __builtins__=builtins,
        __file__=path,
        __cached__=None,
    )
    code: CodeType | None = None
    try:
        with open_code(path) as file:
            source = file.read()
        if matching is None:
            code = compile(source, path, "exec", dont_inherit=True)
        else:
            code = matching.code_of_main(source, path, os.path.splitext(os.path.basename(path))[0])  # noqa: PTH119, PTH122
        exec(code, namespace)  # noqa: S102  # what the user asks for
    except BaseException:
        sys.excepthook = _without_us(sys.excepthook, code)
        raise


def _without_us(hook: Any, code: CodeType | None) -> Any:
    """Return *hook* for tracebacks that begin with the frame of *code*, the script's; None: it did not compile."""

    def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        while traceback is not None and traceback.tb_frame.f_code is not code:
            traceback = traceback.tb_next
        hook(kind, error.with_traceback(traceback), traceback)

    return show
