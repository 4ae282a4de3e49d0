"""Budget: how much memory all backlogs together may take, and who lets go first."""

from collections.abc import Callable
from typing import Final, Protocol

# What the tail of each may keep, whatever the others have: a quarter, and what is read in one turn
# on top of that (64 KiB), still fit.
LEAST_TAIL_BYTES: Final = 128 << 10


class Cache(Protocol):
    """Holds within a budget what can be made again."""

    def close(self) -> None:
        """Drop it."""


def _nothing(_: int) -> None:
    """Ignore how much memory became free."""


def _nobody() -> bool:
    """Nobody has anything to let go of."""
    return False


class Budget:
    """What all backlogs together may keep, and do keep, bytes.

    Args:
        freed: told how much somebody had who needs it no longer.

    Attributes:
        caches: what goes before any output does; what it holds is counted as well.
        let_go: forgets what can be spared most; whether there was anything.
    """

    __slots__ = ("_freed", "caches", "let_go", "most_bytes", "used_bytes")

    def __init__(self, most_bytes: int, freed: Callable[[int], None] = _nothing) -> None:
        self.most_bytes = most_bytes
        self.used_bytes = 0
        self.caches: set[Cache] = set()
        self.let_go: Callable[[], bool] = _nobody
        self._freed = freed

    def give_back(self, size: int) -> None:
        """Count `size` bytes no longer, which are not to be used again by the same."""
        self.used_bytes -= size
        self._freed(size)

    def take(self, size: int) -> bool:
        """Count `size` bytes more, if that leaves room; whether it does."""
        used = self.used_bytes + size
        if used >= self.most_bytes:
            return False
        self.used_bytes = used
        return True

    def relieve(self, size: int = 0) -> None:
        """Drop caches, then what can be spared, until there is room, or nothing is left to drop.

        For what would not fit even then, nothing is dropped.

        Args:
            size: of what is to be kept beside a backlog, bytes.
        """
        while not self.has_room(size) and size + LEAST_TAIL_BYTES <= self.most_bytes:
            if self.caches:
                self.caches.pop().close()
            elif not self.let_go():
                return

    def has_room(self, size: int = 0) -> bool:
        """Whether there may be a further backlog, the least of it, and `size` bytes beside it."""
        return self.used_bytes + size + LEAST_TAIL_BYTES <= self.most_bytes
