"""Pauses: how long until something is looked at again of which no news comes."""

import asyncio
import time
from typing import Final

from procd.suspend import LATE_S

FIRST_S: Final = 0.01
LAST_S: Final = 0.1
# To look keeps the event loop, where there are thousands of processes: so many times as long is a
# pause.
SHARE: Final = 10


class Pauses:
    """Each twice as long as the one before, up to LAST_S, until `within_s` have passed.

    Attributes:
        left_s: what is left of that; a standstill of procd's takes nothing off it.
    """

    __slots__ = ("_next_s", "_since", "left_s")

    def __init__(self, within_s: float) -> None:
        self.left_s = within_s
        self._next_s = FIRST_S
        self._since = time.monotonic()

    def after(self, took_s: float) -> float:
        """The next pause, after a look that took so long; seconds."""
        pause_s = max(self._next_s, SHARE * took_s)
        self._next_s = min(2 * pause_s, LAST_S)
        return pause_s

    async def pause(self, news: asyncio.Future[None], took_s: float) -> None:
        """Wait for news until it is time to look again, after a look that took so long."""
        pause_s = min(self.after(took_s), self.left_s)
        await asyncio.wait([news], timeout=pause_s)
        passed_s = time.monotonic() - self._since
        self._since += passed_s
        self.left_s -= passed_s if passed_s <= pause_s + LATE_S else pause_s
