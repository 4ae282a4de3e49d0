"""This process's own terminal: raw while it is somebody else's, and restored whatever happens.

Source: termios(3), ioctl_tty(2).
"""

import os
import re
import select
import signal
import termios
import tty
from typing import Final

from procd.cli.failure import Failure
from procd.cli.io import STDIN, STDOUT, write_all
from procd.cli.modes import ORIGIN, Modes
from procd.output.replay import MOST_HELD_BYTES, ReplayFilter, unfinished

# How long a terminal may take to show something before it counts as stopped.
STOPPED_S: Final = 1.0
# Columns or rows that a server's terminal may have.
MOST: Final = 1000
# A character that goes on: RFC 3629.
CHARACTER: Final = re.compile(
    rb"(?: [\xc3-\xdf] | [\xe0-\xef] [\x80-\xbf]? | [\xf0-\xf4] [\x80-\xbf]{0,2} ) \Z",
    re.VERBOSE,
)
CAN: Final = b"\x18"  # ends a sequence, and forgets it


class Terminal:
    """The terminal on standard input and output, raw between `__enter__` and `__exit__`.

    Raises:
        Failure: there is none.
    """

    def __init__(self) -> None:
        if not (os.isatty(STDIN) and os.isatty(STDOUT)):
            raise Failure(
                "input and output must be a terminal",
                "for a single command in a script there is `procd exec`",
            )
        self._modes = Modes()
        self._queries: ReplayFilter | None = None  # while they aren't for this one to answer
        self._begun = b""  # a sequence or character that what comes next ends
        self._before = termios.tcgetattr(STDIN)

    def __enter__(self) -> "Terminal":
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    @property
    def size(self) -> tuple[int, int] | None:
        """Columns and rows, as far as a server's terminal may have them; None if nobody knows them.

        Source: ioctl_tty(2), TIOCGWINSZ: they are 0 until somebody has set them.
        """
        columns, rows = os.get_terminal_size(STDOUT)
        return (min(columns, MOST), min(rows, MOST)) if columns and rows else None

    def enter(self) -> None:
        """Have every key come as it is, and everything written go out as it is."""
        tty.setraw(STDIN, termios.TCSANOW)

    def leave(self) -> None:
        """Restore it as it was before, and undo what programs did to it."""
        try:
            # Not TCSADRAIN: a terminal that is stopped would never let go.
            termios.tcsetattr(STDIN, termios.TCSANOW, self._before)
            if select.select([], [STDOUT], [], STOPPED_S)[1]:
                self._undo()
        except (termios.error, OSError, Failure):
            return  # it has gone: nothing is left to restore

    def write(self, data: bytes) -> None:
        """Show output of the terminal on the server.

        Raises:
            Failure: this one has gone.
        """
        if self._queries is not None:
            data = self._queries.feed(data)
        self._modes.feed(data)
        write_all(STDOUT, data)
        self._begun = _begun((self._begun + data)[-MOST_HELD_BYTES:])

    def answer(self, may: bool) -> None:  # noqa: FBT001 - says it
        """Be the one that answers what programs ask their terminal, or not.

        Raises:
            Failure: this one has gone.
        """
        if may and self._queries is not None:
            rest = self._queries.flush()
            self._queries = None
            self.write(rest)
        elif not may and self._queries is None:
            self._queries = ReplayFilter()

    def clear(self) -> None:
        """Show nothing, for what comes begins before what is shown."""
        self._undo()
        write_all(STDOUT, b"\x1b[H\x1b[2J")
        if self._queries is not None:
            self._queries = ReplayFilter()

    def _undo(self) -> None:
        write_all(STDOUT, self._cut + self._modes.undo())
        self._begun = b""

    @property
    def _cut(self) -> bytes:
        return CAN if self._begun else b""

    def tell(self, text: str) -> None:
        """Show a line of our own, where it does the least harm, and have all go on behind it."""
        text = f"[procd: {text}]"
        if self._modes.alternate:
            columns, rows = self.size or (80, MOST)  # beyond the last row is on it
            # What is too long for the row would scroll the screen.
            shown = f"\x1b[{rows};1H\x1b(B\x0f\x1b[0;7m{text[: columns - 1]}\x1b[m\x1b[K"
            if self._modes.origin:  # else the row is one of the region
                shown = f"\x1b[?{ORIGIN}l{shown}\x1b[?{ORIGIN}h"
            line = f"\x1b7{shown}\x1b8"
        else:
            line = f"\r\n\x1b[7m{text}\x1b[27m\r\n"  # the program's colours stay
        write_all(STDOUT, self._cut + line.encode() + self._begun)

    def suspend(self) -> None:
        """Stop, as every other program does at Ctrl-Z in its shell, until it is continued."""
        self.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.enter()


def _begun(output: bytes) -> bytes:
    """The sequence or character that isn't complete at the end."""
    character = CHARACTER.search(output, max(0, len(output) - 3))
    return unfinished(output) if character is None else character[0]
