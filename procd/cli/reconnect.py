"""A server that is lost, and looked for."""

import time
from typing import Final

from procd.cli.progress import Progress

# How long a lost server is looked for, and the pause between two looks.
LOST_S: Final = 30.0
RETRY_S: Final = 0.25
STEADY_S: Final = 1.0


class Outage:
    """Whether the server is lost, and for how long it has been.

    It is found when it has said something, or a connection has held for STEADY_S: a proxy may
    answer the handshake, and then lose each connection.

    Args:
        progress: what says that it is looked for, if its user wants that; over once it is found.

    Attributes:
        retry_at: when it is to be looked for next, by the monotonic clock.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._since: float | None = None
        self._connected_at = 0.0
        self.retry_at = 0.0

    @property
    def lasts(self) -> bool:
        """Whether it is lost."""
        return self._since is not None

    def begin(self) -> bool:
        """It can't be reached; True once that has lasted for too long."""
        now = time.monotonic()
        self._since = self._since or now
        self.retry_at = now + RETRY_S
        return now - self._since > LOST_S

    def connect(self) -> None:
        """There is a connection, which may not hold."""
        self._connected_at = time.monotonic()

    def hold(self) -> None:
        """The connection has held until now."""
        if time.monotonic() - self._connected_at >= STEADY_S:
            self.end()

    def end(self) -> None:
        """It is there."""
        self._since = None
        self._progress.end()
