"""The messages of an interpreter process, checked.

The user's code runs in that process, and can find the key of the channel.
"""

import json
from typing import Any, Final, NamedTuple

ERROR: Final = {"name", "value", "traceback"}
VARIABLE: Final = {"name", "type", "repr"}
# worker/displays.py keeps a frame below 1 MiB.
MAX_BUNDLE_BYTES: Final = 1 << 20

Texts = dict[str, str]


class NonsenseError(ValueError):
    """A message that the worker never sends."""


class Begun(NamedTuple):
    """The code has begun: an interrupt from now on is for this code."""


class Reply(NamedTuple):
    """The answer to a request.

    `error` has the name, value and traceback of an exception. `variables` has the name, type and
    repr of each, if they were asked for.
    """

    error: Texts | None
    variables: list[Texts] | None


class Display(NamedTuple):
    """A value that a cell displays: its number, to be confirmed, and JSON by MIME type."""

    number: int
    bundle: bytes


def parse(data: bytes, request: int) -> Begun | Reply | Display:
    """Parse a message; `request` is the number of the request that is being served.

    Raises:
        NonsenseError: it is none of the three.
    """
    try:
        match json.loads(data):
            case {"op": "begun", "id": int(number)} if number == request:
                return Begun()
            case {"op": "done", "id": int(number), "error": error, **rest} if number == request:
                variables: Any = rest.get("variables")
                return Reply(
                    None if error is None else _texts(error, ERROR),
                    None if variables is None else [_texts(each, VARIABLE) for each in variables],
                )
            case {"op": "result", "id": int(number), "data": dict(bundle)}:
                encoded = json.dumps(bundle, allow_nan=False, separators=(",", ":")).encode()
                if len(encoded) <= MAX_BUNDLE_BYTES:
                    return Display(number, encoded)
            case _:
                pass
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise NonsenseError(str(exc)) from exc
    raise NonsenseError("unknown message")


def _texts(document: Any, names: set[str]) -> Texts:
    """Check that it is an object with these keys, and texts that can be encoded as UTF-8."""
    if document.keys() != names:
        raise NonsenseError(f"not an object of {', '.join(sorted(names))}")
    for text in document.values():
        str.encode(text)
    return dict(document)
