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

Texts = dict[str, str]


class NonsenseError(ValueError):
    """The process says what it can't have to say."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The word that code is under way, and an interrupt would be for it.

    Attributes:
        number: of the request.
    """

    number: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request.

    Attributes:
        number: the request's.
        error: name, value and traceback of what was raised.
        variables: name, type and repr of each, if they were asked for.
    """

    number: int
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


def parse(data: bytes) -> Begun | Reply | Display:
    """What a message says.

    Raises:
        NonsenseError: nothing that was agreed on.
    """
    try:
        match json.loads(data):
            case {"op": "begun", "id": int(number)}:
                return Begun(number)
            case {"op": "done", "id": int(number), "error": error, **rest}:
                variables: Any = rest.get("variables")
                return Reply(
                    number,
                    None if error is None else _texts(error, ERROR),
                    None if variables is None else [_texts(each, VARIABLE) for each in variables],
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
