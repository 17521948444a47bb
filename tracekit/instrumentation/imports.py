"""
Import hooks: a call back each time a module has been executed. Nothing else touches `sys.meta_path`.

Those of wrapt are called for the first import only, cannot be taken back, and their errors make the import fail.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any, Final, TypeAlias, cast, final

from typing_extensions import override

Watcher: TypeAlias = Callable[[], None]
# Given a module's name and its loader, makes the code of it that runs as `__main__`; None leaves that to the loader.
Compiler: TypeAlias = Callable[[str, Any], "CodeType | None"]

_lock: Final = threading.Lock()
_watchers: Final[dict[str, list[Watcher]]] = {}
# Of many modules: what tells whether one is meant, what is called with its name, and what may compile it for `-m`.
_general: Final[list[tuple[Callable[[str], bool], Callable[[str], None], Compiler]]] = []
_searching: Final = threading.local()


def watch(modules: Iterable[str], watcher: Watcher) -> None:
    """Call *watcher* after each import and each reload of *modules*; it must not raise."""
    with _lock:
        _install()
        for module in modules:
            _watchers.setdefault(module, []).append(watcher)


def watch_all(is_meant: Callable[[str], bool], watcher: Callable[[str], None], compiler: Compiler) -> None:
    """
    Call *watcher* with the name of each module that *is_meant*, after each import and reload; neither may raise.

    What runs as `__main__` is not imported: `python -m` asks for the code, which *compiler* may make.
    """
    with _lock:
        _install()
        _general.append((is_meant, watcher, compiler))


def unwatch(modules: Iterable[str], watcher: Watcher) -> None:
    """Take back what `watch` did with the same arguments; taking it back twice is harmless."""
    with _lock:
        for module in modules:
            watchers = _watchers.get(module, [])
            if watcher in watchers:
                watchers.remove(watcher)
            if not watchers:
                _watchers.pop(module, None)
        # The finder stays: an import in another thread may be walking along the list, and would miss the next one.


def _install() -> None:
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


@final
class _Finder(MetaPathFinder):
    """Finds nothing itself: has the loader that the other finders find call back."""

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        # Others may search through all finders too: neither must search on behalf of the other for ever.
        if getattr(_searching, "fullname", None) == fullname:
            return None
        if fullname not in _watchers and not any(is_meant(fullname) for is_meant, _, _ in _general):
            return None
        outer, _searching.fullname = getattr(_searching, "fullname", None), fullname
        try:
            finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
            specs = (finder.find_spec(fullname, path, target) for finder in finders)
            spec = next((spec for spec in specs if spec is not None), None)
        finally:
            _searching.fullname = outer
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = cast("Any", _Loader(spec.loader))
        return spec


@final
class _Loader:
    """A loader that calls the watchers once the module is executed; for the rest it is the loader it stands for."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Let the loader create the module."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Let the loader execute the module, which then has that loader and no trace of this one."""
        name = module.__name__
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            name = module.__spec__.name
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        for watcher in list(_watchers.get(name, ())):
            watcher()
        for is_meant, general_watcher, _ in tuple(_general):
            if is_meant(name):
                general_watcher(name)

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code of the module, for who runs it without an import."""
        for is_meant, _, compiler in tuple(_general):
            code = compiler(fullname, self._loader) if is_meant(fullname) else None
            if code is not None:
                return code
        made: CodeType | None = self._loader.get_code(fullname)
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


_finder: Final = _Finder()
