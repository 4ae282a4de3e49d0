"""Python's own builtins and modules, whatever the user's code or directory has in their place.

Source: Python's reference, "Builtins and restricted execution": a module's functions look for
builtins in its `__builtins__`.
"""

from __future__ import annotations

import builtins
import sys
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The builtins as they were when the interpreter started. Whoever of us runs after the user's code
# takes them for its own: what the user's code then makes of `len` or `compile` isn't done to us.
BUILTINS = dict(vars(builtins))
__builtins__ = BUILTINS  # type: ignore[assignment]
PATH = [*sys.path]  # the user's directory is put there later


class Modules:
    """While it is entered, these names are those of Python's own modules; then the user's again."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._ours: dict[str, Any] = {}
        self._theirs: dict[str, Any] = {}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Where it is; None for any other module. Source: importlib.abc.MetaPathFinder."""
        return PathFinder.find_spec(name, PATH) if name in self._names else None

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)  # which fails where the user's code has made it a tuple
        self._swap(self._theirs, self._ours)

    def __exit__(self, *_: object) -> None:
        self._swap(self._ours, self._theirs)
        sys.meta_path.remove(self)

    def _swap(self, leaving: dict[str, Any], coming: dict[str, Any]) -> None:
        for name in self._names:
            if name in sys.modules:
                leaving[name] = sys.modules.pop(name)
        sys.modules.update(coming)
        coming.clear()
