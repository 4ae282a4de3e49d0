"""Heap: memory that was freed is kept for a moment, for what comes next, and then given back.

glibc gives a large block back to the kernel as soon as it is freed, so that each long output waits
for pages that are cleared anew, which takes longer than to copy what comes into them. And it keeps
for ever what is free below a block in use, so that procd stays as large as it ever was.

Source: mallopt(3), malloc_trim(3); with another C library than glibc all is as that has it.
"""

import asyncio
from typing import Final

from procd.unix.libc import LIBC

# malloc.h
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3

# Of what is free at the end of the heap, so much may stay; what is larger than LARGEST_BYTES, the
# most that glibc allows here, is never part of it.
HELD_BYTES: Final = 128 << 20
LARGEST_BYTES: Final = 32 << 20
# Less than this isn't worth a look at what is free.
MUCH_BYTES: Final = 1 << 20
# When no more than that has been freed for so long, all goes back.
QUIET_S: Final = 1.0


def keep_freed_memory() -> None:
    """Have what is freed stay, in this process, until a Heap gives it back."""
    if hasattr(LIBC, "mallopt"):
        LIBC.mallopt(M_MMAP_THRESHOLD, LARGEST_BYTES)
        LIBC.mallopt(M_TRIM_THRESHOLD, HELD_BYTES)


class MallocTrimmer:
    """Gives back what was freed, once it is quiet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._freed_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def freed(self, size: int) -> None:
        """So many bytes have been freed, or are about to be."""
        self._freed_bytes += size
        if self._freed_bytes >= MUCH_BYTES and self._timer is None and not self._loop.is_closed():
            self._wait()

    def _wait(self) -> None:
        self._freed_bytes = 0
        self._timer = self._loop.call_later(QUIET_S, self._waited)

    def _waited(self) -> None:
        self._timer = None
        if self._freed_bytes >= MUCH_BYTES:
            self._wait()
        elif hasattr(LIBC, "malloc_trim"):
            LIBC.malloc_trim(0)

    def close(self) -> None:
        """Leave it to the end of the process."""
        if self._timer is not None:
            self._timer.cancel()
