"""Sees to a module right after its code has run, whoever imports it.

Runs in the user's Python, 3.8 or later.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def on_import(
    name: str, attach: Callable[[Any], None], prepare: Callable[[], None] | None = None
) -> None:
    """Have `attach` called with the module of this name: now, or when it is imported, if ever.

    Args:
        prepare: called before the module's code runs, if that is yet to come.
    """
    module = sys.modules.get(name)
    if module is not None:
        attach(module)
    sys.meta_path.insert(0, _Finder(name, attach, prepare))


class _Finder:
    """Finds one module as the other finders do, and wraps what runs its code."""

    def __init__(
        self, name: str, attach: Callable[[Any], None], prepare: Callable[[], None] | None
    ) -> None:
        self._name = name
        self._attach = attach
        self._prepare = prepare

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Where it is; None for any other module. Source: importlib.abc.MetaPathFinder."""
        if name != self._name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        loader: Any = None if spec is None else spec.loader
        execute = getattr(loader, "exec_module", None)
        if spec is None or execute is None:  # the latter of a zip file's, before Python 3.10
            return spec

        def exec_module(module: Any) -> None:
            module.__spec__.loader = module.__loader__ = loader
            if self._prepare is not None:
                self._prepare()
            execute(module)
            self._attach(module)

        if isinstance(loader, type):  # that of all modules that are frozen into Python
            spec.loader = _StandIn(loader, exec_module)  # type: ignore[assignment]  # for a moment
        else:
            # Shadowed in the instance, so that the loader stays what it was in every other way.
            loader.exec_module = exec_module
        return spec


class _StandIn:
    """A loader that is another in all but what runs a module's code."""

    def __init__(self, loader: Any, exec_module: Callable[[Any], None]) -> None:
        self._loader = loader
        self.exec_module = exec_module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
