"""A replay of a terminal's old output to another terminal: without queries, and with its modes.

A query (device attributes, cursor position, colours, modes) makes the terminal that reads it send
an answer as input of the program: in a replay, of whatever program runs now. So queries are
removed, and everything else is kept to the byte. Only where a query cut an unfinished sequence
short, `ESC \\` takes its place and does the same; if that would make another query, CAN takes the
place of both.

A mode that a program switched on before the replay begins isn't in it. Without it, a full-screen
program would be drawn over the normal screen, and get no mouse events.

Source: XTerm Control Sequences (ctlseqs); ECMA-48; kitty keyboard protocol.
"""

import re
from collections import deque
from collections.abc import Mapping
from typing import Final

# A sequence begins with ESC and a letter, or with the C1 control that stands for both, encoded in
# UTF-8: C2 and a byte from 80 to 9F. Mixtures of the two are no UTF-8, and never occur. All
# repetitions are possessive or end at the first byte that they exclude, so that no output makes
# the search backtrack.
INTRODUCER: Final = rb"[\x1b\xc2]"
ST: Final = rb"[\x1b\xc2][\\\x9c]"
# The content of a string; it ends at a terminator, at CAN or SUB, and where a sequence begins.
CONTENT: Final = rb"(?: [^\x07\x18\x1a\x1b\xc2]++ | \xc2 (?! [\x80-\x9f] ) )*+"
# What follows the introducer of a query. Settings with the same final byte are kept.
QUERY: Final = rb"""(?:
    [Z\x9a]                                                 # DECID
  | [\[\x9b] (?:
        [>=]?+ 0*+ (?: ; [0-9;]*+ )?+ c                     # DA1, DA2, DA3
      | \?? [0-9:;]*+ (?: n | \$p )                         # DSR, DECRQM
      | \? [0-9:;]*+ [mug]                # XTQMODKEYS, kitty's flags, XTQFMTKEYS
      | \? [0-9]++ ; 0*+ [14] (?: ; [0-9;]*+ )?+ S          # XTSMGRAPHICS, reading
      | > 0*+ (?: ; [0-9;]*+ )?+ q                          # XTVERSION
      | 0*+ 1? (?: ; [0-9;]*+ )?+ x                         # DECREQTPARM
      | 0*+ (?: 1[1345689] | 2[01] ) (?: ; [0-9;]*+ )?+ t   # window reports
        # DECRQTSR, DECRQPSR; DECRQCRA; DECRQUPSS; DECSR; DECRQDE; DECRQLP; XTREPORTSGR
      | [0-9;]*+ (?: \$[uw] | \*y | &u | \+p | "v | '\| | \#[|R] )
    )
  | [\]\x9d] 0*+ (?:
        # Colours, font, selection, pointer shape, if there is a question mark.
        (?: 4 | 5 | 1[0-9] | 2[12] | 5[02] | 6[01] | 7[0-2][0-9] ) ; [^\x07\x18\x1a\x1b\xc2?]*+ \?
      | 776;\?                                              # rxvt-unicode: size of a cell
      | 1337; (?: Capabilities | ReportCellSize | ReportVariable | RequestUpload )    # iTerm2
        # kitty's notifications and clipboard
      | 99; (?: [^\x07\x18\x1a\x1b\xc2;]*? : )?? p= (?: \? | alive )
      | 5522; (?: [^\x07\x18\x1a\x1b\xc2;]*? : )?? type=read
    ) %(CONTENT)b (?: \x07 | %(ST)b )
  | [P\x90] [0-9;]*+ [$+] [qQ] %(CONTENT)b %(ST)b           # DECRQSS, XTGETTCAP
  | [_\x9f] G (?= [^\x07\x18\x1a\x1b\xc2;]*? a=q ) %(CONTENT)b %(ST)b   # kitty graphics
)""" % {b"CONTENT": CONTENT, b"ST": ST}
# What follows the introducer of a sequence without an end; nothing may follow it.
OPEN: Final = rb"(?: [\[\x9b] [ -?]*+ | [\]PX^_\x90\x98\x9d-\x9f] %b | [ -/]*+ )" % CONTENT
QUERIES: Final = re.compile(
    rb"%b (?: %b | (?P<open> %b ) %b %b )" % (INTRODUCER, QUERY, OPEN, INTRODUCER, QUERY),
    re.VERBOSE,
)
# What may go on in the next piece: an open sequence, with one that it cuts short. A final ESC may
# be the beginning of a terminator.
TAIL: Final = re.compile(
    rb"%b %b (?: %b %b )?+ \x1b?+ \Z" % (INTRODUCER, OPEN, INTRODUCER, OPEN), re.VERBOSE
)
CAN: Final = b"\x18"  # cancels a sequence
ENQ: Final = b"\x05"  # a query by itself: the terminal sends its answerback message
# An open sequence is held back up to this length; a longer one is no query.
MOST_HELD_BYTES: Final = 16 << 10

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
SWITCHES: Final = (b"\x1b[?", b"\x1bc", b"\x1b=", b"\x1b>", b"\x1b[!p")
OPEN_SWITCH: Final = re.compile(rb"\x1b(?:\[(?:\?[0-9;]{0,60}|!)?)?\Z")
MOST_SWITCH_BYTES: Final = 64
# The changes of one mode that are kept; a program may hide and show the cursor each time it draws.
MAX_CHANGES: Final = 32


class ReplayFilter:
    """Removes queries from output that comes in pieces, wherever those are cut."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Filter a piece; a sequence that may still be open is held back."""
        data = self._held + piece.replace(ENQ, b"")
        data = QUERIES.sub(_replacement, data)
        tail = TAIL.search(data)
        end = len(data) if tail is None else tail.start()
        if len(data) - end > MOST_HELD_BYTES:
            end = len(data)
        self._held = data[end:]
        return data[:end]

    def flush(self) -> bytes:
        rest, self._held = self._held, b""
        return rest


def _replacement(match: re.Match[bytes]) -> bytes:
    if match["open"] is None:
        return b""
    closed = match[0][:1] + match["open"] + b"\x1b\\"
    return CAN if QUERIES.fullmatch(closed) else closed


class Modes:
    """Reads all output, in pieces cut anywhere, and records where modes changed."""

    __slots__ = ("_changes", "_end", "_unfinished")

    def __init__(self) -> None:
        self._end = 0
        self._unfinished = b""  # a sequence that goes on in the next piece
        # By mode: offsets of its changes, and whether it is on from there.
        self._changes: dict[int, deque[tuple[int, bool]]] = {}

    def feed(self, data: bytes) -> None:
        self._end += len(data)
        if self._unfinished:
            data = self._unfinished + data
            self._unfinished = b""
        elif b"\x1b" not in data:
            return
        last = data.rfind(b"\x1b", -MOST_SWITCH_BYTES)
        if last >= 0 and OPEN_SWITCH.match(data, last):
            self._unfinished = data[last:]
        if any(beginning in data for beginning in SWITCHES):
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
