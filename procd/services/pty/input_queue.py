"""Input of a terminal's clients: one bounded queue for each, served round robin.

The terminal's writer takes messages as long as at most `capacity_bytes` are queued in it; the next
ones wait in the queues of their clients. So input that nobody reads is bounded.
"""

import asyncio
from collections import deque
from typing import Final

from procd.process.io import FdWriter
from procd.tasks import Tasks

# What a message costs beside its bytes.
MESSAGE_COST_BYTES: Final = 128
MESSAGES_PER_TURN: Final = 256


class InputQueue:
    """The input of one client: what the terminal has no room for yet."""

    def __init__(self, terminal: "TerminalInput") -> None:
        self.messages: deque[bytes] = deque()
        self.waiting_bytes = 0
        self._closed = False
        self._terminal = terminal
        self._moved: asyncio.Future[None] | None = None

    def put(self, data: bytes) -> None:
        """Send a message to the terminal; it is dropped after `close`, or the terminal's end.

        The queue has no limit of its own: the caller awaits `wait`.
        """
        if not self._closed:
            self._terminal.put(self, data)

    async def wait(self, max_bytes: int) -> None:
        while self.waiting_bytes > max_bytes:
            self._moved = asyncio.get_running_loop().create_future()
            await self._moved

    def resized(self, change_bytes: int) -> None:
        """Count what was added or taken, and wake `wait`."""
        self.waiting_bytes += change_bytes
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def close(self, linger_s: float = 0) -> None:
        """Accept no more, and drop what waits, or let it linger as `TerminalInput.release` does."""
        if not self._closed:
            self._closed = True
            self._terminal.release(self, linger_s)


class TerminalInput:
    def __init__(self, tasks: Tasks, capacity_bytes: int) -> None:
        self._tasks = tasks
        self._capacity_bytes = capacity_bytes
        self._writer: FdWriter | None = None
        self._waiting: deque[InputQueue] = deque()  # those that are not empty
        self._serving = False
        self._lingering: InputQueue | None = None

    def connect(self, writer: FdWriter | None) -> None:
        self._writer = writer

    def put(self, queue: InputQueue, data: bytes) -> None:
        writer = self._writer
        if writer is None:
            return
        if not self._waiting and writer.queued_bytes <= self._capacity_bytes:
            writer.write(data)
            return
        if not queue.messages:
            self._waiting.append(queue)
        queue.messages.append(data)
        queue.resized(len(data) + MESSAGE_COST_BYTES)
        if not self._serving:
            self._serving = True
            self._tasks.start(self._serve(writer), "queued input")

    async def _serve(self, writer: FdWriter) -> None:
        try:
            while self._waiting:
                await writer.drain(self._capacity_bytes)
                for _ in range(MESSAGES_PER_TURN):
                    if not self._waiting or writer.queued_bytes > self._capacity_bytes:
                        break
                    queue = self._waiting.popleft()
                    data = queue.messages.popleft()
                    if queue.messages:
                        self._waiting.append(queue)
                    writer.write(data)  # which drops it once the terminal is closed
                    queue.resized(-len(data) - MESSAGE_COST_BYTES)
                await asyncio.sleep(0)
        finally:
            self._serving = False

    def release(self, queue: InputQueue, linger_s: float) -> None:
        """Drop what waits of a client that has gone, at once or after `linger_s`.

        Only one such queue lingers at a time, so that clients that come and go can't fill memory.
        """
        if linger_s and (self._lingering is None or not self._lingering.messages):
            self._lingering = queue
            asyncio.get_running_loop().call_later(linger_s, self._drop, queue)
        else:
            self._drop(queue)

    def _drop(self, queue: InputQueue) -> None:
        if queue.messages:
            self._waiting.remove(queue)
            queue.messages.clear()
        queue.resized(-queue.waiting_bytes)
