"""Calls a function when a module has been imported, by whatever way.

Runs in the user's Python, 3.8 or later.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def on_import(name: str, attach: Callable[[Any], None]) -> None:
    """Call `attach` with the module of this name: now, or when it is imported."""
    module = sys.modules.get(name)
    if module is not None:
        attach(module)
    sys.meta_path.insert(0, _Finder(name, attach))


class _Finder:
    """Finds one module as the other finders do, and wraps what runs its code."""

    def __init__(self, name: str, attach: Callable[[Any], None]) -> None:
        self._name = name
        self._attach = attach

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the module's spec; None for any other. Source: importlib.abc.MetaPathFinder."""
        if name != self._name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        loader: Any = None if spec is None else spec.loader
        execute = getattr(loader, "exec_module", None)
        if execute is None or isinstance(loader, type):  # a zip before Python 3.10; frozen modules
            return spec

        def exec_module(module: Any) -> None:
            del loader.exec_module
            execute(module)
            self._attach(module)

        # In the instance, which stays the module's loader.
        loader.exec_module = exec_module
        return spec
