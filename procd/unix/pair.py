"""Two pipes of one process, read in the order in which it writes to them, as far as that is told.

To read one takes all that was written to it until then, whatever came by the other meanwhile. So
where both were written to, what has come is cut by the number and the order of the writes, and
where that can't be done, what was there first comes first.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Final

from procd.unix.arrivals import MOST_WRITES, Arrivals, Order, state
from procd.unix.reader import FdReader

# More than this of one, and there is no waiting for both to be empty.
MOST_BYTES: Final = 4096
# How often is looked for more until both are empty: a program may write while they are read.
MOST_LOOKS: Final = 16
# How often it is cut while bytes keep coming, some 0.5 ms apart: after that it is a flood.
MOST_CUTS: Final = 64


class Pair:
    """Keeps to the order of two readers, from its creation until one is closed.

    Args:
        arrivals: watches both.
    """

    __slots__ = ("_cuts", "_flows", "_one", "_order", "_other", "_parted")

    def __init__(self, one: FdReader, other: FdReader, arrivals: Arrivals) -> None:
        self._one, self._other = one, other
        self._order = arrivals.order_of(one.number)
        self._flows = 0  # to how many of them bytes keep coming
        self._cuts = 0  # how many since they do; MOST_CUTS, and none is made any more
        self._parted = False
        one.pairing = other.pairing = self

    def deliver(self, reader: FdReader, data: bytes) -> None:
        """Deliver what one has read, and what has come to the other if that may be older.

        Raises:
            MemoryError: part of it wasn't taken, and waits; so is `reader` to.
        """
        other = self._other if reader is self._one else self._one
        mine, theirs = [data], list[bytes]()
        poured: FdReader | None = None
        try:
            pieces = self._in_turn(reader, mine, other, theirs)
            if pieces is None and len(mine) == 1 and not theirs:  # as it most often is
                pieces = [(reader, data)]
                if other.amid:
                    other.drain(alone=True)
            elif pieces is None:
                pieces = [(reader, b"".join(mine)), (other, b"".join(theirs))]
                if other.amid or len(pieces[1][1]) > MOST_BYTES:
                    pieces.reverse()
                first, begun = pieces[0]
                if first.amid or len(begun) > MOST_BYTES:
                    poured = first  # the rest of that comes before the other, too
        except MemoryError:
            for said_by, said in (reader, mine), (other, theirs):
                for piece in said:
                    said_by.owe(piece)
            if theirs:
                other.wait_for_memory()
            raise
        for index, (said_by, piece) in enumerate(pieces):
            try:
                if piece:
                    said_by.deliver(piece)
            except MemoryError:
                for later, rest in pieces[index + 1 :]:
                    later.owe(rest)
                if not other.up_to_date:
                    other.wait_for_memory()
                raise
            if said_by is poured:
                said_by.drain(alone=True)

    def _in_turn(
        self, reader: FdReader, mine: list[bytes], other: FdReader, theirs: list[bytes]
    ) -> list[tuple[FdReader, bytes]] | None:
        """What is there to read, in the order of the writes; None if that isn't told.

        Args:
            mine: what `reader` has read; gets what it reads now.
            theirs: gets what `other` reads.
        """
        order = self._order_now(reader)
        if order is None:
            return None
        writes = order.take()
        if self._flows and not self._may_cut(order, len(mine[0]), len(writes)):
            return None
        one, two = reader.number, other.number
        if len(mine[0]) > MOST_BYTES or not other.up_to_date:
            return None
        if two not in writes and len(writes) <= mine[0].count(b"\n"):
            return None
        ends = _read_out(order, writes, (reader, mine), (other, theirs))
        if ends is None or not theirs:
            return None
        known = in_turn(writes, {one: b"".join(mine), two: b"".join(theirs)}, ends)
        if known is None:
            return None
        return [(reader if number == one else other, piece) for number, piece in known]

    def _order_now(self, reader: FdReader) -> Order | None:
        order = self._order
        if order is None or self._cuts >= MOST_CUTS:
            return None
        if self._parted:
            self._order = None
            order.stop(reader.number)
            return None
        return order

    def _may_cut(self, order: Order, size: int, writes: int) -> bool:
        """Whether what keeps coming is no flood yet."""
        is_flood = size > MOST_BYTES or writes > MOST_WRITES
        self._cuts = MOST_CUTS if is_flood else self._cuts + 1
        if self._cuts == MOST_CUTS:
            order.pause()
            return False
        return True

    def flow(self, begins: bool, /) -> None:  # noqa: FBT001 - one word says it
        """Bytes begin to keep coming to one, or no longer do."""
        self._flows += 1 if begins else -1
        if self._flows or self._order is None or self._parted:
            return
        if self._cuts >= MOST_CUTS:
            self._order.resume()
        self._cuts = 0

    def part(self) -> None:
        """One is about to be closed."""
        self._parted = True


def _read_out(
    order: Order, writes: list[int], *said: tuple[FdReader, list[bytes]]
) -> list[int] | None:
    """Read both until they are empty, so that each write that is told was read.

    Args:
        writes: gets those that come meanwhile.
        said: two readers, and what gets what each of them reads; the first has just read.

    Returns:
        Which of them have ended; None if there is always more.
    """
    (reader, mine), (other, theirs) = said
    for _ in range(MOST_LOOKS):
        if more := other.read_now():
            theirs.append(more)
        writes += order.take()
        readable, ends = state(reader.number, other.number)
        if not readable:
            if ends:
                writes += order.take()
            return ends
        size = max(sum(map(len, mine)), sum(map(len, theirs)))
        if size > MOST_BYTES or len(writes) > MOST_WRITES:
            return None
        if reader.number in readable and (more := reader.read_now()):
            mine.append(more)
    return None


def in_turn(
    writes: Sequence[int], said: Mapping[int, bytes], ends: Container[int] = ()
) -> list[tuple[int, bytes]] | None:
    """What was said by two pipes in pieces, in the order of the writes; None if they don't tell it.

    They do where nothing is written to one pipe between the first and the last write to the other,
    and where each write is a line, or all of them up to the other's turn are one.

    Args:
        writes: which was written to, one for each write.
        said: what was read from each, not empty.
        ends: those whose last write was their end.
    """
    if len(writes) > MOST_WRITES:
        return None
    runs = [(number, len([*run])) for number, run in groupby(writes)]
    pieces: dict[int, Iterator[bytes]] = {}
    for number, data in said.items():
        counts = [count for written, count in runs if written == number]
        if number in ends and counts:
            counts[-1:] = [counts[-1] - 1] if counts[-1] > 1 else []
        parts = _parts(data, counts)
        if parts is None:
            return None
        pieces[number] = iter(parts)
    in_order = ((number, next(pieces[number], b"")) for number, _ in runs)
    return [(number, piece) for number, piece in in_order if piece]


def _parts(data: bytes, counts: Sequence[int]) -> list[bytes] | None:
    """What was written in each of some runs, given the number of writes in each."""
    if len(counts) == 1:
        return [data]
    *lines, rest = data.split(b"\n")
    lines = [line + b"\n" for line in lines] + [rest] * bool(rest)
    if len(lines) == sum(counts):
        waiting = iter(lines)
        return [b"".join(islice(waiting, count)) for count in counts]
    in_parts = len(lines) == len(counts) and min(counts) > 1
    return lines if in_parts else None
