"""A sign of life on what takes longer than a second, for people only."""

import os
import time
from types import TracebackType
from typing import Any, Final

from procd.cli.io import STDERR

AFTER_S: Final = 1.0


class Progress:
    """Says what is waited for, once that has taken a second. It is drawn by who waits."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._begin = time.monotonic()
        self._status: Any = None  # rich's, which is imported late

    def tick(self) -> None:
        """Draw it anew, if it is time."""
        passed = time.monotonic() - self._begin
        if passed < AFTER_S or not os.isatty(STDERR):
            return
        if self._status is None:
            from rich.console import Console
            from rich.live import Live
            from rich.spinner import Spinner

            spinner = Spinner("dots")
            # It isn't refreshed by a thread.
            live = Live(spinner, console=Console(stderr=True), auto_refresh=False, transient=True)
            live.start()
            self._status = (live, spinner)
        live, spinner = self._status
        spinner.update(text=f"{self._text} … {int(passed)} s")
        live.refresh()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status[0].stop()
            self._status = None
