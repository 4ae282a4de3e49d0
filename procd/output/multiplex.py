"""Labelled output: stdout and stderr in one byte stream, each run behind its marker.

Markers exist on the wire only. A message holds one marker and bytes of one stream, since clients
lose data otherwise; bytes of the user's own that look like a marker then harm that message at most.

Source: Process API contract, sections 9.1 and 9.2.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Protocol

from procd.output.buffer import Run
from procd.output.frames import BINARY, CACHED_FRAMES, encode
from procd.output.log import Log, Store
from procd.output.utf8 import begun_bytes

MARKERS: Final = {1: b"\x01\x01\x01", 2: b"\x02\x02\x02"}
# Payloads that a client may take for the beginning of a marker.
PARTS: Final = frozenset({b"\1", b"\2", b"\1\1", b"\1\2", b"\2\1", b"\2\2"})
PAYLOAD_BYTES: Final = 16 << 10
# What is encoded at once: so many bytes, or about so many messages where runs are short.
BATCH_BYTES: Final = 256 << 10
BATCH_MESSAGES: Final = 256
# How far beyond a batch is looked for the place to cut it.
LOOK_BYTES: Final = 4
# How long bytes that a client would take for part of a marker, or that begin a character, wait for
# those after them, seconds.
HOLD_S: Final = 0.005


class SlicedStore(Store, Protocol):
    """A store that tells where the stream changes."""

    def slices(self, offset: int, most: int) -> Iterator[Run]:
        """Bytes from `offset` on, cut where the stream changes."""


class LabelledFrames:
    """The messages of one log, each batch encoded once for all who stand at the same offset.

    Args:
        labelled: with a marker before each payload; without, for clients that know none.
    """

    __slots__ = ("_cache", "_held_end", "_held_since", "_labelled", "_log")

    def __init__(self, log: Log[SlicedStore], *, labelled: bool) -> None:
        self._log = log
        self._labelled = labelled
        # What is held is the log's last bytes, the same for all who wait for what follows them.
        self._held_end = -1
        self._held_since = 0.0
        self._cache: OrderedDict[int, tuple[bytes, int]] = OrderedDict()

    def at(self, offset: int) -> tuple[bytes, int]:
        """The messages that begin at `offset`, and the offset after them.

        There must be bytes at `offset`. A message of nothing but one or two bytes of a marker, or
        the first of a character, is held back for HOLD_S if more may follow: there is no message at
        first, then, and the offset is the same.

        Raises:
            LookupError: they are no longer kept.
            OSError: the store can't be read.
        """
        cached = self._cache.get(offset)
        if cached is not None:
            return cached
        messages: list[bytes] = []
        end = offset
        last = offset + BATCH_BYTES
        for run in self._log.store.slices(offset, BATCH_BYTES + LOOK_BYTES):
            if len(messages) >= BATCH_MESSAGES:
                break
            marker = MARKERS[run.stream] if self._labelled else b""
            position = 0
            size = len(run.data) - self._held_bytes(run)
            while position < size:
                limit = position + PAYLOAD_BYTES
                if run.offset + min(limit, size) > last and messages:
                    break  # the next batch begins with it
                cut = cut_before(run.data, position, limit) if limit < size else size
                messages.append(encode(BINARY, marker + run.data[position:cut]))
                position = cut
            end = run.offset + position
            if position < len(run.data):
                break
        batch = b"".join(messages), end
        if not messages:
            return batch
        self._cache[offset] = batch
        if len(self._cache) > CACHED_FRAMES:
            self._cache.popitem(last=False)
        return batch

    def _held_bytes(self, run: Run) -> int:
        """How many bytes at the end of a run wait for those that may follow."""
        end = run.offset + len(run.data)
        if end != self._log.store.end or self._log.sealed:
            return 0
        if self._labelled and run.data in PARTS:
            held_bytes = len(run.data)
        else:
            held_bytes = begun_bytes(run.data)
        if held_bytes == len(run.data):
            now = time.monotonic()
            if end != self._held_end:
                self._held_end, self._held_since = end, now
            if now >= self._held_since + HOLD_S:
                return 0
        return held_bytes

    def forget(self) -> None:
        """Drop the cache, when nobody is left to share it."""
        self._cache.clear()


def cut_before(data: bytes, position: int, limit: int) -> int:
    """Where to end a message that began at `position`: at `limit`, or just before.

    Neither within a UTF-8 character nor after bytes that a client would take for the beginning of
    a marker, as far as `data` allows.
    """
    if limit >= len(data):
        return len(data)
    floor = max(position, limit - 16)
    cut = limit
    while cut > max(floor, limit - 4) and data[cut] & 0xC0 == 0x80:
        cut -= 1  # what comes next would be the rest of a character
    if data[cut] & 0xC0 == 0x80:
        cut = limit  # more continuation bytes than UTF-8 has
    while cut > floor and data[cut - 1] in b"\x01\x02":
        cut -= 1
    return cut if cut > floor else limit
