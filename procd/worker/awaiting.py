"""The event loop of a namespace, in which its cells await, and its tasks go on from cell to cell.

Loaded when the first cell awaits, for the sake of what asyncio costs.
"""

from __future__ import annotations

import asyncio

from .own import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any


class Awaiting:
    """Runs one coroutine after another."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None  # the one that is waited for

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine returns; an interrupt cancels it."""
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        task = self._loop.create_task(coroutine)
        task.add_done_callback(self._ended)
        try:
            self._wait(self._loop, task)
            return task.result()
        except BaseException:
            if not task.done():  # an interrupt
                task.cancel()
                self._wait(self._loop, task)
            if not task.cancelled():
                task.exception()  # which is the one on its way, or of less interest: it was seen
            raise

    def _wait(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        # Not run_until_complete: when something else leaves the loop in the moment that the task
        # is done, the callback that it has for that would stop the loop amid a later cell.
        self._task = task
        try:
            loop.run_forever()
        finally:
            self._task = None
        if not task.done():
            raise RuntimeError("Event loop stopped before Future completed.")

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task is self._task:
            task.get_loop().stop()
