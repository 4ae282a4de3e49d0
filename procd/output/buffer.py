"""Backlog: the bytes of a log that are still kept, addressed by absolute offset."""

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter
from typing import Final, NamedTuple

from procd.output.budget import LEAST_TAIL_BYTES, Budget

# Runs below this are joined with what follows, lest a byte at a time cost an object each.
MERGE_BYTES: Final = 4 << 10
# What a run costs beside its bytes. Where runs are so short that their number would cost more than
# the cap, old ones go before the bytes add up to it.
RUN_COST_BYTES: Final = 192
# Below this, what runs cost is nobody's concern.
LEAST_COST_BYTES: Final = 64 << 10
FEW_RUNS: Final = LEAST_COST_BYTES // RUN_COST_BYTES


class Run(NamedTuple):
    """Consecutive bytes of one stream; `offset` is the absolute offset of the first."""

    offset: int
    stream: int
    data: bytes


_offset: Final = attrgetter("offset")
# In the place of one that is gone, until the list is cut.
EVICTED: Final = Run(-1, 0, b"")


class Backlog:
    """The first `head_bytes` and the last `cap_bytes - head_bytes` of an endless run of bytes.

    What was appended has its offset for ever. What lies between head and tail is gone; without a
    head, that is all before `start`. The memory taken is at most twice the cap and one run, or what
    `LEAST_COST_BYTES` of short runs take.

    Each byte belongs to a stream (a small number, such as that of the descriptor it came from);
    all streams share one sequence of offsets, in order of arrival.

    Where a budget is used up, the head ends and the tail gets shorter as more is appended, down to
    `LEAST_TAIL_BYTES`; the tail gets longer again when others have let go of theirs. It halves or
    doubles with each append at the most: one who lags by `safe_lag_bytes` loses nothing.
    """

    __slots__ = (
        "_accounted",
        "_budget",
        "_claimed",
        "_first",
        "_full_tail_bytes",
        "_gone",
        "_head",
        "_head_bytes",
        "_offsets",
        "_runs",
        "_tail_bytes",
        "_totals",
        "end",
    )  # fmt: skip

    def __init__(self, cap_bytes: int, head_bytes: int = 0, budget: Budget | None = None) -> None:
        self._budget = budget
        self._accounted = 0
        self._claimed = 0  # beside what is kept
        self._tail_bytes = self._full_tail_bytes = cap_bytes - head_bytes
        self._head_bytes = head_bytes
        self._head: list[Run] = []
        self._runs: list[Run] = []
        self._offsets: list[int] = []
        self._first = 0  # index of the oldest run kept in the tail
        self.end = 0
        self._totals: dict[int, int] = {}
        self._gone: dict[int, int] = {}  # of each stream's, with runs that went whole

    @property
    def start(self) -> int:
        """Offset of the oldest byte of the tail; up to `head_end` and from here on, all is kept."""
        if self._first == len(self._offsets):
            return self.end
        return max(self._offsets[self._first], self.end - self._tail_bytes)

    def start_after(self, size: int) -> int:
        """What `start` will be when `size` bytes more have come, unless the tail gets shorter."""
        return max(self.start, self.end + size - self._tail_bytes)

    @property
    def head_end(self) -> int:
        """Offset after the head; between it and `start` lies the gap, empty if they are equal."""
        return min(self._head_bytes, self.end)

    @property
    def kept_bytes(self) -> int:
        """How many bytes are kept."""
        end, first, offsets = self.end, self._first, self._offsets
        tail_bytes = end - offsets[first] if first < len(offsets) else 0
        if tail_bytes > self._tail_bytes:
            tail_bytes = self._tail_bytes
        return min(self._head_bytes, end) + tail_bytes

    @property
    def held_bytes(self) -> int:
        """How much memory that takes, of which a budget is told."""
        runs = len(self._head) + len(self._runs) - self._first
        return self.kept_bytes + RUN_COST_BYTES * runs

    @property
    def sole_stream(self) -> int:
        """The stream of all bytes that ever came; 0 if there are several, or none."""
        return next(iter(self._totals)) if len(self._totals) == 1 else 0

    def claim(self, size: int) -> bool:
        """Whether a budget has room for `size` more bytes, which are this one's from now on."""
        if self._budget is None or not self._budget.take(size):
            return False
        self._claimed += size
        return True

    @property
    def safe_lag_bytes(self) -> int:
        """How far a reader may be behind and lose nothing, though the tail may get shorter."""
        return sys.maxsize if self._budget is None else self._tail_bytes // 4

    def append(self, data: bytes, stream: int = 0) -> None:
        """Add `data`, which is not copied if it is long.

        Raises:
            MemoryError: there is none for it; all is as before.
        """
        if not data:
            return
        before = self._totals.get(stream)
        runs = len(self._head) + len(self._runs)
        self._totals[stream] = len(data) if before is None else before + len(data)
        try:
            self._keep(data, stream)
        except MemoryError:
            if before is None:
                del self._totals[stream]
            else:
                self._totals[stream] = before
            raise
        try:
            self._make_up(len(data), runs)
        except MemoryError:  # it is kept, and is made up for with what comes next
            return

    def _keep(self, data: bytes, stream: int) -> None:
        """Add to the head, the tail or both; all or nothing."""
        room = self._head_bytes - self.end
        if room <= 0:
            if not self._joined(self._runs, data, stream):
                end = self.end + len(data)
                self._offsets.append(self.end)
                try:
                    self._runs.append(Run(self.end, stream, data))
                except MemoryError:
                    self._offsets.pop()
                    raise
                self.end = end
        elif len(data) <= room:
            if not self._joined(self._head, data, stream):
                end = self.end + len(data)
                self._head.append(Run(self.end, stream, data))
                self.end = end
        else:  # until then nothing is in the tail
            end = self.end + len(data)
            first, rest = data[:room], Run(self._head_bytes, stream, data[room:])
            try:
                self._offsets.append(rest.offset)
                self._runs.append(rest)
                if not self._joined(self._head, first, stream):
                    self._head.append(Run(self.end, stream, first))
            except MemoryError:
                self._offsets.clear()
                self._runs.clear()
                raise
            self.end = end

    def _joined(self, runs: list[Run], data: bytes, stream: int) -> bool:
        """Add to the last run if both are short; whether they are."""
        if not runs or len(data) >= MERGE_BYTES:
            return False
        offset, last_stream, last = runs[-1]
        if last_stream != stream or len(last) + len(data) > MERGE_BYTES:
            return False
        end = self.end + len(data)
        runs[-1] = Run(offset, stream, last + data)
        self.end = end
        return True

    def _make_up(self, size: int, runs: int) -> None:
        """Let go of what is too much with `size` more bytes, and count them.

        Args:
            runs: how many there were before.
        """
        offsets = self._offsets
        grown = True  # by all of it
        if offsets:
            # Most often it is clear at a glance that nothing has to go.
            if self.end - offsets[self._first] > self._tail_bytes or len(offsets) > FEW_RUNS:
                self._evict()
                grown = False
        elif len(self._head) * RUN_COST_BYTES > max(self._head_bytes, LEAST_COST_BYTES):
            self._head_bytes = self.end  # so many short runs: the head ends here
        budget = self._budget
        if budget is None:
            return
        if grown and self._tail_bytes == self._full_tail_bytes:
            more = size + RUN_COST_BYTES * (len(self._head) + len(self._runs) - runs)
            accounted = self._accounted + more
            if budget.take(more):
                self._accounted = accounted
                return
        self._account(budget)

    def _evict(self) -> None:
        runs, offsets = self._runs, self._offsets
        first = self._first
        last = len(runs) - 1
        try:
            while first < last and (
                self.end - offsets[first + 1] >= self._tail_bytes
                or (last - first) * RUN_COST_BYTES > max(self._tail_bytes, LEAST_COST_BYTES)
            ):
                _, stream, data = runs[first]
                following = first + 1
                self._gone[stream] = self._gone.get(stream, 0) + len(data)
                runs[first] = EVICTED
                first = following
        finally:
            self._first = first
        if first > 256 and first * 2 > len(runs):
            runs, offsets = runs[first:], offsets[first:]
            self._runs, self._offsets, self._first = runs, offsets, 0

    def _account(self, budget: Budget) -> None:
        held = self.held_bytes
        budget.used_bytes += held - self._accounted
        self._accounted = held
        budget.relieve()
        excess = budget.used_bytes - budget.most_bytes
        if excess <= 0:
            if self._tail_bytes < self._full_tail_bytes:
                self._tail_bytes = min(self._tail_bytes * 2, self._full_tail_bytes)
            return
        self._head_bytes = self.head_end
        tail = max(LEAST_TAIL_BYTES, self._tail_bytes // 2, self.end - self.start - excess)
        self._tail_bytes = min(tail, self._full_tail_bytes)
        self._evict()
        held = self.held_bytes
        budget.used_bytes += held - self._accounted
        self._accounted = held

    def shorten(self, least_bytes: int) -> bool:
        """Let the older half of the tail go, as far as that leaves `least_bytes`; whether it does.

        The tail gets longer again with what is appended, if the budget has room.
        """
        kept = self.end - self.start
        tail = max(least_bytes, kept // 2)
        if self._budget is None or tail >= kept:
            return False
        self._tail_bytes = tail
        self._evict()
        held = self.held_bytes
        self._budget.give_back(self._accounted - held)
        self._accounted = held
        return True

    def cut(self, most_bytes: int) -> None:
        """Keep no more than the first and the last half of `most_bytes`, when all has come."""
        if self.kept_bytes <= most_bytes:
            return
        half = most_bytes // 2
        last = self._runs[self._first :]
        if self.start == self.head_end:  # without a gap, the last half may begin in the head
            last = self._head + last
            self._tail_bytes = half
        last = last[max(bisect_right(last, self.end - half, key=_offset) - 1, 0) :]
        head = self._head[: bisect_left(self._head, half, key=_offset)]
        if head:
            run = head.pop()
            head.append(run._replace(data=run.data[: half - run.offset]))
        self._head_bytes = min(self.head_end, half)
        self._tail_bytes = self._full_tail_bytes = min(self._tail_bytes, half)
        self._head, self._runs, self._first = head, last, 0
        self._offsets = [run.offset for run in last]
        self._gone = self._totals.copy()
        for run in chain(head, last):
            self._gone[run.stream] -= len(run.data)
        if self._budget is not None:
            held = self.held_bytes
            self._budget.give_back(self._accounted - held)
            self._accounted = held

    def clear(self) -> None:
        """Keep nothing of what there was."""
        self._head.clear()
        self._head_bytes = 0
        self._runs.clear()
        self._offsets.clear()
        self._first = 0
        self._gone = self._totals.copy()
        self._give_back()

    def __del__(self) -> None:
        """Give back to the budget what was kept, whoever was the last to read it."""
        self._give_back()

    def _give_back(self) -> None:
        if self._budget is not None and (size := self._accounted + self._claimed):
            self._accounted = self._claimed = 0
            self._budget.give_back(size)

    def read(self, offset: int, most: int) -> bytes:
        """Bytes from `offset` on, as many whole runs as fit `most`, or part of one; b"" at the end.

        A run that is read whole from its beginning is returned as it is, not copied.

        Raises:
            LookupError: `offset` lies before `start`, or beyond the end.
        """
        if offset == self.end:
            return b""
        if (
            self._runs
            and max(self._runs[-1].offset, self.end - self._tail_bytes) <= offset < self.end
        ):
            last = self._runs[-1]  # where a reader that keeps up always is
            first = offset - last.offset
            if not first and len(last.data) <= most:
                return last.data
            return last.data[first : first + most]
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
        """Bytes from `offset` on, `most` at the most, cut where the stream changes.

        Raises:
            LookupError: as `read`.
        """
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
        """How many bytes of `stream` are gone."""
        gone = self._gone.get(stream, 0)
        if self._first < len(self._runs) and self._runs[self._first].stream == stream:
            gone += self.start - self._runs[self._first].offset
        return gone

    def runs(self) -> Iterator[Run]:
        """All that is kept, oldest first; the gap shows as a jump of the offset."""
        yield from self._head
        start = self.start
        for run in self._runs[self._first :]:
            if run.offset < start:
                yield Run(start, run.stream, run.data[start - run.offset :])
            else:
                yield run

    def _from(self, offset: int) -> Iterator[Run]:
        """The runs from the one that holds `offset` on."""
        if not self.start <= offset <= self.end:
            raise LookupError(offset)
        index = bisect_right(self._offsets, offset, lo=self._first) - 1
        for position in range(max(index, self._first), len(self._runs)):
            yield self._runs[position]
