"""Timeouts that a suspended sandbox doesn't run down.

When procd resumes, its timers are overdue before it has read what clients have sent. Such a timer
starts again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

# A timer that is later than this was not late because of a busy loop.
LATE_S: Final = 1.0

T = TypeVar("T")


def standstill_s(due: float) -> float:
    """How long procd was suspended, seconds, given a timer that was due at `due` (loop time)."""
    late_s = asyncio.get_running_loop().time() - due
    return late_s if late_s > LATE_S else 0.0


async def within(seconds: float, wait: Callable[[], Awaitable[T]]) -> T:
    """Await `wait()` for at most `seconds`, or raise TimeoutError; again after a suspend."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + seconds
        try:
            async with asyncio.timeout_at(due):
                return await wait()
        except TimeoutError:
            if not standstill_s(due):
                raise


class Countdown:
    """Calls `on_end` after `seconds`; starts again if procd was suspended meanwhile."""

    __slots__ = ("_due", "_loop", "_on_end", "_seconds", "_timer")

    def __init__(self, seconds: float, on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._on_end = on_end
        self._begin()

    def _begin(self) -> None:
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._ended)

    def _ended(self) -> None:
        if standstill_s(self._due):
            self._begin()
        else:
            self._on_end()

    def cancel(self) -> None:
        self._timer.cancel()
