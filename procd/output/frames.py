"""Binary WebSocket frames of a log, each encoded once for all clients at the same offset.

Source: RFC 6455, section 5.2: a server's frames aren't masked.
"""

import struct
from collections import OrderedDict
from typing import Final

from procd.output.buffer import Buffer

FRAME_BYTES: Final = 64 << 10
# Clients that keep up are at the same offset or a few frames apart.
CACHED_FRAMES: Final = 4

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10


def encode(opcode: int, payload: bytes) -> bytes:
    """Encode one whole, unmasked frame."""
    size = len(payload)
    if size < 126:
        header = bytes((0x80 | opcode, size))
    elif size < 1 << 16:
        header = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        header = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return header + payload


class Frames:
    __slots__ = ("_cache", "_store")

    def __init__(self, store: Buffer) -> None:
        self._store = store
        self._cache: OrderedDict[int, tuple[bytes, int]] = OrderedDict()

    def at(self, offset: int) -> tuple[bytes, int]:
        """The frame of the bytes at `offset`, of which there must be some, and the offset after it.

        LookupError if the bytes are no longer kept.
        """
        cached = self._cache.get(offset)
        if cached is not None:
            return cached
        payload = self._store.read(offset, FRAME_BYTES)
        frame = encode(BINARY, payload), offset + len(payload)
        self._cache[offset] = frame
        if len(self._cache) > CACHED_FRAMES:
            self._cache.popitem(last=False)
        return frame

    def forget(self) -> None:
        self._cache.clear()
