"""Keyboard: what the clients of a terminal type, in order of arrival.

The terminal's queue takes a message as long as no more than `most_bytes` are in it; the next ones
wait here, each in its client's name, and go with it. So what nobody reads is bounded for the
terminal, whoever comes and goes, and a client learns how much of its own waits.
"""

import asyncio
from collections import deque
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Final

from procd.process.io import FdWriter
from procd.tasks import Tasks

# What a message that waits costs beside its bytes.
MESSAGE_COST_BYTES: Final = 128
# Those handed over in one turn of the event loop.
MESSAGES_A_TURN: Final = 256


class Typist:
    """One client at a keyboard, until it leaves.

    Attributes:
        waiting: what has had no room in the terminal's queue yet, each with its place among
            everyone's.
        waiting_bytes: that, and what it costs.
    """

    __slots__ = ("_has_left", "_keyboard", "_moved", "waiting", "waiting_bytes")

    def __init__(self, keyboard: "Keyboard") -> None:
        self.waiting: deque[tuple[int, bytes]] = deque()
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
        """Leave, and drop what waits, lest anybody wait for that; a second time does nothing.

        Args:
            within_s: have it wait for so long, unless something of another who has left does.
        """
        if self._has_left:
            return
        self._has_left = True
        if self.waiting_bytes and not (within_s and self._keyboard.keep(self, within_s)):
            self._keyboard.forget(self)


class Keyboard:
    """Everyone's way into one terminal."""

    __slots__ = ("_hands_over", "_late", "_most_bytes", "_next", "_places", "_tasks", "_writer")

    def __init__(self, tasks: Tasks, most_bytes: int) -> None:
        self._tasks = tasks
        self._most_bytes = most_bytes
        self._writer: FdWriter | None = None
        self._places = count()
        self._next: list[tuple[int, Typist]] = []  # a heap: where what waits of each begins
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
        if not self._next and writer.queued_bytes <= self._most_bytes:
            writer.write(data)
            return
        typist.moved(len(data) + MESSAGE_COST_BYTES)
        place = next(self._places)
        if not typist.waiting:
            heappush(self._next, (place, typist))
        typist.waiting.append((place, data))
        if not self._hands_over:
            self._hands_over = True
            self._tasks.start(self._hand_over(writer), "input that waits")

    async def _hand_over(self, writer: FdWriter) -> None:
        try:
            while self._next:
                await writer.drain(self._most_bytes)
                self._hand_over_some(writer)
                await asyncio.sleep(0)
        finally:
            self._hands_over = False

    def _hand_over_some(self, writer: FdWriter) -> None:
        """As many as there is room for, and a turn; nobody gets those of a terminal that is gone.

        The clients may have left meanwhile.
        """
        if writer.closed and self._next:
            self.forget(self._next[0][1])
            return
        for _ in range(MESSAGES_A_TURN):
            if not self._next or writer.queued_bytes > self._most_bytes:
                break
            self._hand_over_one(writer)

    def _hand_over_one(self, writer: FdWriter) -> None:
        typist = self._next[0][1]
        _, data = typist.waiting.popleft()
        if typist.waiting:
            heapreplace(self._next, (typist.waiting[0][0], typist))
        else:
            heappop(self._next)
        writer.write(data)
        typist.moved(-len(data) - MESSAGE_COST_BYTES)

    def keep(self, typist: Typist, within_s: float) -> bool:
        """Keep for so long what waits of a client that has left; of one such client at a time.

        However many come and go, no more waits than of those who are here, and of one more.

        Returns:
            Whether it is kept.
        """
        if self._late is not None and self._late.waiting_bytes:
            return False
        self._late = typist
        asyncio.get_running_loop().call_later(within_s, self.forget, typist)
        return True

    def forget(self, typist: Typist) -> None:
        """Drop what waits of a client that has left."""
        self._next = [each for each in self._next if each[1] is not typist]
        heapify(self._next)
        typist.waiting.clear()
        typist.moved(-typist.waiting_bytes)
