"""JSON by the C code of the standard library: no module `json`, which the user's may replace."""

from __future__ import annotations

from _json import encode_basestring_ascii, make_encoder

from .isolation import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def encode(value: Any) -> str:
    """Encode a value as JSON, on one line.

    Raises:
        TypeError, ValueError, RecursionError: JSON has no such value.
    """
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
