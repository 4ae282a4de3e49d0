"""A stretch: reads of two pipes that follow each other closely, which may become a flood.

Of a flood's writes nobody is told: each signal, and to count a line off, takes some microseconds,
and some of them are the writer's.
"""

import time
from typing import Final

from procd.process.arrivals import MOST_WRITES, Order

# How soon a read of either follows the last, seconds; and when what comes is no more of the same,
# however busy procd has been meanwhile.
GAP_S: Final = 0.005
REST_S: Final = 0.1
# After so many reads of one alone it is a flood until the other is read; after so many bytes that
# aren't lines of both, until little is read; and after so many writes until the next stretch. That
# begins with little, or after a rest: what is much after a gap has been written while we were slow.
MOST_ALONE: Final = 64
MOST_POURED_BYTES: Final = 1 << 20
LITTLE_BYTES: Final = 4096
MOST_TOLD: Final = 20_000


class Stretch:
    """The last one of two pipes."""

    __slots__ = ("_alone", "_flooding", "_is_flood", "_last", "_poured_bytes", "_pouring", "_told")

    def __init__(self) -> None:
        self._last = 0.0  # when one of them was read
        self._alone = self._poured_bytes = self._told = 0
        self._is_flood = False
        self._flooding: int | None = None  # until the other one is read
        self._pouring = False  # until little is read

    def is_told(self, order: Order, number: int, size: int) -> bool:
        """Whether the writes are, now that so many bytes were read from one."""
        now = time.monotonic()
        gap_s, self._last = now - self._last, now
        is_new = gap_s >= GAP_S
        if is_new:
            self._told = 0
        if order.is_mute and not self._is_flood:  # somebody else has been told of so many
            self._is_flood = True
            self._flooding = None
        if self._is_flood:
            is_other = self._flooding not in (None, number)
            is_over = gap_s >= REST_S or (size <= LITTLE_BYTES and (is_new or self._pouring))
            if not (is_over or is_other):
                return False
            self._is_flood = self._pouring = False
            self._flooding = None
            order.resume()
            is_new = True
        if is_new:
            self._alone = self._poured_bytes = 0
        return True

    def is_flood(
        self, order: Order, number: int, poured_bytes: int, writes: int, *, both: bool
    ) -> bool:
        """Whether it is one from now on.

        Args:
            number: which was read.
            poured_bytes: what was read, unless it is lines of both.
            writes: how many were told.
            both: whether both are in use.
        """
        self._alone = 0 if both else self._alone + 1
        self._poured_bytes += poured_bytes
        self._told += writes
        if writes > MOST_WRITES or self._told > MOST_TOLD:
            self._is_flood = True
        elif self._poured_bytes > MOST_POURED_BYTES:
            self._is_flood = self._pouring = True
        elif self._alone >= MOST_ALONE:
            self._is_flood, self._flooding = True, number
        if self._is_flood:
            order.pause()
        return self._is_flood
