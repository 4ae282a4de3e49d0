"""How many processes may be started a second."""

from collections.abc import Callable

from procd.errors import Exhausted


class SpawnRate:
    """A token bucket: `burst` processes at once, and `per_s` a second on average; 0: any number.

    Args:
        now: a monotonic clock, seconds.
    """

    def __init__(self, now: Callable[[], float], per_s: float, burst: int) -> None:
        self._now = now
        self._per_s = per_s
        self._burst = burst
        self._tokens = float(burst)
        self._filled_at = now()

    def take(self) -> None:
        """Take one.

        Raises:
            Exhausted: there is none.
        """
        if not self._per_s:
            return
        now = self._now()
        grown = self._tokens + (now - self._filled_at) * self._per_s
        self._tokens = min(float(self._burst), grown)
        self._filled_at = now
        if self._tokens < 1:
            raise Exhausted(f"limit of {self._per_s:g} new processes per second is reached")
        self._tokens -= 1
