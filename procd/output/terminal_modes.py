"""Which modes a terminal is in: what output that is shown from its midst takes for granted.

What a program has switched on long ago is in no replay. But without it a full-screen program is
drawn over what else is on the screen, and a mouse that it waits for says nothing.

Source: XTerm Control Sequences (DECSET, DECRST, DECKPAM, DECKPNM, RIS, DECSTR).
"""

import re
from collections import deque
from collections.abc import Mapping
from typing import Final

# The alternate screens; cursor keys, wrapping, cursor, keypad; what of the mouse is said, and how;
# focus, paste. In the order of telling them: to change the screen may clear it.
SCREENS: Final = (47, 1047, 1049)
KEYPAD: Final = 66
DRAWING: Final = (1, 7, 25, KEYPAD)
TRACKING: Final = (9, 1000, 1002, 1003)
ENCODINGS: Final = (1006, 1016, 1005, 1015)
OTHERS: Final = (1004, 2004)
TOLD: Final = (*SCREENS, *DRAWING, *TRACKING, *ENCODINGS, *OTHERS)
# One switch: who is set ends the others, and who is reset ends all (xterm, xterm.js, kitty, tmux).
# But where nobody knows 1005 and 1015, an encoding that was set before these stays.
ONE_SWITCH: Final[Mapping[int, tuple[int, ...]]] = {
    **dict.fromkeys(SCREENS, SCREENS),
    **dict.fromkeys(TRACKING, TRACKING),
    **dict.fromkeys(ENCODINGS[:2], ENCODINGS),
}
# What is on in a new terminal, and what a soft reset makes of these. It leaves the rest as it is.
ON: Final = (7, 25)
RESET: Final[Mapping[int, bool]] = {mode: mode in ON for mode in TOLD}
SOFT_RESET: Final[Mapping[int, bool]] = {mode: mode in ON for mode in DRAWING}

SWITCH: Final = re.compile(rb"\x1b(?:\[\?([0-9;]{1,60})([hl])|([c=>])|\[!p)")
MARKS: Final = (b"\x1b[?", b"\x1bc", b"\x1b=", b"\x1b>", b"\x1b[!p")
UNFINISHED: Final = re.compile(rb"\x1b(?:\[(?:\?[0-9;]{0,60}|!)?)?\Z")
MOST_BYTES: Final = 64
# Of one mode; a program may well show and hide the cursor each time it draws.
MAX_CHANGES: Final = 32


class Modes:
    """Reads all output, in pieces cut anywhere, and knows which modes were on where."""

    __slots__ = ("_begun", "_changes", "_end")

    def __init__(self) -> None:
        self._end = 0
        self._begun = b""  # a sequence that goes on in the next piece
        # By mode: where it changed, and to what.
        self._changes: dict[int, deque[tuple[int, bool]]] = {}

    def feed(self, data: bytes) -> None:
        """Take note of what was written to the terminal."""
        self._end += len(data)
        if self._begun:
            data = self._begun + data
            self._begun = b""
        elif b"\x1b" not in data:
            return
        last = data.rfind(b"\x1b", -MOST_BYTES)
        if last >= 0 and UNFINISHED.match(data, last):
            self._begun = data[last:]
        if any(mark in data for mark in MARKS):
            self._note(data)

    def _note(self, data: bytes) -> None:
        """Of what is in there often, as from who does nothing else, the last counts."""
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
        """Whether a full-screen program has the screen, and had it when `since` bytes were."""
        return all(
            any(self._was_on(mode, offset) for mode in SCREENS) for offset in (since, self._end)
        )

    def at(self, offset: int) -> bytes:
        """What to write to a new terminal for it to be as it was when `offset` bytes were."""
        return b"".join(
            # ESC = is as old as the keypad: more terminals know it than the mode's number.
            b"\x1b=" if mode == KEYPAD else b"\x1b[?%d%c" % (mode, b"l" if mode in ON else b"h")
            for mode in TOLD
            if self._was_on(mode, offset) != (mode in ON)
        )


def _switched(match: re.Match[bytes]) -> Mapping[int, bool]:
    if match[3] is not None:
        return RESET if match[3] == b"c" else {KEYPAD: match[3] == b"="}
    if match[1] is None:
        return SOFT_RESET
    switched: dict[int, bool] = {}
    for mode in map(int, filter(None, match[1].split(b";"))):
        if mode in RESET:
            switched |= dict.fromkeys(ONE_SWITCH.get(mode, ()), False)
            switched[mode] = match[2] == b"h"
    return switched
