"""Outlet: from a log to a WebSocket connection, at the pace of the slower of the two."""

import asyncio
import time
from typing import Final, Protocol

from procd.api.ws import Connection
from procd.streams.labels import HOLD_S
from procd.streams.log import Log, Store

# How long a reader of a log rests, as a multiple of what it took and of the square of the number of
# readers: each has a client that wants the processor too. And the longest rest.
REST: Final = 3
MAX_REST_S: Final = 0.1


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
        skips_gaps: go on behind bytes that are no longer kept, instead of giving up.
        yields: while bytes may still come, leave most of the time to the one who brings them; for
            logs that keep everything, so that many readers don't slow the process.
    """

    def __init__(
        self,
        connection: Connection,
        log: Log[Store],
        frames: FrameSource,
        offset: int,
        *,
        until: int | None = None,
        skips_gaps: bool = False,
        yields: bool = False,
    ) -> None:
        self._connection = connection
        self._log = log
        self._frames = frames
        self._until = until
        self._skips_gaps = skips_gaps
        self._yields = yields
        self._rested_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._open = False
        self._failure: OSError | None = None
        self._allowed: int | None = None
        self._idle: asyncio.Future[None] | None = None
        self.cursor = log.attach(offset, self._wake)

    @property
    def _finished(self) -> bool:
        if self._until is not None and self.cursor.offset >= self._until:
            return True
        return self.cursor.at_end

    def _wake(self) -> None:
        if not self._open:
            return
        if not self._rests:
            self._push()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._rest_s, self._rested)

    @property
    def _rests(self) -> bool:
        return self._rest_s > 0 and not self._log.sealed

    @property
    def _rest_s(self) -> float:
        return self._rested_at - time.monotonic()

    def _rested(self) -> None:
        self._timer = None
        if self._open:
            self._push()

    def _push(self) -> None:
        begin = time.monotonic()
        self._write_frames()
        if self._yields:
            end = time.monotonic()
            rest_s = (end - begin) * REST * self._log.readers**2
            self._rested_at = end + min(rest_s, MAX_REST_S)

    def _write_frames(self) -> None:
        connection, cursor, store = self._connection, self.cursor, self._log.store
        while cursor.offset < store.end and not (connection.closing or self._finished):
            if self._allowed is not None and cursor.offset >= self._allowed:
                return  # `allow` goes on
            if connection.full:
                break
            try:
                frame, offset = self._frames.at(cursor.offset)
            except LookupError:
                if not self._skips_gaps:
                    break
                offset, frame = store.start, b""
            except OSError as exc:
                self._failure = exc
                break
            if offset == cursor.offset:  # held back for a moment
                if self._timer is None:
                    self._timer = self._loop.call_later(HOLD_S, self._rested)
                return
            connection.write(frame)
            cursor.advance(offset)
        else:
            if not self._finished:
                return
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def allow(self, offset: int) -> None:
        """Begin no frame at or after `offset` until the next call; for who counts what it gets."""
        self._allowed = offset
        self._wake()

    async def run(self) -> bool:
        """Write until the end, which is True, or until bytes are lost, which is False.

        Raises:
            ConnectionError: the client has gone.
            OSError: the log can't be read.
        """
        self._open = True
        while True:
            self._push()
            if self._failure is not None:
                try:
                    raise self._failure
                finally:
                    self._failure = None  # or else each would keep the other
            if self._finished:
                return True
            if self.cursor.lost and not self._skips_gaps:
                return False
            if self._connection.full:
                await self._connection.drain()
                if self._rests:
                    await asyncio.sleep(self._rest_s)
            else:
                self._idle = self._loop.create_future()
                await self._idle
                self._idle = None

    def close(self) -> None:
        """Leave the log."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.cursor.close()
        if not self._log.readers:
            self._frames.forget()
