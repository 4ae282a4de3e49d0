"""This process's own terminal, while it shows the output of a terminal elsewhere.

Source: termios(3), ioctl_tty(2); XTerm Control Sequences; kitty keyboard protocol.
"""

import os
import re
import select
import signal
import termios
import tty
from typing import Final

from procd.cli.failure import Failure
from procd.cli.stdio import STDIN, STDOUT, write_all
from procd.output.replay import ReplayFilter

# A terminal that can't be written to for so long is stopped, and isn't reset.
STOPPED_S: Final = 1.0
# The most columns and rows that a terminal of the server may have.
MAX_SIZE: Final = 1000

SCREEN: Final = re.compile(rb"\x1b\[\?(?:[0-9;]*;)?(?:47|1047|1049)(?:;[0-9;]*)?([hl])|\x1b(c)")
MAX_SEQUENCE_BYTES: Final = 64
LEAVE_SCREEN: Final = b"\x1b[?1049l"
# What resets the modes that programs set, and changes nothing where none is set.
RESET: Final = b"".join(
    (
        b"\x0f\x1b(B",  # character sets
        b"\x1b[=0u\x1b[>4m\x1b>",  # kitty's keyboard protocol, modifyOtherKeys, keypad
        b"\x1b[2;4;20l\x1b[12h",  # keyboard lock, insert mode, automatic newline; no local echo
        b"\x1b[?1;5;66l",  # cursor keys, reverse colours, keypad
        b"\x1b[?9;1000;1001;1002;1003;1005;1006;1015;1016l",  # mouse
        b"\x1b[?1004;2004;2026;2031;2048l",  # focus, paste, synchronised output, reports
        b"\x1b[?7;8;25h\x1b[0 q",  # wrapping, key repetition, the cursor and its shape
        b"\x1b7\x1b[r\x1b8",  # the scroll region, to set which moves the cursor
        b"\x1b[m",
    )
)


class Output:
    """Writes a terminal's output to standard output, and resets what programs have set with it."""

    def __init__(self) -> None:
        self._tail = b""
        self.alternate_screen = False

    def write(self, data: bytes) -> None:
        if b"\x1b" in data or self._tail:
            recent = self._tail + data
            for match in SCREEN.finditer(recent):
                self.alternate_screen = match[1] == b"h"
            begin = recent.rfind(b"\x1b", -MAX_SEQUENCE_BYTES)
            self._tail = recent[begin:] if begin >= 0 else b""
        write_all(STDOUT, data)

    def reset(self) -> None:
        write_all(STDOUT, RESET + LEAVE_SCREEN * self.alternate_screen)
        self.alternate_screen = False
        self._tail = b""


class Terminal:
    """The terminal on standard input and output: raw within `with`, and restored afterwards.

    Methods that write raise Failure if the terminal is gone.
    """

    def __init__(self) -> None:
        if not (os.isatty(STDIN) and os.isatty(STDOUT)):
            raise Failure(
                "input and output must be a terminal",
                "for a single command in a script there is `procd exec`",
            )
        self._output = Output()
        self._filter: ReplayFilter | None = None  # while another terminal answers queries
        self._attributes = termios.tcgetattr(STDIN)

    def __enter__(self) -> "Terminal":
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    @property
    def size(self) -> tuple[int, int] | None:
        """Columns and rows; None if they are unknown, as those of a serial console."""
        columns, rows = os.get_terminal_size(STDOUT)
        return (min(columns, MAX_SIZE), min(rows, MAX_SIZE)) if columns and rows else None

    def enter(self) -> None:
        tty.setraw(STDIN, termios.TCSANOW)

    def leave(self) -> None:
        try:
            # Not TCSADRAIN, which waits for as long as the terminal is stopped.
            termios.tcsetattr(STDIN, termios.TCSANOW, self._attributes)
            if select.select([], [STDOUT], [], STOPPED_S)[1]:
                self._output.reset()
        except (termios.error, OSError, Failure):
            return  # the terminal is gone

    def write(self, data: bytes) -> None:
        self._output.write(data if self._filter is None else self._filter.feed(data))

    def answer_queries(self, answers: bool) -> None:  # noqa: FBT001 - the name says it
        """Say whether this terminal is to answer what programs ask their terminal."""
        if answers and self._filter is not None:
            self._output.write(self._filter.flush())
            self._filter = None
        elif not answers and self._filter is None:
            self._filter = ReplayFilter()

    def clear(self) -> None:
        """Reset the terminal and clear the screen, before output that begins anew."""
        self._output.reset()
        write_all(STDOUT, b"\x1b[H\x1b[2J")
        if self._filter is not None:
            self._filter = ReplayFilter()

    def notify(self, text: str) -> None:
        """Show a message of procd's: on a line of its own, or in the last row of a full screen."""
        text = f"[procd: {text}]"
        if self._output.alternate_screen:
            columns, rows = self.size or (80, MAX_SIZE)  # a row beyond the last is the last
            # Longer text would scroll the screen.
            text = f"\x1b7\x1b[{rows};1H\x1b(B\x0f\x1b[0;7m{text[: columns - 1]}\x1b[m\x1b[K\x1b8"
        else:
            text = f"\r\n\x1b[7m{text}\x1b[27m\r\n"  # the program's colours stay
        write_all(STDOUT, text.encode())

    def suspend(self) -> None:
        self.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.enter()
