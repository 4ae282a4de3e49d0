"""The modes of a terminal at each offset of its output, for a replay that begins there.

A mode that a program switched on before the replay begins isn't in it. Without it, a full-screen
program would be drawn over the normal screen, and get no mouse events.

Source: XTerm Control Sequences (DECSET, DECRST, DECKPAM, DECKPNM, RIS, DECSTR).
"""

import re
from collections import deque
from collections.abc import Mapping
from typing import Final

# Alternate screens; cursor keys, wrapping, cursor, keypad; mouse events and their encodings; focus,
# paste. In the order of output: changing the screen may clear it.
SCREENS: Final = (47, 1047, 1049)
KEYPAD: Final = 66
DRAWING: Final = (1, 7, 25, KEYPAD)
TRACKING: Final = (9, 1000, 1002, 1003)
ENCODINGS: Final = (1006, 1016, 1005, 1015)
OTHERS: Final = (1004, 2004)
TRACKED: Final = (*SCREENS, *DRAWING, *TRACKING, *ENCODINGS, *OTHERS)
# Modes that exclude each other: setting one resets the others, resetting one resets all (xterm,
# xterm.js, kitty, tmux). Setting 1005 or 1015 resets none, as some terminals don't know these.
EXCLUSIVE: Final[Mapping[int, tuple[int, ...]]] = {
    **dict.fromkeys(SCREENS, SCREENS),
    **dict.fromkeys(TRACKING, TRACKING),
    **dict.fromkeys(ENCODINGS[:2], ENCODINGS),
}
# What is on in a new terminal; what a full reset sets; what a soft reset sets.
ON: Final = (7, 25)
RESET: Final[Mapping[int, bool]] = {mode: mode in ON for mode in TRACKED}
SOFT_RESET: Final[Mapping[int, bool]] = {mode: mode in ON for mode in DRAWING}

SWITCH: Final = re.compile(rb"\x1b(?:\[\?([0-9;]{1,60})([hl])|([c=>])|\[!p)")
BEGINNINGS: Final = (b"\x1b[?", b"\x1bc", b"\x1b=", b"\x1b>", b"\x1b[!p")
UNFINISHED: Final = re.compile(rb"\x1b(?:\[(?:\?[0-9;]{0,60}|!)?)?\Z")
MOST_BYTES: Final = 64
# The changes of one mode that are kept; a program may hide and show the cursor each time it draws.
MAX_CHANGES: Final = 32


class Modes:
    """Reads all output, in pieces cut anywhere, and records where modes changed."""

    __slots__ = ("_changes", "_end", "_unfinished")

    def __init__(self) -> None:
        self._end = 0
        self._unfinished = b""  # a sequence that goes on in the next piece
        # By mode: offsets of its changes, and whether it is on from there.
        self._changes: dict[int, deque[tuple[int, bool]]] = {}

    def feed(self, data: bytes) -> None:
        """Read a piece of output."""
        self._end += len(data)
        if self._unfinished:
            data = self._unfinished + data
            self._unfinished = b""
        elif b"\x1b" not in data:
            return
        last = data.rfind(b"\x1b", -MOST_BYTES)
        if last >= 0 and UNFINISHED.match(data, last):
            self._unfinished = data[last:]
        if any(beginning in data for beginning in BEGINNINGS):
            self._record(data)

    def _record(self, data: bytes) -> None:
        """Record the changes in `data`; of equal sequences, which may be thousands, the last."""
        last: dict[bytes, re.Match[bytes]] = {}
        for match in SWITCH.finditer(data):
            last.pop(match[0], None)
            last[match[0]] = match
        begin = self._end - len(data)
        for match in last.values():
            self._switch(begin + match.start(), _switched(match))

    def _switch(self, offset: int, modes: Mapping[int, bool]) -> None:
        for mode, on in modes.items():
            if on != self._was_on(mode, offset):
                self._changes.setdefault(mode, deque(maxlen=MAX_CHANGES)).append((offset, on))

    def _was_on(self, mode: int, offset: int) -> bool:
        changes = self._changes.get(mode)
        if changes is None:
            return mode in ON
        for at, on in reversed(changes):
            if at < offset:
                return on
        return not changes[0][1]

    def full_screen(self, since: int) -> bool:
        """Whether an alternate screen is on at the end, and was after `since` bytes."""
        return all(
            any(self._was_on(mode, offset) for mode in SCREENS) for offset in (since, self._end)
        )

    def at(self, offset: int) -> bytes:
        """What sets the modes of a new terminal to those after `offset` bytes."""
        return b"".join(
            # More terminals know ESC = than the number of the mode.
            b"\x1b=" if mode == KEYPAD else b"\x1b[?%d%c" % (mode, b"l" if mode in ON else b"h")
            for mode in TRACKED
            if self._was_on(mode, offset) != (mode in ON)
        )


def _switched(match: re.Match[bytes]) -> Mapping[int, bool]:
    """The modes that a sequence changes, and to what."""
    if match[3] is not None:
        return RESET if match[3] == b"c" else {KEYPAD: match[3] == b"="}
    if match[1] is None:
        return SOFT_RESET
    switched: dict[int, bool] = {}
    for mode in map(int, filter(None, match[1].split(b";"))):
        if mode in RESET:
            switched |= dict.fromkeys(EXCLUSIVE.get(mode, ()), False)
            switched[mode] = match[2] == b"h"
    return switched
