"""What our code needs of Python itself, though the user's code or directory replaces it.

Source: Python's reference, "Builtins and restricted execution": a module's functions look up
builtins in the module's `__builtins__`.
"""

from __future__ import annotations

import builtins
import sys
from _json import encode_basestring_ascii, make_encoder

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Our modules take these for their builtins, as the user's code may replace `print` or `open`.
__builtins__ = BUILTINS = dict(vars(builtins))  # type: ignore[assignment]
# The user's directory is added later.
STARTUP_PATH = [*sys.path]


def import_standard(name: str) -> Any:
    """Import a module of the standard library, though the user's directory has one of this name."""
    path, sys.path = sys.path, STARTUP_PATH
    try:
        return __import__(name)
    finally:
        sys.path = path


def encode(value: Any) -> str:
    """Encode a value as JSON, on one line; raises if JSON has no such value."""
    return "".join(_ENCODER(value, 0))


def clean(text: str) -> str:
    """Replace lone surrogates, which UTF-8 can't encode, by their escapes."""
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _string(text: str) -> str:
    return encode_basestring_ascii(clean(text))


def _refuse(value: object) -> Any:
    raise TypeError


# Positional arguments of json.encoder.JSONEncoder: markers, default, encoder, indent,
# key_separator, item_separator, sort_keys, skipkeys, allow_nan.
_ENCODER: Any = make_encoder(
    None, _refuse, _string, None, ":", ",", False, False, False  # noqa: FBT003
)  # fmt: skip


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
