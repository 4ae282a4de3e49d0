"""What /metrics counts: durations and bytes."""

from bisect import bisect_left
from dataclasses import dataclass


class Histogram:
    """Durations in buckets.

    Args:
        bounds_s: upper bounds of the buckets, ascending, seconds; one more bucket has no bound.

    Attributes:
        counts: the number of durations in each bucket alone.
        sum_s: their sum, seconds.
    """

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds


@dataclass(slots=True)
class Traffic:
    """Bytes of one kind of transport."""

    received_bytes: int = 0
    sent_bytes: int = 0
