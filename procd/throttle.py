"""Turns of the event loop, shared out: who has much to do leaves some of it for the next turn.

And how long one takes.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

# Pieces of work done in one turn; the first come, the first served.
PIECES: Final = 4
# Steps of a piece that has many: processes that are looked at, for instance.
STEPS: Final = 64


class Turns:
    """Lets `pieces` pieces of work of one kind into each turn of the event loop that runs."""

    def __init__(self, pieces: int = PIECES) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces = pieces
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait until one may begin; at once where this turn has had few."""
        if self._waiting or self._begun >= self._pieces:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter
            return
        if not self._begun:
            self._loop.call_soon(self._next)
        self._begun += 1

    def begin(self, work: Iterator[object]) -> None:
        """Do the first STEPS of some work, at once."""
        for _ in itertools.islice(work, STEPS):
            pass

    async def finish(self, work: Iterator[object]) -> None:
        """Do what is left of it, a piece when one may begin."""
        for number, _ in enumerate(work):
            if number % STEPS == 0:
                await self.take()

    async def spread(self, work: Iterator[object]) -> None:
        """`begin` some work and `finish` it."""
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
    """How long whoever is ready has to wait for the event loop, now; seconds.

    Measured when somebody asks, so that an idle procd is never woken for it.
    """
    begin = time.perf_counter()
    # Between the two are all who were ready before, and the sockets that are ready now.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return time.perf_counter() - begin
