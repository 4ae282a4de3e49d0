"""The way that a program's charts take to procd: one line of JSON for each, as far as they fit."""

from __future__ import annotations

from fcntl import LOCK_EX, LOCK_UN, lockf
from os import close, write

from .encoding import encode
from .output import far, identity, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Artifacts:
    """Writes them to a descriptor far above those that a program closes by the hundred.

    What can't be written is said in the output; the program is not to fail for it.

    Args:
        number: the descriptor as it was passed; closed here.
        room_bytes: what procd takes.
    """

    def __init__(self, number: int, room_bytes: int) -> None:
        self._number = far(number)
        close(number)
        self._identity = identity(self._number)
        self._room_bytes = room_bytes

    def emit(self, document: dict[str, Any]) -> None:
        """Write a chart; only its picture, where that is all that fits."""
        chart = document["value"]
        points = chart.pop("points", None)
        line = _line(document)
        if points or len(line) > self._room_bytes:
            size = f"{points} points" if points else f"{len(line)} bytes"
            what = f"a chart of {size} is too large"
            line = _line({**document, "value": _picture(chart)})
            if len(line) > self._room_bytes:
                say(f"procd: {what} to be returned")
                return
            say(f"procd: {what}: only its picture is returned")
        if self._write(line):
            self._room_bytes -= len(line)
        else:
            say("procd: a chart can't be returned: its descriptor was closed")

    def _write(self, line: bytes) -> bool:
        try:
            if identity(self._number) != self._identity:  # it is the program's own by now
                return False
            lockf(self._number, LOCK_EX)  # forks write to it as well
            rest = memoryview(line)
            while rest:
                rest = rest[write(self._number, rest) :]
            lockf(self._number, LOCK_UN)
        except OSError:
            return False
        return True


def _line(document: dict[str, Any]) -> bytes:
    return encode(document).encode() + b"\n"


def _picture(chart: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {"elements": []}
    kept.update((name, chart[name]) for name in ("type", "title", "png") if name in chart)
    return kept
