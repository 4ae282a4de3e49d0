"""Writes the charts of a program to procd: one line of JSON for each, as long as they fit."""

from __future__ import annotations

from fcntl import LOCK_EX, LOCK_UN, lockf
from os import close, write

from .isolation import encode
from .output import move_up, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Artifacts:
    """Writes charts to a duplicate of a descriptor, and closes the original.

    Each line begins with `key`; procd accepts `room_bytes`.
    """

    def __init__(self, number: int, room_bytes: int, key: str) -> None:
        self._number = move_up(number)
        close(number)
        self._room_bytes = room_bytes
        self._key = key

    def emit(self, document: dict[str, Any]) -> None:
        """Write a chart, or its picture alone if the rest is too large."""
        chart = document["value"]
        points = chart.pop("points", None)
        line = self._line(chart)
        if points or len(line) > self._room_bytes:
            size = f"{points} points" if points else f"{len(line)} bytes"
            what = f"a chart of {size} is too large"
            picture = {name: chart[name] for name in ("type", "title", "png") if name in chart}
            line = self._line({"elements": [], **picture})
            if len(line) > self._room_bytes:
                say(f"procd: {what} to be returned")
                return
            say(f"procd: {what}: only its picture is returned")
        self._room_bytes -= len(line)
        try:
            lockf(self._number, LOCK_EX)  # forked children write to it as well
            rest = memoryview(line)
            while rest:
                rest = rest[write(self._number, rest) :]
            lockf(self._number, LOCK_UN)
        except OSError:
            say("procd: a chart can't be returned: its descriptor was closed")

    def _line(self, chart: dict[str, Any]) -> bytes:
        return f"{self._key}{encode(chart)}\n".encode()
