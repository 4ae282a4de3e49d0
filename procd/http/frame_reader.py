"""Incoming: what a client sends by WebSocket, on its way to aiohttp's parser.

That takes frames with and without a mask, and once it has refused something it knows no frames.

Source: RFC 6455, sections 5.1, 5.2 and 7.1.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Final, Protocol

from aiohttp import WSMsgType, web
from aiohttp.http_websocket import WebSocketReader

from procd.suspend import within

WHOLE: Final = 0x80  # or the last part of a message: FIN
OPCODE: Final = 0x0F
RESERVED: Final = 0x70
MASKED: Final = 0x80
KEY_BYTES: Final = 4
# How a message begins that is one frame; whether it is text.
MESSAGES: Final = {WHOLE | WSMsgType.TEXT: True, WHOLE | WSMsgType.BINARY: False}
# A length that is this in a frame's second byte, or more, follows it in so many bytes.
LENGTH_16: Final = 126
LENGTH_BYTES: Final = {LENGTH_16: 2, 127: 8}
NO_LENGTH: Final = 1 << 63
# What any parser closes with 1002 for: reserved bits are set.
NO_FRAME: Final = b"\xf0\x80\0\0\0\0"
# Of those that come at once, so many are taken in a turn of the loop, of all clients': a read has
# room for 40,000.
FRAMES_A_TURN: Final = 256
# Where those of many wait, so many of each, in order of arrival, and in as many turns as it takes.
LEAST_FRAMES: Final = 32


class Source(Protocol):
    """Where it comes from."""

    @property
    def awaited(self) -> bool:
        """Whether there is room for messages. When there is again, `go_on` is called."""

    def hold(self) -> None:
        """Read no more for now."""

    def release(self) -> None:
        """Read again, once there is room."""


# Is offered a message, and told whether it is text; returns whether it takes it.
Listener = Callable[[bytes, bool], bool]


class FrameTurns:
    """Shares out the frames of all clients over turns of the event loop.

    Args:
        call_soon: has something called in the next turn.

    Attributes:
        left: how many may still be taken in this turn.
    """

    __slots__ = ("_begun", "_call_soon", "_waiting", "left")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._waiting: deque[Incoming] = deque()
        self._begun = False
        self.left = FRAMES_A_TURN

    def spend(self, frames: int) -> None:
        """So many were taken."""
        self.left -= frames
        self._begin()

    def queue(self, incoming: "Incoming") -> None:
        """Call its `take_turn` once, in turns to come."""
        self._waiting.append(incoming)
        self._begin()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._call_soon(self._next)

    def _next(self) -> None:
        self._begun = False
        self.left = FRAMES_A_TURN
        try:
            share = self.left // max(len(self._waiting), 1)
            while self._waiting and self.left:
                self._waiting.popleft().take_turn(min(max(share, LEAST_FRAMES), self.left))
        finally:
            if self._waiting:
                self._begin()


FRAMES = web.AppKey("FRAMES", FrameTurns)


class Incoming:
    """Passes frames on to a parser, up to the first without a mask: that one it is to refuse.

    What follows one that was refused is dropped, for who asks when the client has heard of it.
    Where many come at once, the source is held until they have had their turns.

    Attributes:
        deaf: whether messages are dropped on the way, of whatever size; control frames aren't.
        gone: whether the client has, and there is no more than what waits.
        listener: is offered a short message that comes alone, instead of the parser. Whoever waits
            for the parser's next message sets this; when there may be one, it is None again.
        heard_at: when something came last, monotonic time.
    """

    __slots__ = ("_answered", "_drops", "_held", "_in_parts", "_parser", "_queued",
                 "_refused", "_skip", "_source", "_turns", "_waits", "deaf", "gone",
                 "heard_at", "listener")  # fmt: skip

    def __init__(self, parser: WebSocketReader, source: Source, turns: FrameTurns) -> None:
        self._parser = parser
        self._source = source
        self._held = b""  # the beginning of a header, or all that waits
        self._waits = False  # for a turn
        self._turns = turns
        self._queued = False
        self._skip = 0  # what is still to come of a frame
        self._drops = False  # that
        self._in_parts = False  # a message has begun; the parser forgets that while it is empty
        self.deaf = False
        self.gone = False
        self.heard_at = monotonic()
        self.listener: Listener | None = None
        self._refused = False
        self._answered = asyncio.Event()

    def feed_data(self, data: bytes) -> None:
        """Take what has come, cut anywhere."""
        self.heard_at = monotonic()
        if self._held:
            data, self._held = self._held + data, b""
        if self._waits:
            self._wait(data)
        else:
            self._take(data, self._turns.left)

    def _wait(self, data: bytes) -> None:
        self._held = data
        self._waits = True
        self._source.hold()
        self.go_on()

    def go_on(self) -> None:
        """Take what waits, in turns to come."""
        if self._waits and not self._queued:
            self._queued = True
            self._turns.queue(self)

    def take_turn(self, most: int) -> None:
        """Take so many frames of what waits."""
        self._queued = False
        if not (self._waits and (self.gone or self._source.awaited)):
            return
        data, self._held, self._waits = self._held, b"", False
        self._take(data, most)
        if not self._waits:
            if self.gone:
                self._end()
            else:
                self._source.release()

    def _take(self, data: bytes, most: int) -> None:
        """Take so many frames; the others wait."""
        size = len(data)
        short = size - 2 - KEY_BYTES
        alone = 0 <= short < LENGTH_16 and not self._skip and data[1] == MASKED | short
        if alone and data[0] & WHOLE and not (self.deaf or self._in_parts):
            # One short frame, as for each key.
            is_text = MESSAGES.get(data[0])
            if is_text is not None and self.listener is not None:
                message = _unmasked(data)
                if self.listener(message, is_text):
                    return
            self._pass_on(data, closes=data[0] & OPCODE == WSMsgType.CLOSE)
            return
        at = self._skip
        begin = at if self._drops else 0  # of what is passed on next
        wanted: list[bytes] = []
        closes = False
        left = most
        while at + 2 <= size and left:
            left -= 1
            length = data[at + 1] ^ MASKED
            opcode = data[at] & OPCODE
            interrupts = self._in_parts and not self.deaf and 0 < opcode <= WSMsgType.BINARY
            if length & MASKED or interrupts:
                self._pass_on(b"".join([*wanted, data[begin:at]]))
                self._pass_on(NO_FRAME)
                return
            payload = at + 2 + LENGTH_BYTES.get(length, 0)
            if payload > size:
                break
            closes = closes or opcode == WSMsgType.CLOSE
            if length >= LENGTH_16:
                length = int.from_bytes(data[at + 2 : payload])
            # What is no frame is left to the parser to refuse.
            is_frame = not data[at] & RESERVED and length < NO_LENGTH
            drops = self.deaf and opcode <= WSMsgType.BINARY and is_frame
            if drops:
                wanted.append(data[begin:at])
            elif opcode <= WSMsgType.BINARY:
                self._in_parts = not data[at] & WHOLE
            at = payload + KEY_BYTES + length
            if drops:
                begin = at
        self._skip = max(at - size, 0)
        self._drops = begin == at
        rest = data[at:]
        self._pass_on(b"".join([*wanted, data[begin:at]]), closes=closes)
        # After that, so that who is to hear of these is called before the next ones are taken.
        self._turns.spend(most - left)
        if left:
            self._held = rest
        elif rest:
            self._wait(rest)

    def _pass_on(self, data: bytes, *, closes: bool = False) -> None:
        self.listener = None
        if not self._refused:
            self._refused, _ = self._parser.feed_data(data)
        if closes:
            self._answered.set()

    def feed_eof(self) -> None:
        """There is no more; the parser is told when it has what waits."""
        self.gone = True
        if self._waits:
            self.go_on()
        else:
            self._end()

    def _end(self) -> None:
        self._answered.set()
        self._parser.feed_eof()

    async def answered(self, silence_s: float) -> None:
        """Wait for the Close of a client that was refused, or until it is silent for so long."""
        heard_at = -inf
        while self.heard_at > heard_at:
            heard_at = self.heard_at
            with suppress(TimeoutError):
                await within(silence_s, self._answered.wait)


def _unmasked(frame: bytes) -> bytes:
    """The payload of a frame with a mask and a short length. Source: RFC 6455, section 5.3."""
    payload = frame[2 + KEY_BYTES :]
    size = len(payload)
    key = frame[2 : 2 + KEY_BYTES] * (size // KEY_BYTES + 1)
    return (int.from_bytes(payload) ^ int.from_bytes(key[:size])).to_bytes(size)
