"""Pauses: how long until something is looked at again of which no news comes."""

from typing import Final

FIRST_S: Final = 0.01
LAST_S: Final = 0.1
# To look keeps the event loop, where there are thousands of processes: so many times as long is a
# pause.
SHARE: Final = 10


class Pauses:
    """Each twice as long as the one before, up to LAST_S."""

    __slots__ = ("_next_s",)

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def after(self, took_s: float) -> float:
        """The next pause, after a look that took so long; seconds."""
        pause_s = max(self._next_s, SHARE * took_s)
        self._next_s = min(2 * pause_s, LAST_S)
        return pause_s
