"""Turns of the event loop, shared out: who has much to do leaves some of it for the next turn."""

import asyncio
from collections import deque
from typing import Final

# Pieces of work done in one turn; the first come, the first served.
PIECES: Final = 4


class Turns:
    """Lets `pieces` pieces of work of one kind into each turn of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pieces: int = PIECES) -> None:
        self._loop = loop
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

    def _next(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < self._pieces:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._begun += 1
        if self._begun:
            self._loop.call_soon(self._next)
