"""Limits the work done in one turn of the event loop, and measures how long a turn takes."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

# How many pieces of work one turn has by default.
PIECES: Final = 4
# How many steps of an iterator are one piece.
STEPS: Final = 64


class Turns:
    """Lets `pieces` pieces of work start in each turn of the event loop, in order of arrival."""

    def __init__(self, pieces: int = PIECES) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces = pieces
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait until a piece may start; at once if this turn has had fewer than `pieces`."""
        if self._waiting or self._begun >= self._pieces:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter
            return
        if not self._begun:
            self._loop.call_soon(self._next)
        self._begun += 1

    def begin(self, work: Iterator[object]) -> None:
        """Do the first STEPS steps of `work` at once."""
        for _ in itertools.islice(work, STEPS):
            pass

    async def finish(self, work: Iterator[object]) -> None:
        """Do the remaining steps of `work`, STEPS at a time."""
        for number, _ in enumerate(work):
            if number % STEPS == 0:
                await self.take()

    async def spread(self, work: Iterator[object]) -> None:
        """Do all of `work`: the first STEPS steps at once."""
        self.begin(work)
        await self.finish(work)

    def _next(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < self._pieces:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._begun += 1
        if self._begun:
            self._loop.call_soon(self._next)


async def loop_lag_s() -> float:
    """How long a turn of the event loop takes now, seconds.

    It is measured on demand, so that an idle procd sleeps.
    """
    begin = time.perf_counter()
    # The first turn runs what is ready already, the second what polling the sockets adds.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return time.perf_counter() - begin
