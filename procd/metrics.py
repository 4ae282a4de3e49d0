"""What is counted as it happens: plain numbers, which whoever shows them reads.

How much of something there is at the moment isn't counted here: its owner is asked (`Gauge`).
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass


class Histogram:
    """How long something took, in buckets.

    Args:
        bounds_s: upper bounds of the buckets, ascending, seconds; a last one has no bound.

    Attributes:
        counts: for each bucket, how many fell into it alone.
        sum_s: all of them together, seconds.
    """

    __slots__ = ("bounds_s", "counts", "sum_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds


@dataclass(slots=True)
class Traffic:
    """Bytes of one kind of transport."""

    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Gauge:
    """How much of something there is, asked of its owner.

    Attributes:
        name: in the form of Prometheus: lower case, the unit last.
    """

    name: str
    doc: str
    read: Callable[[], float]
