"""What a program has switched on in a terminal, so that it can be switched off without it.

Source: XTerm Control Sequences (DECSET, DECSTBM, DECSCUSR, DECKPAM); kitty keyboard protocol.
"""

import re
from typing import Final

# DEC private modes that are off in a terminal that nothing runs in, in the order of leaving them:
# keys, mouse, focus, paste, synchronised output, then the alternate screens.
OFF: Final = (1, 66, 9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2026, 2031)
SCREENS: Final = (47, 1047, 1049)
# Those that are on: wrapping, the cursor.
ON: Final = (7, 25)

SEQUENCE: Final = re.compile(
    rb"\x1b(?:(?P<reset>c|\[!p)|\[\?(?P<modes>[0-9;]+)(?P<set>[hl])|(?P<keypad>[=>])"
    rb"|\[(?P<region>[0-9]*;?[0-9]*)r|\[(?P<shape>[0-9]*) q|\[>(?P<push>[0-9]*)u"
    rb"|\[<(?P<pop>[0-9]*)u)"
)
UNFINISHED: Final = re.compile(rb"\x1b(?:\[[0-9;?<>! ]*)?\Z")
MAX_SEQUENCE_BYTES: Final = 64


class Modes:
    """Reads output, and knows how to undo what it did to the terminal."""

    def __init__(self) -> None:
        self._carry = b""
        self._reset()

    def _reset(self) -> None:
        self._changed: set[int] = set()
        self._keypad = self._region = self._shape = False
        self._keyboards = 0

    @property
    def alternate(self) -> bool:
        """Whether a full-screen program has the screen."""
        return bool(self._changed & set(SCREENS))

    def feed(self, data: bytes) -> None:
        """Take note of what was written to the terminal."""
        if self._carry:
            data = self._carry + data
            self._carry = b""
        elif b"\x1b" not in data:
            return
        for match in SEQUENCE.finditer(data):
            self._note(match)
        tail = UNFINISHED.search(data, max(0, len(data) - MAX_SEQUENCE_BYTES))
        if tail is not None:
            self._carry = tail.group()

    def _note(self, match: "re.Match[bytes]") -> None:
        part = match.groupdict()
        if part["reset"] is not None:
            screens = self._changed & set(SCREENS) if part["reset"] != b"c" else set[int]()
            self._reset()
            self._changed = screens  # a soft reset keeps the screen
        elif part["modes"] is not None:
            for text in part["modes"].split(b";"):
                mode = int(text or b"0")
                if mode in OFF or mode in SCREENS or mode in ON:
                    changed = (part["set"] == b"l") == (mode in ON)
                    (self._changed.add if changed else self._changed.discard)(mode)
        elif part["keypad"] is not None:
            self._keypad = part["keypad"] == b"="
        elif part["region"] is not None:
            self._region = bool(part["region"].strip(b";"))
        elif part["shape"] is not None:
            self._shape = part["shape"] not in (b"", b"0")
        elif part["push"] is not None:
            self._keyboards += 1
        else:
            self._keyboards = max(0, self._keyboards - int(part["pop"] or b"1"))

    def undo(self) -> bytes:
        """What to write so that the terminal is as if nothing had run in it."""
        out = bytearray(b"\x1b[m")
        if self._keyboards:
            out += b"\x1b[<%du" % self._keyboards
        if self._region:
            out += b"\x1b7\x1b[r\x1b8"  # to set the region moves the cursor
        if self._keypad:
            out += b"\x1b>"
        if self._shape:
            out += b"\x1b[0 q"
        for mode in (*OFF, *SCREENS, *ON):
            if mode in self._changed:
                out += b"\x1b[?%d%c" % (mode, b"h" if mode in ON else b"l")
        self._reset()
        return bytes(out)
