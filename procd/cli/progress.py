"""A sign of life on what takes longer than a second, for people only."""

import os
import signal
import sys
import time
from types import FrameType
from typing import Final

from procd.cli.io import STDERR, write_all
from procd.cli.text import clean

ASKING: Final = "asking the server"
AFTER_S: Final = 1.0
EVERY_S: Final = 0.1
FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Progress:
    """Says what is waited for, once that has taken a second, until it is over.

    A timer's signal draws it, so that it is seen wherever the wait is: in a connection that nobody
    accepts, a TLS handshake, a reply. It is one line, and the cursor stays as it is, so that who is
    killed meanwhile leaves the terminal in order. Nothing else may be written to that.

    Source: setitimer(2); PEP 475.
    """

    def __init__(self, text: str) -> None:
        self._text = clean(text)
        self._begin: float | None = None
        self._drawn = False

    def __enter__(self) -> "Progress":
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        """From now on it is waited for; further calls do nothing."""
        if self._begin is None and os.isatty(STDERR) and os.environ.get("TERM") != "dumb":
            self._begin = time.monotonic()
            signal.signal(signal.SIGALRM, self._draw)
            signal.setitimer(signal.ITIMER_REAL, AFTER_S, EVERY_S)

    def end(self) -> None:
        """It is over: leave no trace of it."""
        if self._begin is None:
            return
        # The handler stays: a signal that is on its way would end this process.
        self._begin = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._drawn:
            self._drawn = False
            write_all(STDERR, b"\r\x1b[K")

    def _draw(self, number: int, frame: FrameType | None) -> None:
        if self._begin is None:
            return
        passed = time.monotonic() - self._begin
        mark = FRAMES[int(passed / EVERY_S) % len(FRAMES)]
        columns = os.get_terminal_size(STDERR).columns or 80
        line = f"{mark} {self._text} … {int(passed)} s"[: columns - 1]
        encoding = sys.stderr.encoding if sys.stderr is not None else "ascii"
        self._drawn = True
        write_all(STDERR, b"\r" + line.encode(encoding, "replace") + b"\x1b[K")
