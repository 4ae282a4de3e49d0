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
        loader = None if spec is None else spec.loader
        # A module that is frozen into Python has a class for a loader, the same as all of these.
        if loader is not None and not isinstance(loader, type):
            execute = loader.exec_module

            def exec_module(module: Any) -> None:
                if self._prepare is not None:
                    self._prepare()
                execute(module)
                self._attach(module)

            # Shadowed in the instance, so that the loader stays what it was in every other way.
            loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
