"""This process's own terminal: raw while it is somebody else's, and restored whatever happens.

Source: termios(3), ioctl_tty(2).
"""

import os
import select
import signal
import termios
import tty
from types import TracebackType
from typing import Final

from procd.cli.failure import Failure
from procd.cli.io import STDIN, STDOUT, write_all
from procd.cli.modes import Modes

# How long a terminal may take to show something before it counts as stopped.
STOPPED_S: Final = 1.0
# Columns or rows that a server's terminal may have.
MOST: Final = 1000


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
        self.modes = Modes()
        self._before = termios.tcgetattr(STDIN)

    def __enter__(self) -> "Terminal":
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
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
                write_all(STDOUT, self.modes.undo())
        except (termios.error, OSError, Failure):
            return  # it has gone: nothing is left to restore

    def write(self, data: bytes) -> None:
        """Show output of the terminal on the server.

        Raises:
            Failure: this one has gone.
        """
        self.modes.feed(data)
        write_all(STDOUT, data)

    def tell(self, text: str) -> None:
        """Show a line of our own, where it does the least harm."""
        if self.modes.alternate:
            _, rows = self.size or (MOST, MOST)  # beyond the last row is on it
            line = f"\x1b7\x1b[{rows};1H\x1b[7m[procd: {text}]\x1b[m\x1b[K\x1b8"
        else:
            line = f"\r\n\x1b[7m[procd: {text}]\x1b[m\r\n"
        write_all(STDOUT, line.encode())

    def suspend(self) -> None:
        """Stop, as every other program does at Ctrl-Z in its shell, until it is continued."""
        self.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.enter()
