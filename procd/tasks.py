"""Background tasks with an owner, and limits of the work done in one turn of the event loop.

Nothing else calls `asyncio.create_task`.
"""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

# How many pieces of work one turn has by default.
PIECES: Final = 4
# How many steps of an iterator are one piece.
STEPS: Final = 64


class Tasks:
    """Background tasks of one owner: references are kept, and exceptions are logged."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def run(self, work: Coroutine[object, None, T], name: str) -> asyncio.Task[T]:
        """Run `work` in the background; returns its task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def start(self, work: Coroutine[object, None, object], name: str) -> None:
        self.run(work, name)  # type: ignore[unused-awaitable]  # `_ended` reads its outcome

    async def finish(self, work: Coroutine[object, None, T], name: str) -> T:
        """Await `work`, which goes on if the caller is cancelled."""
        return await asyncio.shield(self.run(work, name))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=exc)

    async def aclose(self, within_s: float = 0) -> None:
        """Wait `within_s` for the tasks to end, cancel the rest, and wait for them."""
        if within_s and self._running:
            await asyncio.wait(self._running.copy(), timeout=within_s)
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


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
    """How long a turn of the event loop takes now, seconds."""
    begin = time.perf_counter()
    # The first turn runs what is ready already, the second what polling the sockets adds.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return time.perf_counter() - begin
