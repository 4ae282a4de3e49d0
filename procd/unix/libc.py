"""The C library: calls that Python has no function for, and its malloc: mallopt(3), malloc_trim(3).

glibc returns a large block to the kernel as soon as it is freed, and the next large output waits
while new pages are cleared; free memory below a block in use is never returned.
"""

import asyncio
import ctypes
from typing import Final

LIBC: Final = ctypes.CDLL(None, use_errno=True)

# malloc.h
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3

# So much may stay free at the end of the heap, from where come blocks up to MMAP_BYTES.
TRIM_BYTES: Final = 128 << 20
MMAP_BYTES: Final = 32 << 20
# What has to be freed before a trim is worth its time.
TRIM_AFTER_BYTES: Final = 1 << 20
# A trim waits until less than that is freed in this time.
QUIET_S: Final = 1.0


def keep_freed_memory() -> None:
    if hasattr(LIBC, "mallopt"):
        LIBC.mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        LIBC.mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


class MallocTrimmer:
    """Returns freed memory to the kernel when little is freed any more."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._freed_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def freed(self, size: int) -> None:
        self._freed_bytes += size
        if self._freed_bytes < TRIM_AFTER_BYTES or self._timer is not None:
            return
        if not self._loop.is_closed():
            self._start_timer()

    def _start_timer(self) -> None:
        self._freed_bytes = 0
        self._timer = self._loop.call_later(QUIET_S, self._time_over)

    def _time_over(self) -> None:
        self._timer = None
        if self._freed_bytes >= TRIM_AFTER_BYTES:
            self._start_timer()
        elif hasattr(LIBC, "malloc_trim"):
            LIBC.malloc_trim(0)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
