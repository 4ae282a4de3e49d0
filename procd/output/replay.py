r"""What of a terminal's past may be shown to a terminal that attaches later.

A query (device attributes, cursor position, colours, modes) makes the terminal that reads it type
an answer into the program's input. Shown again, it would type that answer into whatever runs now.
So queries are taken out of a replay; everything else stays to the byte. Only where half a sequence
or half a character stands right before a query, which cut it short, `ESC \` does that instead.

Source: XTerm Control Sequences (ctlseqs); ECMA-48; the parser of the VT500 series, with which
xterm.js agrees; kitty keyboard protocol.
"""

import re
from typing import Final

# A sequence begins with ESC and a letter, or with the C1 control that stands for both, in UTF-8.
# Repetitions are possessive, so that no output, however odd, makes the search go back over it.
FIRST: Final = rb"[\x1b\xc2]"
# A byte of no character. Terminals such as xterm.js drop it before they look for sequences, and the
# bytes of U+FEFF; any other character ends a CSI.
SPOILT: Final = rb"""
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


def _any(controls: bytes) -> bytes:
    """A pattern for as many of these as there are, and bytes of no character."""
    return rb"%b*+ (?: %b %b*+ )*+" % (controls, SPOILT, controls)


# Controls are obeyed where they stand behind ESC and in a CSI, and ignored in a string. So is DEL,
# except in a string. What is ignored between the letters of a string's beginning may be no ASCII.
OBEYED: Final = _any(rb"[\x00-\x17\x19\x1c-\x1f\x7f]")
IGNORED: Final = rb"[\x00-\x06\x08-\x17\x19\x1c-\x1f\x80-\xc1\xc3-\xff]*+"
REPORTS: Final = (b"Capabilities", b"ReportCellSize", b"ReportVariable", b"RequestUpload")
# Others of kitty's keys and values, before the one that counts.
KEYS: Final = rb"(?: [^\x07\x18\x1a\x1b\xc2;]*? : )??"
# A CSI's parameters and intermediates, and controls.
PARAMETERS: Final = _any(rb"[\x00-\x17\x19\x1c-\x3f\x7f]")
# A string's text ends at a terminator, at CAN or SUB, and where another sequence begins.
OSC_TEXT: Final = rb"(?: [^\x07\x18\x1a\x1b\xc2]++ | \xc2 (?! [\x80-\x9f] ) )*+"
TEXT: Final = rb"(?: [^\x18\x1a\x1b\xc2]++ | \xc2 (?! [\x80-\x9f] ) )*+"
# What of a sequence may follow its first byte. Behind C2 that may be nothing: half a character.
UNFINISHED: Final = b"".join(
    (
        rb"(?> (?: (?<=\x1b)", OBEYED, rb"\[ | (?<=\xc2) \x9b )", PARAMETERS,
        rb"  | (?: (?<=\x1b)", OBEYED, rb"\] | (?<=\xc2) \x9d )", OSC_TEXT,
        rb"  | (?: (?<=\x1b)", OBEYED, rb"[PX^_] | (?<=\xc2) [\x90\x98\x9e\x9f] )", TEXT,
        rb"  | (?<=\x1b)", _any(rb"[\x00-\x17\x19\x1c-\x2f\x7f]"),
        rb"  | (?<=\xc2) )",
    )
)  # fmt: skip
# Cut short by another sequence a string counts all the same.
END: Final = rb"(?: \x1b\\ | \xc2\x9c | (?= \x1b [^\\] | \xc2 [\x80-\x9f] ) )"


def _spelt(text: bytes) -> bytes:
    """A pattern for `text` in a string, with what is ignored."""
    return b"".join(b"~" + re.escape(text[index : index + 1]) for index in range(len(text)))


# What follows the first byte of a query. Requests and nothing else: settings that share a final
# byte with a request stay. Of a CSI, CSI_QUERY decides. `~` stands for what is ignored.
QUERY: Final = b"".join(
    (rb"""
      (?: (?<=\x1b)""", OBEYED, rb"""(?= [Z\[\]P_] ) | (?<=\xc2) (?= [\x9a\x9b\x9d\x90\x9f] ) )
      (?:
        [Z\x9a]                                     # DECID
      | [\[\x9b] (?:""", OBEYED, rb""" \? """, PARAMETERS, rb"""[gm]
                 |""", PARAMETERS, rb"""[cnpqtuvwxyRS|] )
      | [\]\x9d] (?: ~0 )*+ (?:
            # Colours, font, selection, pointer shape, where a question mark is asking.
            ~(?: 4 | 5 | 1~[0-9] | 2~[12] | 5~[02] | 6~[01] | 7~[0-2]~[0-9] )~;
            (?= (?: [^\x07\x18\x1a\x1b\xc2?]++ | \xc2 (?! [\x80-\x9f] ) )*+ \? )
          |""", _spelt(b"776;?"), rb"""    # rxvt-unicode: size of a cell
            # iTerm2's reports; kitty's notifications and clipboard.
          |""", _spelt(b"1337;"), rb"(?:", b"|".join(map(_spelt, REPORTS)), rb""")
          |""", _spelt(b"99;"), KEYS, _spelt(b"p="), rb"""(?: ~\? |""", _spelt(b"alive"), rb""")
          |""", _spelt(b"5522;"), KEYS, _spelt(b"type=read"), rb"""
        )""", OSC_TEXT, rb"""(?: \x07 |""", END, rb""")
      | [P\x90] (?:""", OBEYED, rb"""[0-9:;<=>?] )*+""", OBEYED, rb"""[$+]""", OBEYED, rb"""[qQ]
        """, TEXT, END, rb"""                       # DECRQSS, XTGETTCAP
      | [_\x9f] ~G (?= [^\x18\x1a\x1b\xc2;]*? a~=~q )""", TEXT, END, rb"""    # kitty graphics
      )
    """)
).replace(b"~", IGNORED)  # fmt: skip
# What stands between CSI and the end, less the controls.
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
QUERIES: Final = re.compile(
    # First what is quickly told to begin nothing: a run of ESC, the rest of Latin-1.
    rb"""(?: \x1b (?! \x1b{2} ) | \xc2 (?! [\xa0-\xbf] ) )
    (?: (?P<query> %b ) | (?P<cut> %b ) %b (?P<cutting> %b ) )"""
    % (QUERY, UNFINISHED, FIRST, QUERY),
    re.VERBOSE,
)
# A sequence that may go on behind the end, with the one that it cuts short. An ESC may yet be the
# string's terminator.
OPEN: Final = re.compile(
    rb"%b (?: %b %b )?+ (?: %b )?+ \x1b?+ \Z" % (FIRST, UNFINISHED, FIRST, UNFINISHED),
    re.VERBOSE,
)
ESC: Final = 0x1B
FIRSTS: Final = (b"\x1b", *(b"\xc2%c" % control for control in b"\x90\x98\x9b\x9d\x9e\x9f"))
ENQ: Final = b"\x05"  # answers with whatever the terminal has as its answerback
CONTROLS: Final = bytes({*range(0x20), 0x7F} - {0x18, 0x1A, 0x1B})
NOT_OBEYED: Final = bytes(set(range(0x100)) - {*CONTROLS} | {0x7F})
SKIPPED: Final = CONTROLS + bytes(range(0x80, 0x100))

# What may be held back; a longer sequence is no query, and is let go.
MOST_HELD_BYTES: Final = 16 << 10
# Stands for the beginning of a sequence that was let go: whatever is in it, this is no query.
LET_GO: Final = b"\x1bX"


def unfinished(data: bytes) -> bytes:
    """The sequence at the end that may still be open; empty if there is none."""
    still_open = OPEN.search(data, _third_last(data))
    return b"" if still_open is None else still_open[0]


class ReplayFilter:
    """Takes the queries out, a piece at a time; the cuts between pieces make no difference."""

    __slots__ = ("_held", "_shown_bytes")

    def __init__(self) -> None:
        self._held = b""
        self._shown_bytes = 0  # so much of `_held` was let go already

    def feed(self, piece: bytes) -> bytes:
        """Filter what is certain so far; a sequence that may still be open is held back."""
        data = self._held + piece.replace(ENQ, b"")
        self._held = unfinished(data)
        certain = len(data) - len(self._held)
        shown_bytes = self._shown_bytes
        if certain:
            self._shown_bytes = 0
        past = _filtered(data, certain)
        if len(self._held) > MOST_HELD_BYTES:
            past += self._held
            self._held = LET_GO
            self._shown_bytes = len(LET_GO)
        return past[shown_bytes:]

    def flush(self) -> bytes:
        """The rest, with which no sequence goes on."""
        rest = _filtered(self._held + b"\0", len(self._held))[self._shown_bytes :]
        self._held = b""
        self._shown_bytes = 0
        return rest


def _filtered(data: bytes, end: int) -> bytes:
    """`data` up to `end` without the queries that begin there."""
    kept: list[bytes] = []
    position = 0
    for match in QUERIES.finditer(data):
        if match.start() >= end:
            break
        left = _left(match)
        if left is not None:
            kept += data[position : match.start()], left
            position = match.end()
    kept.append(data[position:end])
    return b"".join(kept)


def _third_last(data: bytes) -> int:
    """Where the third last sequence begins: the one cut short, the open one, perhaps its end."""
    place = len(data) - data.endswith(b"\xc2")
    for _ in range(3):
        earlier = max(data.rfind(first, 0, place) for first in FIRSTS)
        if earlier < 0:
            break
        place = earlier
    return place - data.endswith(b"\xc2", 0, place)


def _left(match: re.Match[bytes]) -> bytes | None:
    """What stays where a query was; None if it is none."""
    name = "query" if match["cut"] is None else "cutting"
    sequence = obeyed = match[name]
    if match.string[match.start(name) - 1] == ESC:
        sequence = sequence.lstrip(SKIPPED)
    if sequence[0] not in b"[\x9b":
        obeyed = obeyed[: -len(sequence)]
    elif CSI_QUERY.fullmatch(sequence[1:].translate(None, SKIPPED)) is None:
        return None
    controls = obeyed.translate(None, NOT_OBEYED)
    if match["cut"] is None:
        return controls
    cut_bytes = 1 + len(match["cut"])
    return match[0][:cut_bytes] + b"\x1b\\" + controls
