"""Python's own builtins and modules, whatever the user's code or directory has in their place.

Source: Python's reference, "Builtins and restricted execution": a module's functions look for
builtins in its `__builtins__`.
"""

from __future__ import annotations

import builtins
import sys
from _frozen_importlib import BuiltinImporter, FrozenImporter
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The builtins as they were when the interpreter started. Whoever of us runs after the user's code
# takes them for its own: what the user's code then makes of `len` or `compile` isn't done to us.
BUILTINS = dict(vars(builtins))
__builtins__ = BUILTINS  # type: ignore[assignment]
PATH = [*sys.path]  # the user's directory is put there later


def is_own(module: Any, name: str) -> bool:
    """Whether what is loaded by this name is Python's own, and not the user's."""
    try:
        origin = _origin(name, PATH)
        return origin is not None and module.__spec__.origin == origin
    except Exception:  # noqa: BLE001 - whatever the user's code has made of it, or of imports
        return False


def _is_found(name: str) -> bool:
    """Whether the user's code would import Python's own by this name."""
    try:
        origin = _origin(name, PATH)
        return origin is not None and _origin(name, sys.path) == origin
    except Exception:  # noqa: BLE001 - as above
        return False


def _origin(name: str, path: list[str]) -> str | None:
    spec = _find_spec(name, path)
    return None if spec is None else spec.origin


def _find_spec(name: str, path: list[str]) -> Any:
    """Where a module is. Those that are a part of Python itself come before any path."""
    for finder in (BuiltinImporter, FrozenImporter):
        spec = finder.find_spec(name)
        if spec is not None:
            return spec
    return PathFinder.find_spec(name, path)


class Modules:
    """While it is entered, these names are those of Python's own modules; then the user's again.

    What both would import is theirs together.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._shared: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}
        self._theirs: dict[str, Any] = {}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Where it is; None for any other module. Source: importlib.abc.MetaPathFinder."""
        return _find_spec(name, PATH) if name in self._names else None

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)  # which fails where the user's code has made it a tuple
        for name in self._names:
            module = sys.modules.get(name, self)
            if module is self or module is self._shared.get(name):
                continue
            if is_own(module, name):
                self._shared[name] = module
            else:
                self._theirs[name] = sys.modules.pop(name)
        for name, module in self._ours.items():
            sys.modules.setdefault(name, module)

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)
        for name in self._names:
            module = sys.modules.get(name, self)
            if module is self or module is self._shared.get(name):
                continue
            if name not in self._theirs and _is_found(name):
                self._shared[name] = module
            else:
                self._ours[name] = sys.modules.pop(name)
        sys.modules.update(self._theirs)
        self._theirs.clear()
