"""A line on the terminal that says what procd waits for."""

import os
import signal
import sys
import time
from types import FrameType
from typing import Final

from procd.cli.failure import printable
from procd.cli.stdio import STDERR, write_all

ASKING: Final = "asking the server"
DELAY_S: Final = 1.0
INTERVAL_S: Final = 0.1
FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Progress:
    """Shows what is waited for once that has taken a second; only on a terminal.

    A timer's signal draws it, so that it is seen during every blocking call: connecting, a TLS
    handshake, reading a reply. Nothing else may write to the terminal meanwhile.

    Source: setitimer(2); PEP 475.
    """

    def __init__(self, text: str) -> None:
        self._text = printable(text)
        self._began_at: float | None = None
        self._drawn = False

    def __enter__(self) -> "Progress":
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        """Start the timer, unless it runs already."""
        if self._began_at is None and os.isatty(STDERR) and os.environ.get("TERM") != "dumb":
            self._began_at = time.monotonic()
            signal.signal(signal.SIGALRM, self._draw)
            signal.setitimer(signal.ITIMER_REAL, DELAY_S, INTERVAL_S)

    def end(self) -> None:
        """Stop the timer and erase the line."""
        if self._began_at is None:
            return
        self._began_at = None  # the handler stays: a late signal would end the process without it
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._drawn:
            self._drawn = False
            write_all(STDERR, b"\r\x1b[K")

    def _draw(self, number: int, frame: FrameType | None) -> None:
        if self._began_at is None:
            return
        passed_s = time.monotonic() - self._began_at
        spinner = FRAMES[int(passed_s / INTERVAL_S) % len(FRAMES)]
        columns = os.get_terminal_size(STDERR).columns or 80
        line = f"{spinner} {self._text} … {int(passed_s)} s"[: columns - 1]
        encoding = sys.stderr.encoding if sys.stderr is not None else "ascii"
        self._drawn = True
        write_all(STDERR, b"\r" + line.encode(encoding, "replace") + b"\x1b[K")
