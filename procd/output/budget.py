"""Budget: the memory that all buffers together may use."""

from collections.abc import Callable
from typing import Final

# What each buffer may keep of its tail even if the budget is used up. A reader that lags by a
# quarter of it loses nothing when one more read (64 KiB) is appended.
LEAST_TAIL_BYTES: Final = 128 << 10


class Budget:
    """How much memory all buffers together may use, and do use, in bytes.

    `evict` drops what is needed least; it returns whether there was anything to drop.
    """

    def __init__(self, most_bytes: int, on_freed: Callable[[int], None] = lambda _: None) -> None:
        self.most_bytes = most_bytes
        self.used_bytes = 0
        self.evict: Callable[[], bool] = lambda: False
        self._on_freed = on_freed

    def give_back(self, size: int) -> None:
        """Count `size` bytes less, which were freed."""
        self.used_bytes -= size
        self._on_freed(size)

    def take(self, size: int) -> bool:
        """Count `size` bytes more; without room for them count nothing and return False."""
        used = self.used_bytes + size
        if used >= self.most_bytes:
            return False
        self.used_bytes = used
        return True

    def relieve(self, size: int = 0) -> None:
        """Evict until there is room for `size`, unless it exceeds the whole budget."""
        while not self.has_room(size) and size + LEAST_TAIL_BYTES <= self.most_bytes:
            if not self.evict():
                return

    def has_room(self, size: int = 0) -> bool:
        """Whether there is room for the least tail of another buffer and `size` bytes besides."""
        return self.used_bytes + size + LEAST_TAIL_BYTES <= self.most_bytes
