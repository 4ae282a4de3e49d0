"""What our code needs of Python itself, though the user's code or directory replaces it.

Source: Python's reference, "Builtins and restricted execution": a module's functions look up
builtins in the module's `__builtins__`.
"""

from __future__ import annotations

import builtins
import sys

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from typing import Any

# The builtins as they were at the start. Our modules take them for their own, so that a `print` or
# `open` that the user's code has replaced is not called by ours.
BUILTINS = dict(vars(builtins))
# The user's directory is added later.
STARTUP_PATH = [*sys.path]


def import_standard(name: str) -> Any:
    """Import a module of the standard library, though the user's directory has one of this name."""
    path, sys.path = sys.path, STARTUP_PATH
    try:
        return __import__(name)
    finally:
        sys.path = path
