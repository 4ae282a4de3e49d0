"""What of a terminal's past may be shown to a terminal that attaches later.

A query (device attributes, cursor position, colours, modes) makes the terminal that reads it type
an answer into the program's input. Shown again, it would type that answer into whatever runs now.
So queries are taken out of a replay; everything else stays to the byte.

Source: XTerm Control Sequences (ctlseqs); ECMA-48; kitty keyboard protocol.
"""

import re
from typing import Final

# Requests and nothing else: settings that share a final byte with a request stay. Repetitions are
# possessive, so that no output, however odd, makes the search go back over it.
QUERY: Final = rb"""
      \x1b (?:
        Z                                    # DECID
      | \[ (?:
            [>=]? 0?+ c                      # DA1, DA2, DA3
          | \? (?:
                u                            # kitty keyboard flags
              | [0-9;]*+ (?: n | \$p | m )   # DECDSR, DECRQM (is this mode set?), XTQMODKEYS
              | [0-9]++ ; [14] (?: ; [0-9;]*+ )?+ S    # XTSMGRAPHICS, reading
            )
          | > 0?+ q                          # XTVERSION
          | [01]?+ x                         # DECREQTPARM
          | (?: 1[1345689] | 2[01] ) (?: ; [0-9;]*+ )?+ t    # window reports
          | [0-9;]*+ (?: n | \$[puw] | \*y )  # DSR, DECRQM, DECRQTSR, DECRQPSR, DECRQCRA
        )
      | \] (?:
            # Colours, selection, pointer shape and the like, where a question mark is asking.
            (?: 4 | 5 | 1[0-9] | 2[12] | 52 | 6[01] | 7[0-9][0-9] ) ; (?= [^\x07\x1b?]*+ \? )
          | 1337 ; (?: ReportCellSize | ReportVariable | RequestUpload )    # iTerm2 reports
        ) [^\x07\x1b]*+ (?: \x07 | \x1b \\ )
      | P [$+] [qQ] [^\x07\x1b]*+ (?: \x07 | \x1b \\ )    # DECRQSS, XTGETTCAP
      | _ G (?= [^\x1b;]*? a=q ) [^\x1b]*+ \x1b \\         # kitty graphics query
    )
    """


# A sequence that the next one cuts short. With a query taken out behind it, it would go on with
# what follows, so it goes too.
CUT_SHORT: Final = rb"""
    (?: \x1b (?: \[ [0-?]*+ [\x20-/]*+ | [\]P_^X] [^\x07\x1b]*+ )?+ (?= \x1b (?! \\ ) ) )
    """
QUERIES: Final = re.compile(
    rb"(?P<cut>" + CUT_SHORT + rb"++)(?P<query>" + QUERY + rb")?|" + QUERY, re.VERBOSE
)
# Where a sequence begins: an ESC, but not that of a string's end, with what it cuts short.
STARTS: Final = re.compile(CUT_SHORT + rb"*+ \x1b (?! \\ )", re.VERBOSE)
ENQ: Final = b"\x05"  # answers with whatever the terminal has as its answerback


def without_queries(output: bytes) -> bytes:
    """`output` less the terminal queries in it."""
    if ENQ in output:
        output = output.replace(ENQ, b"")
    return QUERIES.sub(_kept, output) if b"\x1b" in output else output


def _kept(match: re.Match[bytes]) -> bytes:
    cut: bytes | None = match["cut"]
    return b"" if cut is None or match["query"] is not None else cut


class ReplayFilter:
    """`without_queries`, a piece at a time: the cuts between pieces make no difference."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Filter what is certain so far; a sequence that may still be open is held back."""
        data = self._held + piece.replace(ENQ, b"")
        # An ESC that ends the piece may end a string, too.
        safe = len(data) - data.endswith(b"\x1b")
        safe = max((match.start() for match in STARTS.finditer(data, 0, safe)), default=safe)
        self._held = data[safe:]
        return without_queries(data[:safe])

    def flush(self) -> bytes:
        """The rest."""
        held, self._held = self._held, b""
        return without_queries(held)
