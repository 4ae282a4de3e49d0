r"""Removing queries from old output of a terminal, before another terminal gets it.

A query (device attributes, cursor position, colours, modes) makes the terminal that reads it send
an answer as input of the program. In a replay that answer would go to whatever program runs now. So
queries are removed, and everything else is kept to the byte, with one exception: where a query cut
an unfinished sequence or character short, `ESC \` takes its place and does the same.

Source: XTerm Control Sequences (ctlseqs); ECMA-48; the parser of the VT500 series, with which
xterm.js agrees; kitty keyboard protocol.
"""

import re
from typing import Final

# A sequence begins with ESC and a letter, or with the C1 control that stands for both, encoded in
# UTF-8: C2 and a byte from 80 to 9F. All repetitions are possessive, so that no output makes the
# search backtrack.
INTRODUCER: Final = rb"[\x1b\xc2]"
# A byte of an invalid character. Terminals such as xterm.js drop these before they parse sequences,
# and U+FEFF too. Any valid character outside of ASCII ends a CSI.
INVALID_UTF8: Final = rb"""
    [\x80-\xff] (?!
        (?<= [\xc2-\xdf] ) [\x80-\xbf]
      | (?<= \xe0 ) [\xa0-\xbf] [\x80-\xbf]
      | (?<= [\xe1-\xec\xee\xef] ) [\x80-\xbf]{2} (?<! \xef\xbb\xbf )
      | (?<= \xed ) [\x80-\x9f] [\x80-\xbf]
      | (?<= \xf0 ) [\x90-\xbf] [\x80-\xbf]{2}
      | (?<= [\xf1-\xf3] ) [\x80-\xbf]{3}
      | (?<= \xf4 ) [\x80-\x8f] [\x80-\xbf]{2}
    )
"""


def _any_of(bytes_class: bytes) -> bytes:
    """A pattern for any number of these bytes, with invalid characters among them."""
    return rb"%b*+ (?: %b %b*+ )*+" % (bytes_class, INVALID_UTF8, bytes_class)


# Controls that a terminal executes though they stand inside of a sequence: after ESC and in a CSI.
# Inside of a string they are ignored, as is DEL outside of one.
EXECUTED: Final = _any_of(rb"[\x00-\x17\x19\x1c-\x1f\x7f]")
# What is ignored between the characters at the beginning of a string.
IGNORED: Final = rb"[\x00-\x06\x08-\x17\x19\x1c-\x1f\x80-\xc1\xc3-\xff]*+"
# Parameters and intermediates of a CSI, and controls among them.
PARAMETERS: Final = _any_of(rb"[\x00-\x17\x19\x1c-\x3f\x7f]")
# The content of a string (OSC; DCS, SOS, PM and APC). It ends at a terminator, at CAN or SUB, and
# where another sequence begins.
OSC_CONTENT: Final = rb"(?: [^\x07\x18\x1a\x1b\xc2]++ | \xc2 (?! [\x80-\x9f] ) )*+"
CONTENT: Final = rb"(?: [^\x18\x1a\x1b\xc2]++ | \xc2 (?! [\x80-\x9f] ) )*+"
# The end of a string. A string that another sequence cuts short counts all the same.
STRING_END: Final = rb"(?: \x1b\\ | \xc2\x9c | (?= \x1b [^\\] | \xc2 [\x80-\x9f] ) )"
# What may follow the first byte of a sequence that isn't finished; after C2 it may be nothing.
UNFINISHED: Final = b"".join(
    (
        rb"(?> (?: (?<=\x1b)", EXECUTED, rb"\[ | (?<=\xc2) \x9b )", PARAMETERS,
        rb"  | (?: (?<=\x1b)", EXECUTED, rb"\] | (?<=\xc2) \x9d )", OSC_CONTENT,
        rb"  | (?: (?<=\x1b)", EXECUTED, rb"[PX^_] | (?<=\xc2) [\x90\x98\x9e\x9f] )", CONTENT,
        rb"  | (?<=\x1b)", _any_of(rb"[\x00-\x17\x19\x1c-\x2f\x7f]"),
        rb"  | (?<=\xc2) )",
    )
)  # fmt: skip

ITERM_REPORTS: Final = (b"Capabilities", b"ReportCellSize", b"ReportVariable", b"RequestUpload")
# Keys and values of kitty's strings before the one that makes it a query.
KITTY_KEYS: Final = rb"(?: [^\x07\x18\x1a\x1b\xc2;]*? : )??"


def _literal(text: bytes) -> bytes:
    """A pattern for `text` at the beginning of a string; `~` stands for IGNORED."""
    return b"".join(b"~" + re.escape(text[index : index + 1]) for index in range(len(text)))


# What follows the first byte of a query. Only requests: settings with the same final byte are kept.
# Of a CSI this finds candidates, and CSI_QUERY decides. `~` stands for IGNORED.
QUERY: Final = b"".join(
    (rb"""
      (?: (?<=\x1b)""", EXECUTED, rb"""(?= [Z\[\]P_] ) | (?<=\xc2) (?= [\x9a\x9b\x9d\x90\x9f] ) )
      (?:
        [Z\x9a]                                     # DECID
      | [\[\x9b] (?:""", EXECUTED, rb""" \? """, PARAMETERS, rb"""[gm]
                 |""", PARAMETERS, rb"""[cnpqtuvwxyRS|] )
      | [\]\x9d] (?: ~0 )*+ (?:
            # Colours, font, selection, pointer shape, if there is a question mark.
            ~(?: 4 | 5 | 1~[0-9] | 2~[12] | 5~[02] | 6~[01] | 7~[0-2]~[0-9] )~;
            (?= (?: [^\x07\x18\x1a\x1b\xc2?]++ | \xc2 (?! [\x80-\x9f] ) )*+ \? )
          |""", _literal(b"776;?"), rb"""    # rxvt-unicode: size of a cell
            # iTerm2's reports; kitty's notifications and clipboard.
          |""", _literal(b"1337;"), rb"(?:", b"|".join(map(_literal, ITERM_REPORTS)), rb""")
          |""", _literal(b"99;"), KITTY_KEYS, _literal(b"p="),
                rb"""(?: ~\? |""", _literal(b"alive"), rb""")
          |""", _literal(b"5522;"), KITTY_KEYS, _literal(b"type=read"), rb"""
        )""", OSC_CONTENT, rb"""(?: \x07 |""", STRING_END, rb""")
        # DECRQSS, XTGETTCAP
      | [P\x90] (?:""", EXECUTED, rb"""[0-9:;<=>?] )*+""",
            EXECUTED, rb"""[$+]""", EXECUTED, rb"""[qQ]""", CONTENT, STRING_END, rb"""
        # kitty graphics
      | [_\x9f] ~G (?= [^\x18\x1a\x1b\xc2;]*? a~=~q )""", CONTENT, STRING_END, rb"""
      )
    """)
).replace(b"~", IGNORED)  # fmt: skip
# A CSI query from the byte after CSI to its end, without controls.
CSI_QUERY: Final = re.compile(
    rb"""
    [>=]? 0*+ (?: [:;] [0-9:;]*+ )?+ c                  # DA1, DA2, DA3
  | \? (?:
        # DECDSR, DECRQM, XTQMODKEYS, kitty's flags, XTQFMTKEYS
        [0-9:;]*+ (?: n | \$p | m | u | g )
      | [0-9]++ ; 0*+ [14] (?: ; [0-9:;]*+ )?+ S        # XTSMGRAPHICS, reading
    )
  | > 0*+ (?: [:;] [0-9:;]*+ )?+ q                      # XTVERSION
  | 0*+ 1? (?: ; [0-9;]*+ )?+ x                         # DECREQTPARM
  | 0*+ (?: 1[1345689] | 2[01] ) (?: [:;] [0-9:;]*+ )?+ t    # window reports
    # DSR; DECRQM, DECRQTSR, DECRQPSR; DECRQCRA; DECRQUPSS; DECSR; DECRQDE; DECRQLP; XTREPORTSGR
  | [0-9:;]*+ (?: n | \$[puw] | \*y | &u | \+p | "v | '\| | \#[|R] )
    """,
    re.VERBOSE,
)
# A query, or an unfinished sequence that a query cuts short. The lookaheads come first: they are a
# quick way to skip a run of ESC, and the other characters of Latin-1.
QUERIES: Final = re.compile(
    rb"""(?: \x1b (?! \x1b{2} ) | \xc2 (?! [\xa0-\xbf] ) )
    (?: (?P<query> %b ) | (?P<cut> %b ) %b (?P<cutting> %b ) )"""
    % (QUERY, UNFINISHED, INTRODUCER, QUERY),
    re.VERBOSE,
)
# A sequence at the end of the data that may go on, with the sequence that it cuts short. A final
# ESC may be the beginning of a string's terminator.
OPEN: Final = re.compile(
    rb"%b (?: %b %b )?+ (?: %b )?+ \x1b?+ \Z" % (INTRODUCER, UNFINISHED, INTRODUCER, UNFINISHED),
    re.VERBOSE,
)
ESC: Final = 0x1B
INTRODUCERS: Final = (b"\x1b", *(b"\xc2%c" % control for control in b"\x90\x98\x9b\x9d\x9e\x9f"))
ENQ: Final = b"\x05"  # a query by itself: the terminal sends its answerback message
CONTROLS: Final = bytes({*range(0x20), 0x7F} - {0x18, 0x1A, 0x1B})
NOT_EXECUTED: Final = bytes(set(range(0x100)) - {*CONTROLS} | {0x7F})
SKIPPED: Final = CONTROLS + bytes(range(0x80, 0x100))

# An open sequence is held back up to this length; a longer one is no query, and is passed on.
MOST_HELD_BYTES: Final = 16 << 10
# Takes the place of an open sequence that was passed on: no query, and open like it.
PASSED_ON: Final = b"\x1bX"


def unfinished(data: bytes) -> bytes:
    """The sequence at the end of `data` that may still be open; empty if there is none."""
    still_open = OPEN.search(data, _third_last_sequence(data))
    return b"" if still_open is None else still_open[0]


class ReplayFilter:
    """Removes queries from output that comes in pieces, wherever those are cut."""

    __slots__ = ("_held", "_passed_on_bytes")

    def __init__(self) -> None:
        self._held = b""
        self._passed_on_bytes = 0  # how much of `_held` was returned before

    def feed(self, piece: bytes) -> bytes:
        """Filter a piece; a sequence that may still be open is held back."""
        data = self._held + piece.replace(ENQ, b"")
        self._held = unfinished(data)
        end = len(data) - len(self._held)
        passed_on_bytes = self._passed_on_bytes
        if end:
            self._passed_on_bytes = 0
        filtered = _without_queries(data, end)
        if len(self._held) > MOST_HELD_BYTES:
            filtered += self._held
            self._held = PASSED_ON
            self._passed_on_bytes = len(PASSED_ON)
        return filtered[passed_on_bytes:]

    def flush(self) -> bytes:
        """Return what is held back: nothing follows."""
        rest = _without_queries(self._held + b"\0", len(self._held))[self._passed_on_bytes :]
        self._held = b""
        self._passed_on_bytes = 0
        return rest


def _without_queries(data: bytes, end: int) -> bytes:
    """`data` up to `end` without the queries that begin there."""
    kept: list[bytes] = []
    position = 0
    for match in QUERIES.finditer(data):
        if match.start() >= end:
            break
        replacement = _replacement(match)
        if replacement is not None:
            kept += data[position : match.start()], replacement
            position = match.end()
    kept.append(data[position:end])
    return b"".join(kept)


def _third_last_sequence(data: bytes) -> int:
    """Where the third last sequence begins.

    The last may be open, or the terminator of an open string, which may cut another one short.
    """
    place = len(data) - data.endswith(b"\xc2")
    for _ in range(3):
        earlier = max(data.rfind(introducer, 0, place) for introducer in INTRODUCERS)
        if earlier < 0:
            break
        place = earlier
    return place - data.endswith(b"\xc2", 0, place)


def _replacement(match: re.Match[bytes]) -> bytes | None:
    """What takes the place of a match: controls that are executed; None if it is no query."""
    name = "query" if match["cut"] is None else "cutting"
    sequence = executed = match[name]
    if match.string[match.start(name) - 1] == ESC:
        sequence = sequence.lstrip(SKIPPED)
    if sequence[0] not in b"[\x9b":
        executed = executed[: -len(sequence)]
    elif CSI_QUERY.fullmatch(sequence[1:].translate(None, SKIPPED)) is None:
        return None
    controls = executed.translate(None, NOT_EXECUTED)
    if match["cut"] is None:
        return controls
    cut_bytes = 1 + len(match["cut"])
    return match[0][:cut_bytes] + b"\x1b\\" + controls
