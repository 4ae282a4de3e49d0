"""Buffer: the bytes of a log that are kept in memory, addressed by absolute offset."""

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter
from typing import Final, NamedTuple

from procd.output.budget import LEAST_TAIL_BYTES, Budget

# Runs up to this size are joined with what follows on their stream.
MERGE_BYTES: Final = 4 << 10
# The memory of a run beside its bytes. As many are kept as fit the cap, but at least FEW_RUNS.
RUN_COST_BYTES: Final = 192
FEW_RUNS: Final = 340
# Evicted runs are removed from the lists when there are more than this.
COMPACT_RUNS: Final = 256


class Run(NamedTuple):
    """Consecutive bytes of one stream, and the absolute offset of the first."""

    offset: int
    stream: int
    data: bytes


_offset: Final = attrgetter("offset")
EVICTED: Final = Run(-1, 0, b"")


class Buffer:
    """The first `head_bytes` and the last `cap_bytes - head_bytes` of a log.

    What lies between head and tail is dropped. A buffer uses at most twice the cap and one run.
    All streams (small numbers) share one sequence of offsets, in order of arrival.

    While the budget is used up, the head ends and the tail shrinks as bytes are appended, down to
    `LEAST_TAIL_BYTES`; later it grows again. With each append it at most halves or doubles, so that
    a reader that lags by `safe_lag_bytes` loses nothing.
    """

    __slots__ = ("_accounted", "_budget", "_claimed", "_dropped", "_first", "_full_tail_bytes",
                 "_head", "_head_bytes", "_offsets", "_tail", "_tail_bytes", "_totals",
                 "end")  # fmt: skip

    def __init__(self, cap_bytes: int, head_bytes: int = 0, budget: Budget | None = None) -> None:
        self._budget = budget
        self._accounted = 0  # what the budget counts for the bytes that are kept
        self._claimed = 0  # and for `claim`
        self._tail_bytes = self._full_tail_bytes = cap_bytes - head_bytes
        self._head_bytes = head_bytes
        self._head: list[Run] = []
        self._tail: list[Run] = []
        self._offsets: list[int] = []  # of the runs in `_tail`
        self._first = 0  # index of the oldest run in `_tail` that is kept
        self.end = 0
        self._totals: dict[int, int] = {}  # by stream: all bytes that were ever appended
        self._dropped: dict[int, int] = {}  # by stream: the bytes of evicted runs

    @property
    def start(self) -> int:
        if self._first == len(self._offsets):
            return self.end
        return max(self._offsets[self._first], self.end - self._tail_bytes)

    def start_after(self, size: int) -> int:
        """What `start` will be after `size` more bytes, unless the tail shrinks."""
        return max(self.start, self.end + size - self._tail_bytes)

    @property
    def kept_bytes(self) -> int:
        return min(self._head_bytes, self.end) + self.end - self.start

    @property
    def held_bytes(self) -> int:
        """How much memory they use, as the budget counts it."""
        return self.kept_bytes + RUN_COST_BYTES * (len(self._head) + len(self._tail) - self._first)

    @property
    def sole_stream(self) -> int:
        """The stream of all bytes that were ever appended; 0 if there are several, or none."""
        return next(iter(self._totals)) if len(self._totals) == 1 else 0

    @property
    def safe_lag_bytes(self) -> int:
        """How far a reader may lag without losing bytes, even if the tail shrinks."""
        return sys.maxsize if self._budget is None else self._tail_bytes // 4

    def claim(self, size: int) -> bool:
        """Count `size` bytes of another object in the budget until `clear`; False without room."""
        if self._budget is None or not self._budget.take(size):
            return False
        self._claimed += size
        return True

    def append(self, data: bytes, stream: int = 0) -> None:
        """Append `data`, which isn't copied if it is long."""
        if not data:
            return
        self._totals[stream] = self._totals.get(stream, 0) + len(data)
        if self.end < self._head_bytes:
            room = self._head_bytes - self.end
            self._add_to(self._head, data[:room], stream)
            data = data[room:]
            if len(self._head) > self._most_runs(self._head_bytes):
                self._head_bytes = self.end  # too many short runs: the head ends here
        if data:
            if self._add_to(self._tail, data, stream):
                self._offsets.append(self.end - len(data))
            self._evict()
        if self._budget is not None:
            self._account(self._budget)

    def _add_to(self, runs: list[Run], data: bytes, stream: int) -> bool:
        """Join `data` with the last run if both are short, else add a run and return True."""
        offset = self.end
        self.end += len(data)
        if runs:
            last = runs[-1]
            if last.stream == stream and len(last.data) + len(data) <= MERGE_BYTES:
                runs[-1] = Run(last.offset, stream, last.data + data)
                return False
        runs.append(Run(offset, stream, data))
        return True

    def _most_runs(self, size: int) -> int:
        return max(size // RUN_COST_BYTES, FEW_RUNS)

    def _evict(self) -> None:
        runs, offsets, first = self._tail, self._offsets, self._first
        last = len(runs) - 1
        most_runs = self._most_runs(self._tail_bytes)
        while first < last and (
            self.end - offsets[first + 1] >= self._tail_bytes or last - first > most_runs
        ):
            _, stream, data = runs[first]
            self._dropped[stream] = self._dropped.get(stream, 0) + len(data)
            runs[first] = EVICTED
            first += 1
        if first > COMPACT_RUNS and first * 2 > len(runs):
            del runs[:first], offsets[:first]
            first = 0
        self._first = first

    def _account(self, budget: Budget) -> None:
        """Update the budget; shrink the tail if that is used up, else let the tail grow."""
        self._update(budget)
        if budget.used_bytes < budget.most_bytes and self._tail_bytes == self._full_tail_bytes:
            return
        budget.relieve()
        excess = budget.used_bytes - budget.most_bytes
        if excess <= 0:
            self._tail_bytes = min(self._tail_bytes * 2, self._full_tail_bytes)
            return
        self._head_bytes = min(self._head_bytes, self.end)
        tail = max(LEAST_TAIL_BYTES, self._tail_bytes // 2, self.end - self.start - excess)
        self._tail_bytes = min(tail, self._full_tail_bytes)
        self._evict()
        self._update(budget)

    def _update(self, budget: Budget) -> None:
        held = self.held_bytes
        budget.used_bytes += held - self._accounted
        self._accounted = held

    def shorten(self, least_bytes: int) -> bool:
        """Drop the older half of the tail, but keep `least_bytes`; False if nothing was dropped."""
        kept = self.end - self.start
        tail = max(least_bytes, kept // 2)
        if self._budget is None or tail >= kept:
            return False
        self._tail_bytes = tail
        self._evict()
        self._give_back_dropped()
        return True

    def cut(self, most_bytes: int) -> None:
        """Keep only the first and the last half of `most_bytes`; nothing may follow."""
        if self.kept_bytes <= most_bytes:
            return
        half = most_bytes // 2
        last = self._tail[self._first :]
        if self.start == min(self._head_bytes, self.end):  # no gap: the tail may begin in the head
            last = self._head + last
            self._tail_bytes = half
        last = last[max(bisect_right(last, self.end - half, key=_offset) - 1, 0) :]
        head = self._head[: bisect_left(self._head, half, key=_offset)]
        if head:
            run = head.pop()
            head.append(run._replace(data=run.data[: half - run.offset]))
        self._head_bytes = min(self._head_bytes, self.end, half)
        self._tail_bytes = self._full_tail_bytes = min(self._tail_bytes, half)
        self._head, self._tail, self._first = head, last, 0
        self._offsets = [run.offset for run in last]
        self._dropped = self._totals.copy()
        for run in chain(head, last):
            self._dropped[run.stream] -= len(run.data)
        self._give_back_dropped()

    def clear(self) -> None:
        self._head.clear()
        self._head_bytes = 0
        self._tail.clear()
        self._offsets.clear()
        self._first = 0
        self._dropped = self._totals.copy()
        self._release()

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        if self._budget is not None and (size := self._accounted + self._claimed):
            self._accounted = self._claimed = 0
            self._budget.give_back(size)

    def _give_back_dropped(self) -> None:
        if self._budget is not None:
            held = self.held_bytes
            self._budget.give_back(self._accounted - held)
            self._accounted = held

    def read(self, offset: int, most: int) -> bytes:
        """Bytes from `offset` on: whole runs that fit in `most`, or part of one; b"" at the end.

        LookupError if `offset` lies before `start`, or beyond the end.
        """
        if offset == self.end:
            return b""
        if self._tail:
            last = self._tail[-1]  # the usual position of a reader that keeps up
            if offset == last.offset and len(last.data) <= min(most, self._tail_bytes):
                return last.data
        parts: list[bytes] = []
        for run in self._from(offset):
            data = run.data[offset - run.offset :] if offset > run.offset else run.data
            if len(data) > most:
                if not parts:
                    parts.append(data[:most])
                break
            parts.append(data)
            most -= len(data)
            offset = run.offset + len(run.data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def slices(self, offset: int, most: int) -> Iterator[Run]:
        """As `read`, at most `most` bytes, cut where the stream changes."""
        for run in self._from(offset):
            data = run.data
            if offset > run.offset or len(data) > most:
                first = offset - run.offset
                data = data[first : first + most]
            if not data:
                return
            yield Run(offset, run.stream, data)
            offset += len(data)
            most -= len(data)

    def dropped(self, stream: int) -> int:
        dropped = self._dropped.get(stream, 0)
        if self._first < len(self._tail) and self._tail[self._first].stream == stream:
            dropped += self.start - self._tail[self._first].offset
        return dropped

    def runs(self) -> Iterator[Run]:
        """Everything that is kept, oldest first; after a gap the offset jumps."""
        yield from self._head
        start = self.start
        for run in self._tail[self._first :]:
            if run.offset < start:
                yield Run(start, run.stream, run.data[start - run.offset :])
            else:
                yield run

    def _from(self, offset: int) -> Iterator[Run]:
        if not self.start <= offset <= self.end:
            raise LookupError(offset)
        index = bisect_right(self._offsets, offset, lo=self._first) - 1
        for position in range(max(index, self._first), len(self._tail)):
            yield self._tail[position]
