"""The only caller of `asyncio.create_task`: tasks that have an owner, a name and a reader."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Tasks:
    """Background tasks of one owner.

    A task is held until it ends, its exception is logged, and `aclose` cancels what is left.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def run(self, work: Coroutine[object, None, T], name: str) -> asyncio.Task[T]:
        """Run `work` in the background under `name`; for who will wait for it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def start(self, work: Coroutine[object, None, object], name: str) -> None:
        """Run `work` in the background under `name`."""
        self.run(work, name)  # type: ignore[unused-awaitable]  # `_ended` reads its outcome

    async def finish(self, work: Coroutine[object, None, T], name: str) -> T:
        """Wait for `work`, which runs to its end even if whoever waits is cancelled."""
        return await asyncio.shield(self.run(work, name))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=exc)

    async def aclose(self, within_s: float = 0) -> None:
        """Give all tasks some time to end, cancel those that are left, and wait for their ends."""
        if within_s and self._running:
            await asyncio.wait(self._running.copy(), timeout=within_s)
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
