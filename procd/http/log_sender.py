"""Outlet: from a log to a WebSocket connection, at the pace of the slower of the two."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from procd.http.websocket import Connection
from procd.output.log import Log, Store
from procd.output.multiplex import HOLD_S

# One outlet writes in one turn of the event loop until it has written so many bytes, or so often:
# few bytes may be many messages.
PUSH_BYTES: Final = 512 << 10
PUSH_TIMES: Final = 8
# Bytes pour when more than FREE_BYTES are in a bucket that leaks CALM_BYTES_S. The more readers
# there are, the slower it leaks: what bytes cost goes by both.
FREE_BYTES: Final = 512 << 10
CALM_BYTES_S: Final = 100 << 20
# Nothing pours any more after a lull of so long, seconds, however much has come before.
LULL_S: Final = 0.1
# How long an outlet that yields rests then between two pushes.
REST_S: Final = 0.025
# What comes so soon after a push comes with more, such as lines of two streams: it is pushed with
# that, in the next turn, and not with a system call for each.
AT_ONCE_S: Final = 15e-6


class FrameSource(Protocol):
    """Encodes a log's bytes as WebSocket frames."""

    def at(self, offset: int) -> tuple[bytes, int]:
        """One frame or more from `offset` on, and the offset after them.

        The same offset means that they are held back for HOLD_S at most.
        """

    def forget(self) -> None:
        """Drop what was kept to be shared."""


class Outlet:
    """Writes a log to a connection, as fast as both allow.

    The cursor's wake-up writes at once, in the turn of the event loop that brought the bytes. Only
    a client that is behind is waited for, by `run`.

    Args:
        until: the offset to stop at; None for the end of the log.
        gap_frame: makes what is written in place of bytes that are no longer kept, of the offset
            after them; without it, they are the end.
        yields: while bytes pour, leave most of the time to the one who brings them; for logs that
            keep what is not read yet, so that many readers don't slow the process.

    Attributes:
        opened: whether it has begun to write.
        on_shut: called when it waits for `allow` with more to write, perhaps more than once.
    """

    def __init__(
        self,
        log: Log[Store],
        frames: FrameSource,
        offset: int,
        *,
        until: int | None = None,
        gap_frame: Callable[[int], bytes] | None = None,
        yields: bool = False,
    ) -> None:
        self._connection: Connection | None = None
        self._log = log
        self._frames = frames
        self._until = until
        self._gap_frame = gap_frame
        self._yields = yields
        self._level = 0.0  # of a bucket that bytes fall into and that leaks
        self._level_at = time.monotonic()
        self._level_end = log.store.end
        self._next: asyncio.Handle | None = None  # the push that is to come
        self._pushed_at = 0.0
        self._held: asyncio.Handle | None = None  # the one for what is held back
        self._loop = asyncio.get_running_loop()
        self._failure: OSError | None = None
        self._allowed: int | None = None
        self.opened = False
        self.on_shut: Callable[[], None] | None = None
        self._idle: asyncio.Future[None] | None = None
        self.cursor = log.attach(offset, self._wake)

    @property
    def _finished(self) -> bool:
        if self._until is not None and self.cursor.offset >= self._until:
            return True
        return self.cursor.at_end

    @property
    def _may_wait(self) -> bool:
        """Whether nothing is lost, and nobody held up, by a rest."""
        log, store = self._log, self._log.store
        if log.sealed or log.paused:
            return False
        return store.end - self.cursor.offset < store.safe_lag_bytes

    def _pours(self) -> bool:
        """A leaky bucket: add what has come, leak what time allows; whether it is too full.

        Then a push had better rest.
        """
        store, now = self._log.store, time.monotonic()
        leak = CALM_BYTES_S / self._log.readers
        level = max(0.0, self._level - (now - self._level_at) * leak) + store.end - self._level_end
        self._level = min(level, FREE_BYTES + LULL_S * leak)
        self._level_at, self._level_end = now, store.end
        return self._level > FREE_BYTES and self._may_wait

    def _rest(self) -> None:
        self._next = self._loop.call_later(REST_S, self._pushed_later)

    def _wake(self) -> None:
        if self._connection is None:
            return
        if self._next is not None:
            if self._may_wait:
                return
            self._next.cancel()
            self._next = None
        if self._yields and self._pours():
            self._rest()
        elif time.monotonic() - self._pushed_at < AT_ONCE_S and self._may_wait:
            self._next = self._loop.call_soon(self._pushed_later)
        else:
            self._push()
            self._pushed_at = time.monotonic()

    def _push_later(self) -> None:
        """Push in another turn of the event loop, or after a rest."""
        # One that was closed as it waited for its client has nobody's bytes to reckon with.
        if self._connection is None or self._next is not None:
            return
        if self._yields and self._pours():
            self._rest()
        else:
            self._next = self._loop.call_soon(self._pushed_later)

    def _pushed_later(self) -> None:
        self._next = None
        self._push()

    def _push_held(self) -> None:
        self._held = None
        self._push()

    def _push(self) -> None:
        connection, cursor, store = self._connection, self.cursor, self._log.store
        if connection is None:
            return
        if connection.closing:  # who is sent no more holds up nobody, however long it stays
            self.close()
            return
        most = cursor.offset + PUSH_BYTES
        times = 0
        while cursor.offset < store.end and not self._finished:
            if self._allowed is not None and cursor.offset >= self._allowed:
                if cursor.lost:
                    break
                if self.on_shut is not None:
                    self.on_shut()
                return  # `allow` goes on
            if connection.full:
                break
            if cursor.offset >= most or times == PUSH_TIMES:
                self._push_later()
                return
            try:
                frame, offset = self._frames.at(cursor.offset)
            except LookupError:
                if self._gap_frame is None:
                    break
                offset = store.start
                frame = self._gap_frame(offset)
            except OSError as exc:
                self._failure = exc
                break
            except MemoryError:  # there may be some in a moment
                frame, offset = b"", cursor.offset
            if offset == cursor.offset:  # held back for a moment
                if self._held is None:
                    self._held = self._loop.call_later(HOLD_S, self._push_held)
                return
            connection.write(frame)
            cursor.advance(offset)
            times += 1
        else:
            if not self._finished:
                return
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def allow(self, offset: int) -> None:
        """Begin no frame at or after the highest `offset` so far; for who counts what it gets."""
        self._allowed = max(offset, self._allowed or 0)
        self._wake()

    def open(self, connection: Connection) -> None:
        """Begin to write, at once; until then the cursor only keeps its place."""
        self._connection = connection
        self.opened = True
        self._push()

    async def run(self) -> bool:
        """Write until the end, which is True, or until bytes are lost, which is False.

        After `close` it waits to be cancelled.

        Raises:
            ConnectionError: the client has gone.
            OSError: the log can't be read.
        """
        while True:
            if self._failure is not None:
                try:
                    raise self._failure
                finally:
                    self._failure = None  # or else each would keep the other
            if self._finished:
                return True
            if self.cursor.lost and self._gap_frame is None:
                return False
            if self._connection is not None:
                if self._connection.full:
                    await self._connection.drain()
                self._push_later()
            self._idle = self._loop.create_future()
            await self._idle
            self._idle = None

    def close(self) -> None:
        """Leave the log."""
        self._connection = self.on_shut = None
        for handle in self._next, self._held:
            if handle is not None:
                handle.cancel()
        self._next = self._held = None
        self.cursor.close()
        if not self._log.readers:
            self._frames.forget()
