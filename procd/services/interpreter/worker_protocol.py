"""What an interpreter process tells procd, checked.

The user's code shares a process with who makes it, and finds the key of the channel if it looks for
it. So nothing is taken on trust: what isn't exactly as agreed is Nonsense, and ends the process.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

ERROR: Final = {"name", "value", "traceback"}
VARIABLE: Final = {"name", "type", "repr"}
# A frame stays under 1 MiB (worker/displays).
MAX_BUNDLE_BYTES: Final = 1 << 20
# A message that may be longer than one with a bundle begins so.
LONG: Final = b'{"op":"done",'
MAX_SHORT_BYTES: Final = MAX_BUNDLE_BYTES + 256

Texts = dict[str, str]


class NonsenseError(ValueError):
    """The process says what it can't have to say."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The word that code is under way, and an interrupt would be for it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request.

    Attributes:
        error: name, value and traceback of what was raised.
        variables: name, type and repr of each, if they were asked for.
    """

    error: Texts | None
    variables: list[Texts] | None


@dataclass(frozen=True, slots=True)
class Display:
    """What a cell displays.

    Attributes:
        number: to be named when it has its place.
        bundle: an object of MIME types, JSON without a newline in it.
    """

    number: int
    bundle: bytes


def parse(data: bytes, request: int) -> Begun | Reply | Display:
    """What a message says.

    Args:
        request: the number of the one that is under way.

    Raises:
        NonsenseError: nothing that was agreed on.
    """
    if len(data) > MAX_SHORT_BYTES and not data.startswith(LONG):
        raise NonsenseError("long, and no reply")
    try:
        match json.loads(data):
            case {"op": "begun", "id": int(number), **rest} if number == request and not rest:
                return Begun()
            case {"op": "done", "id": int(number), "error": error, **rest} if number == request:
                variables: Any = rest.pop("variables", None)
                if not rest:
                    return Reply(
                        None if error is None else _texts(error, ERROR),
                        None
                        if variables is None
                        else [_texts(each, VARIABLE) for each in variables],
                    )
            case {"op": "result", "id": int(number), "data": dict(bundle)}:
                encoded = json.dumps(bundle, allow_nan=False, separators=(",", ":")).encode()
                if len(encoded) <= MAX_BUNDLE_BYTES:
                    return Display(number, encoded)
            case _:
                pass
    except (ValueError, TypeError, RecursionError) as exc:
        raise NonsenseError(str(exc)) from exc
    raise NonsenseError("neither a reply nor news of one")


def _texts(document: Any, names: set[str]) -> Texts:
    """An object of texts that UTF-8 can carry, under these names."""
    if not isinstance(document, dict) or document.keys() != names:
        raise NonsenseError(f"not an object of {', '.join(sorted(names))}")
    for text in document.values():
        if not isinstance(text, str):
            raise NonsenseError("a text is none")
        text.encode()
    return document
