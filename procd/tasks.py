"""The only caller of `asyncio.create_task`: tasks that have an owner, a name and a reader."""

import asyncio
import logging
from collections.abc import Coroutine

log = logging.getLogger(__name__)


class Tasks:
    """Background tasks of one owner.

    A task is held until it ends, its exception is logged, and `aclose` cancels what is left.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def run(self, work: Coroutine[object, None, None], name: str) -> asyncio.Task[None]:
        """Run `work` in the background under `name`; for who will wait for it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def start(self, work: Coroutine[object, None, None], name: str) -> None:
        """Run `work` in the background under `name`."""
        self.run(work, name)  # type: ignore[unused-awaitable]  # `_ended` reads its outcome

    async def finish(self, work: Coroutine[object, None, None], name: str) -> None:
        """Wait for `work`, run under `name`; it goes on to its end if its caller is cancelled.

        That is for what must not be left half done when the client that asked for it hangs up.
        """
        await asyncio.shield(self.run(work, name))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=exc)

    async def aclose(self) -> None:
        """Cancel every task and wait until all have ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
