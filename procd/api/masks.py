"""Masks: what a client sends by WebSocket is masked, or refused. aiohttp takes it either way.

Source: RFC 6455, sections 5.1 and 5.2.
"""

from typing import Final

from aiohttp.http_websocket import WebSocketReader

MASKED: Final = 0x80
KEY_BYTES: Final = 4
# A length that is this in a frame's second byte, or more, follows it in so many bytes.
LENGTH_16: Final = 126
LENGTH_BYTES: Final = {LENGTH_16: 2, 127: 8}
# What any parser closes with 1002 for: reserved bits are set.
NO_FRAME: Final = b"\xf0\x80\0\0\0\0"


class MaskedOnly:
    """Passes frames on to a parser, up to the first without a mask: that one it is to refuse."""

    __slots__ = ("_held", "_parser", "_skip")

    def __init__(self, parser: WebSocketReader) -> None:
        self._parser = parser
        self._held = b""  # the beginning of a header
        self._skip = 0  # what is still to come of a frame

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take what has come, cut anywhere; what it returns is aiohttp's business."""
        if self._held:
            data, self._held = self._held + data, b""
        size = len(data)
        short = size - 2 - KEY_BYTES
        if 0 <= short < LENGTH_16 and not self._skip and data[1] == MASKED | short:
            return self._parser.feed_data(data)  # one short frame, as for each key
        at = self._skip
        while at + 2 <= size:
            length = data[at + 1] ^ MASKED
            if length & MASKED:
                self._parser.feed_data(data[:at])
                return self._parser.feed_data(NO_FRAME)
            payload = at + 2 + LENGTH_BYTES.get(length, 0)
            if payload > size:
                break
            if length >= LENGTH_16:
                length = int.from_bytes(data[at + 2 : payload])
            at = payload + KEY_BYTES + length
        self._skip = max(at - size, 0)
        self._held = data[at:]
        return self._parser.feed_data(data[:at])

    def feed_eof(self) -> None:
        """There is no more."""
        self._parser.feed_eof()
