"""Budget: how much memory all buffers together may take."""

from collections.abc import Callable
from typing import Final

# What each buffer may keep of its tail, whatever the others have: a quarter of it, and what is read
# in one turn of the event loop on top of that (64 KiB), still fit.
LEAST_TAIL_BYTES: Final = 128 << 10


class Budget:
    """What all buffers together may take, and do take, bytes.

    Args:
        on_freed: called with the number of bytes that were freed.

    Attributes:
        evict: drops what can be spared most; returns whether there was anything.
    """

    __slots__ = ("_on_freed", "evict", "most_bytes", "used_bytes")

    def __init__(self, most_bytes: int, on_freed: Callable[[int], None] = lambda _: None) -> None:
        self.most_bytes = most_bytes
        self.used_bytes = 0
        self.evict: Callable[[], bool] = lambda: False
        self._on_freed = on_freed

    def give_back(self, size: int) -> None:
        """Count `size` bytes less; the same owner won't use them again."""
        self.used_bytes -= size
        self._on_freed(size)

    def take(self, size: int) -> bool:
        """Count `size` bytes more; False, and nothing is counted, if there is no room for them."""
        used = self.used_bytes + size
        if used >= self.most_bytes:
            return False
        self.used_bytes = used
        return True

    def relieve(self, size: int = 0) -> None:
        """Evict until there is room, or nothing is left to evict.

        Nothing is evicted for something that wouldn't fit even then.

        Args:
            size: what is to be kept beside a buffer, bytes.
        """
        while not self.has_room(size) and size + LEAST_TAIL_BYTES <= self.most_bytes:
            if not self.evict():
                return

    def has_room(self, size: int = 0) -> bool:
        """Whether there is room for the least of another buffer, and `size` bytes beside it."""
        return self.used_bytes + size + LEAST_TAIL_BYTES <= self.most_bytes
