"""Multiplexed output: stdout and stderr in one byte stream, with a marker before each run.

Markers exist on the wire only. A message holds one marker and bytes of one stream, since clients
lose data otherwise; bytes of the user's own that look like a marker then harm that message only.

Source: Process API contract, sections 9.1 and 9.2.
"""

import time
from collections import OrderedDict
from typing import Final

from procd.output.buffer import Run
from procd.output.frames import BINARY, CACHED_FRAMES, encode
from procd.output.log import Log
from procd.output.logfile import LogFile

MARKERS: Final = {1: b"\x01\x01\x01", 2: b"\x02\x02\x02"}
# Payloads that a client may take for the beginning of a marker.
MARKER_PARTS: Final = frozenset({b"\1", b"\2", b"\1\1", b"\1\2", b"\2\1", b"\2\2"})
PAYLOAD_BYTES: Final = 16 << 10
# What is encoded at once: this many bytes, or about this many messages where runs are short.
BATCH_BYTES: Final = 256 << 10
BATCH_MESSAGES: Final = 256
# How far beyond a batch the place to cut it is looked for.
LOOKAHEAD_BYTES: Final = 4
# How long part of what may be a marker or a character waits for the rest, seconds.
HOLD_S: Final = 0.005


class MultiplexedFrames:
    """The messages of one log as WebSocket frames; a batch is encoded once for all its followers.

    They are `labelled` with a marker each, except for clients that know no markers.
    """

    __slots__ = ("_cache", "_held_end", "_held_since", "_labelled", "_log")

    def __init__(self, log: Log[LogFile], *, labelled: bool) -> None:
        self._log = log
        self._labelled = labelled
        # The bytes that are held back are the log's last, the same for all followers.
        self._held_end = -1
        self._held_since = 0.0
        self._cache: OrderedDict[int, tuple[bytes, int]] = OrderedDict()

    def at(self, offset: int) -> tuple[bytes, int]:
        """The messages of the bytes at `offset`, where some must be, and the offset after them.

        Part of a marker or of a character, if more may follow, is held back for HOLD_S: no message
        and the same offset are returned. Raises as `LogFile.read`.
        """
        cached = self._cache.get(offset)
        if cached is not None:
            return cached
        messages: list[bytes] = []
        end = offset
        last = offset + BATCH_BYTES
        for run in self._log.store.slices(offset, BATCH_BYTES + LOOKAHEAD_BYTES):
            if len(messages) >= BATCH_MESSAGES:
                break
            marker = MARKERS[run.stream] if self._labelled else b""
            position = 0
            size = len(run.data) - self._held_bytes(run)
            while position < size:
                limit = position + PAYLOAD_BYTES
                if run.offset + min(limit, size) > last and messages:
                    break  # the next batch begins here
                cut = cut_before(run.data, position, limit) if limit < size else size
                messages.append(encode(BINARY, marker + run.data[position:cut]))
                position = cut
            end = run.offset + position
            if position < len(run.data):
                break
        batch = b"".join(messages), end
        if messages:
            self._cache[offset] = batch
            if len(self._cache) > CACHED_FRAMES:
                self._cache.popitem(last=False)
        return batch

    def _held_bytes(self, run: Run) -> int:
        """How many bytes at the end of a run wait for bytes that may follow."""
        end = run.offset + len(run.data)
        if end != self._log.store.end or self._log.sealed:
            return 0
        if self._labelled and run.data in MARKER_PARTS:
            held_bytes = len(run.data)
        else:
            held_bytes = incomplete_bytes(run.data)
        if held_bytes == len(run.data):
            now = time.monotonic()
            if end != self._held_end:
                self._held_end, self._held_since = end, now
            if now >= self._held_since + HOLD_S:
                return 0
        return held_bytes

    def forget(self) -> None:
        self._cache.clear()


def cut_before(data: bytes, position: int, limit: int) -> int:
    """Where to end a message that begins at `position`: at `limit`, or just before.

    Neither within a UTF-8 character nor after what a client would take for a part of a marker.
    """
    if limit >= len(data):
        return len(data)
    floor = max(position, limit - 16)
    cut = limit
    while cut > max(floor, limit - 4) and data[cut] & 0xC0 == 0x80:
        cut -= 1  # the next byte continues a character
    if data[cut] & 0xC0 == 0x80:
        cut = limit  # more continuation bytes than UTF-8 has
    while cut > floor and data[cut - 1] in b"\x01\x02":
        cut -= 1
    return cut if cut > floor else limit


def incomplete_bytes(data: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of a character: RFC 3629, section 3."""
    for size in range(1, min(3, len(data)) + 1):
        byte = data[-size]
        if byte & 0xC0 != 0x80:
            whole = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC2 else 1
            return size if size < whole and byte < 0xF5 else 0
    return 0
