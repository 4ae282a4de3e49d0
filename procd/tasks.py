"""Background tasks with an owner. Nothing else calls `asyncio.create_task`."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


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
        """Run `work` in the background."""
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
