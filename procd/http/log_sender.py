"""LogSender: from a log to a WebSocket, at the pace of the slower of the two."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from procd.http.websocket import WebSocket
from procd.output.log import Log, Store
from procd.output.multiplex import HOLD_S

# What one sender writes in one turn of the event loop: so many bytes, or so many times.
PUSH_BYTES: Final = 512 << 10
PUSH_FRAMES: Final = 8
# Output pours when so many bytes came without a pause of PAUSE_S, seconds.
POUR_BYTES: Final = 512 << 10
PAUSE_S: Final = 0.025
# For followers of a log that keeps what they have not read.
FOLLOW_REST_S: Final = 0.025


class FrameSource(Protocol):
    """Encodes a log's bytes as WebSocket frames."""

    def at(self, offset: int) -> tuple[bytes, int]:
        """One frame or more from `offset` on, and the offset after them.

        The same offset means that they are held back, for HOLD_S at most.
        """

    def forget(self) -> None:
        """Drop what was kept to be shared."""


class LogSender:
    """Writes a log to a WebSocket, in the turn of the event loop that brought the bytes.

    Args:
        until: the offset to stop at; None for the end of the log.
        gap_frame: makes what is written in place of dropped bytes, given the offset after them;
            without it, dropped bytes are the end.
        rest_s: how long to wait between two pushes while output pours, so that many clients get
            few large frames and don't slow the process down.
        rests_alone: whether that holds for the only reader of the log as well.

    Attributes:
        on_blocked: called when it waits for `allow` with more to write, perhaps repeatedly.
    """

    def __init__(
        self,
        log: Log[Store],
        frames: FrameSource,
        offset: int,
        *,
        until: int | None = None,
        gap_frame: Callable[[int], bytes] | None = None,
        rest_s: float = 0,
        rests_alone: bool = True,
    ) -> None:
        self._websocket: WebSocket | None = None
        self._log = log
        self._frames = frames
        self._until = until
        self._gap_frame = gap_frame
        self._pour_rest_s = rest_s
        self._least_readers = 1 if rests_alone else 2
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Handle | None = None  # the push that is scheduled
        self._burst_bytes = 0  # written without a pause
        self._pushed_at = 0.0
        self._failure: OSError | None = None
        self._allowed: int | None = None
        self._idle: asyncio.Future[None] | None = None
        self.opened = False
        self.on_blocked: Callable[[], None] | None = None
        self.cursor = log.attach(offset, self._wake)

    @property
    def _finished(self) -> bool:
        if self._until is not None and self.cursor.offset >= self._until:
            return True
        return self.cursor.at_end

    @property
    def _may_rest(self) -> bool:
        """Whether a rest neither loses bytes nor delays the process."""
        log, store = self._log, self._log.store
        if log.sealed or log.paused:
            return False
        return store.end - self.cursor.offset < store.safe_lag_bytes

    def _wake(self) -> None:
        if self._websocket is None:
            return
        if self._next is not None:
            if self._may_rest:
                return
            self._next.cancel()
        self._push()

    def _schedule(self, delay_s: float) -> None:
        if self._next is None:
            self._next = self._loop.call_later(delay_s, self._push)

    def _push(self) -> None:
        self._next = None
        websocket, cursor, store = self._websocket, self.cursor, self._log.store
        if websocket is None:
            return
        if websocket.closing:  # it gets nothing more, and must not hold back the process
            self.close()
            return
        now = time.monotonic()
        if now - self._pushed_at > PAUSE_S:
            self._burst_bytes = 0
        self._pushed_at = now
        begin = cursor.offset
        frames = 0
        while cursor.offset < store.end and not self._finished:
            if self._allowed is not None and cursor.offset >= self._allowed and not cursor.lost:
                if self.on_blocked is not None:
                    self.on_blocked()
                return  # `allow` goes on
            if websocket.full or (cursor.lost and self._gap_frame is None):
                break
            if cursor.offset >= begin + PUSH_BYTES or frames == PUSH_FRAMES:
                self._schedule(self._rest_s(cursor.offset - begin))
                return
            try:
                frame, offset = self._frames.at(cursor.offset)
            except LookupError:
                assert self._gap_frame is not None
                offset = store.start
                frame = self._gap_frame(offset)
            except OSError as exc:
                self._failure = exc
                break
            if offset == cursor.offset:
                self._schedule(HOLD_S)
                return
            websocket.write(frame)
            cursor.advance(offset)
            frames += 1
        else:
            if not self._finished:
                if rest_s := self._rest_s(cursor.offset - begin):
                    self._schedule(rest_s)
                return
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _rest_s(self, pushed_bytes: int) -> float:
        self._burst_bytes += pushed_bytes
        pours = self._burst_bytes > POUR_BYTES and self._log.readers >= self._least_readers
        return self._pour_rest_s if pours and self._may_rest else 0

    def allow(self, offset: int) -> None:
        """Begin no frame at or after `offset`, or an earlier such offset if that was higher."""
        self._allowed = max(offset, self._allowed or 0)
        self._wake()

    def open(self, websocket: WebSocket) -> None:
        """Begin to write, at once; until then the cursor only keeps its place."""
        self._websocket = websocket
        self.opened = True
        self._push()

    async def run(self) -> bool:
        """Write until the end, or until bytes are lost; returns whether it was the end.

        After `close` it waits to be cancelled. An OSError says that the log can't be read.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            if self._finished:
                return True
            if self.cursor.lost and self._gap_frame is None:
                return False
            if self._websocket is not None and self._websocket.full:
                await self._websocket.drain()
            if self._websocket is not None:
                self._schedule(0)
            self._idle = self._loop.create_future()
            await self._idle
            self._idle = None

    def close(self) -> None:
        self._websocket = self.on_blocked = None
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self.cursor.close()
        if not self._log.readers:
            self._frames.forget()
