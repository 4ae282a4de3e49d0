"""JSON, made by the C code below the standard library's, which nobody's code can change."""

from __future__ import annotations

from _json import encode_basestring_ascii, make_encoder

from .own import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def encode(value: Any) -> str:
    """A value as JSON, on one line, its texts cleaned.

    Raises:
        TypeError, ValueError, RecursionError: JSON can't have it.
    """
    return "".join(_ENCODER(value, 0))


def clean(text: str) -> str:
    """Text that UTF-8 can carry."""
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _string(text: str) -> str:
    return encode_basestring_ascii(clean(text))


def _refuse(value: object) -> Any:
    raise TypeError


# As json.JSONEncoder makes it: no check for circles but the depth, no indent, no sorting, no keys
# that are skipped, no NaN.
_ENCODER: Any = make_encoder(
    None,
    _refuse,
    _string,
    None,
    ":",
    ",",
    False,  # noqa: FBT003 - all of them are positional
    False,  # noqa: FBT003
    False,  # noqa: FBT003
)
