"""What a program has switched on in a terminal, so that it can be switched off without it.

To undo what wasn't done changes nothing, so that where terminals differ more is undone.

Source: XTerm Control Sequences (DECSET, SM, DECSTBM, DECSCUSR, DECKPAM, SCS, XTMODKEYS, OSC 10 and
110); kitty keyboard protocol.
"""

import re
from typing import Final

# DEC private modes that are off in a terminal that nothing runs in, in the order of leaving them:
# keys, colours reversed, mouse, focus, paste, synchronised output, news of sizes, then the
# alternate screens.
OFF: Final = (
    1, 66, 5, 69, 9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2026, 2031, 2048,
)  # fmt: skip
SCREENS: Final = (47, 1047, 1049)
# Those that are on: wrapping, repeated keys, the cursor.
ON: Final = (7, 8, 25)
# Addressing from the top of the region: to leave it moves the cursor, even out of `ESC 8`.
ORIGIN: Final = 6
# ANSI modes that are off: keyboard locked, characters inserted, line feeds that return; and on: no
# local echo.
ANSI_OFF: Final = (2, 4, 20)
ANSI_ON: Final = (12,)

# One group for each, named as its method.
SEQUENCE: Final = re.compile(
    rb"(?P<shift>[\x0e\x0f])|\x1b(?:(?P<reset>c|\[!p)|\[\?(?P<private>[0-9;]{1,60}[hl])"
    rb"|\[(?P<ansi>[0-9;]{1,60}[hl])|(?P<keypad>[=>])|\((?P<charset>[ -/]*[0-~])"
    rb"|\[(?P<region>[0-9]*;?[0-9]*)r|\[(?P<shape>[0-9]*) q|\[>(?P<push>[0-9]*)u"
    rb"|\[<(?P<pop>[0-9]{0,9})u|\[=(?P<flags>[0-9;]*)u|\[>(?P<keys>[0-9]?(?:;[0-9]*)?[mn])"
    rb"|\](?P<colour>1[0-9]|4;[0-9]+);[^?\x07\x1b])"
)
UNFINISHED: Final = re.compile(rb"\x1b(?:\[[0-9;?<=>! ]*|\([ -/]*|\][0-9;]*)?\Z")
MAX_SEQUENCE_BYTES: Final = 64


class Modes:
    """Reads output, and knows how to undo what it did to the terminal."""

    def __init__(self) -> None:
        self._carry = b""
        self._keys: set[bytes] = set()
        self._colours: set[bytes] = set()
        self._reset()

    def _reset(self) -> None:
        self._private: set[int] = set()
        self._ansi: set[int] = set()
        self._keypad = self._region = self._shape = self._flags = False
        self._charset = self._shift = False
        self._keyboards = 0

    @property
    def alternate(self) -> bool:
        """Whether a full-screen program has the screen."""
        return bool(self._private & set(SCREENS))

    @property
    def origin(self) -> bool:
        """Whether rows are counted from the top of the region."""
        return ORIGIN in self._private

    def feed(self, data: bytes) -> None:
        """Take note of what was written to the terminal."""
        if self._carry:
            data = self._carry + data
            self._carry = b""
        elif not any(byte in data for byte in (b"\x1b", b"\x0e", b"\x0f")):
            return
        for match in SEQUENCE.finditer(data):
            assert match.lastgroup is not None
            self._note(match.lastgroup, match[match.lastgroup])
        tail = UNFINISHED.search(data, max(0, len(data) - MAX_SEQUENCE_BYTES))
        if tail is not None:
            self._carry = tail.group()

    def _note(self, kind: str, text: bytes) -> None:
        match kind:
            case "reset":
                screens = self._private & set(SCREENS) if text != b"c" else set[int]()
                self._reset()
                self._private = screens  # a soft reset keeps the screen
            case "private":
                _switch(self._private, text, (*OFF, *SCREENS, ORIGIN), ON)
            case "ansi":
                _switch(self._ansi, text, ANSI_OFF, ANSI_ON)
            case "keypad":
                self._keypad = text == b"="
            case "charset":
                self._charset = text != b"B"
            case "shift":
                self._shift = text == b"\x0e"
            case "region":
                self._region = bool(text.strip(b";"))
            case "shape":
                self._shape = text not in (b"", b"0")
            case "push":
                self._keyboards += 1
            case "pop":
                self._keyboards = max(0, self._keyboards - int(text or b"1"))
            case "flags":
                self._flags = text.partition(b";")[0] not in (b"", b"0")
            case "keys":
                resource, _, value = text[:-1].partition(b";")
                is_on = text.endswith(b"n") or value not in (b"", b"0")
                (self._keys.add if is_on else self._keys.discard)(resource)
                if not resource:
                    self._keys.clear()
            case _:
                self._colours.add(text.partition(b";")[0])

    def undo(self) -> bytes:
        """What to write so that the terminal is as if nothing had run in it."""
        out = bytearray(b"\x1b[m")
        if self._shift:
            out += b"\x0f"
        if self._charset:
            out += b"\x1b(B"
        if self._keyboards:
            out += b"\x1b[<%du" % self._keyboards
        if self._flags:
            out += b"\x1b[=0u"
        for resource in sorted(self._keys):
            out += b"\x1b[>%sm" % resource
        if self._region:
            out += b"\x1b7\x1b[r\x1b8"  # to set the region moves the cursor
        if ORIGIN in self._private:
            out += b"\x1b[?%dl\x1b[999H" % ORIGIN  # what is said next goes below all there is
        if self._keypad:
            out += b"\x1b>"
        if self._shape:
            out += b"\x1b[0 q"
        for mode in (*ANSI_OFF, *ANSI_ON):
            if mode in self._ansi:
                out += b"\x1b[%d%c" % (mode, b"h" if mode in ANSI_ON else b"l")
        for mode in (*OFF, *SCREENS, *ON):
            if mode in self._private:
                out += b"\x1b[?%d%c" % (mode, b"h" if mode in ON else b"l")
        for colour in sorted(self._colours):
            out += b"\x1b]10%s\x07" % colour if colour == b"4" else b"\x1b]1%s\x07" % colour
        self._reset()
        self._keys.clear()
        self._colours.clear()
        return bytes(out)


def _switch(changed: set[int], text: bytes, off: tuple[int, ...], on: tuple[int, ...]) -> None:
    """Note which modes are not as they usually are, of those that usually are off or on."""
    for number in text[:-1].split(b";"):
        mode = int(number or b"0")
        if mode in off or mode in on:
            differs = text.endswith(b"l") == (mode in on)
            (changed.add if differs else changed.discard)(mode)
