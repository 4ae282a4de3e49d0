"""Keyboard: what the clients of a terminal type, in order of arrival.

The terminal's queue takes a message as long as no more than `most_bytes` are in it; the next ones
wait here, each in its client's name, and go with it. So what nobody reads is bounded for the
terminal, whoever comes and goes, and a client learns how much of its own waits.
"""

import asyncio
from collections import deque
from typing import Final

from procd.tasks import Tasks
from procd.unix.writer import FdWriter

# What a message that waits costs beside its bytes.
MESSAGE_COST_BYTES: Final = 128


class Typist:
    """One client at a keyboard, until it leaves.

    Attributes:
        waiting_bytes: what has had no room in the terminal's queue yet, and what it costs.
    """

    __slots__ = ("_has_left", "_keyboard", "_moved", "waiting_bytes")

    def __init__(self, keyboard: "Keyboard") -> None:
        self.waiting_bytes = 0
        self._has_left = False
        self._keyboard = keyboard
        self._moved: asyncio.Future[None] | None = None

    def type(self, data: bytes) -> None:
        """Type; what is typed after leaving, or after the terminal's end, is lost."""
        if not self._has_left:
            self._keyboard.type(self, data)

    async def wait(self, most_bytes: int) -> None:
        """Wait until at most so much waits."""
        while self.waiting_bytes > most_bytes:
            self._moved = asyncio.get_running_loop().create_future()
            await self._moved

    def moved(self, change_bytes: int) -> None:
        """So much more, or less, waits."""
        self.waiting_bytes += change_bytes
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def leave(self, within_s: float = 0) -> None:
        """Take along what waits, so that nobody need wait for it; a second time does nothing.

        Args:
            within_s: leave it for so long, unless another who has left did the same.
        """
        if self._has_left:
            return
        self._has_left = True
        if self.waiting_bytes and not (within_s and self._keyboard.keep(self, within_s)):
            self._keyboard.forget(self)


class Keyboard:
    """Everyone's way into one terminal."""

    __slots__ = ("_hands_over", "_late", "_most_bytes", "_tasks", "_waiting", "_writer")

    def __init__(self, tasks: Tasks, most_bytes: int) -> None:
        self._tasks = tasks
        self._most_bytes = most_bytes
        self._writer: FdWriter | None = None
        self._waiting: deque[tuple[Typist, bytes]] = deque()
        self._hands_over = False
        self._late: Typist | None = None  # has left, and what it typed may be waiting

    def plug_in(self, writer: FdWriter | None) -> None:
        """Type into this from now on."""
        self._writer = writer

    def type(self, typist: Typist, data: bytes) -> None:
        """Put a message into the queue, or behind those that wait."""
        writer = self._writer
        if writer is None:
            return
        if not self._waiting and writer.queued_bytes <= self._most_bytes:
            writer.write(data)
            return
        typist.moved(len(data) + MESSAGE_COST_BYTES)
        self._waiting.append((typist, data))
        if not self._hands_over:
            self._hands_over = True
            self._tasks.start(self._hand_over(writer), "input that waits")

    async def _hand_over(self, writer: FdWriter) -> None:
        try:
            while self._waiting:
                await writer.drain(self._most_bytes)
                self._hand_over_one(writer)
        finally:
            self._hands_over = False

    def _hand_over_one(self, writer: FdWriter) -> None:
        if self._waiting:  # else the clients have left meanwhile
            typist, data = self._waiting.popleft()
            writer.write(data)
            typist.moved(-len(data) - MESSAGE_COST_BYTES)

    def keep(self, typist: Typist, within_s: float) -> bool:
        """Hand over for so long what waits of a client that has left; of one such client only.

        Whoever comes and goes, no more waits than what those who are here may have waiting, and as
        much as one of them. Whether it is kept.
        """
        if self._late is not None and self._late.waiting_bytes:
            return False
        self._late = typist
        asyncio.get_running_loop().call_later(within_s, self.forget, typist)
        return True

    def forget(self, typist: Typist) -> None:
        """Drop what waits of a client that has left."""
        self._waiting = deque(item for item in self._waiting if item[0] is not typist)
        typist.moved(-typist.waiting_bytes)
