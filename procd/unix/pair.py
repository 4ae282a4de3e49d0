"""Two pipes of one process, read in the order in which it writes to them, as far as that is told.

To read one takes all that was written to it until then, whatever came by the other meanwhile. So
where both were written to, what has come is cut by the number and the order of the writes, and
where that can't be done, what was there first comes first.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Final

from procd.unix.arrivals import MOST_WRITES, Arrivals, hung_up
from procd.unix.reader import FdReader

# What is cut, of each; more than that is written in pieces anyway.
MOST_BYTES: Final = 4096


class Pair:
    """Keeps to the order of two readers, from its creation until `part`.

    Args:
        arrivals: watches both.
    """

    __slots__ = ("_flows", "_one", "_order", "_other", "_parted")

    def __init__(self, one: FdReader, other: FdReader, arrivals: Arrivals) -> None:
        self._one, self._other = one, other
        self._order = arrivals.order_of(one.number)
        self._flows = 0  # to how many of them bytes keep coming
        self._parted = False
        one.pairing = other.pairing = self

    def deliver(self, reader: FdReader, data: bytes) -> None:
        """Deliver what one has read, and what has come to the other if that may be older.

        Raises:
            MemoryError: part of it wasn't taken, and waits; so is `reader` to.
        """
        other = self._other if reader is self._one else self._one
        if other.amid:
            other.drain(alone=True)
        said = b""
        pieces: list[tuple[FdReader, bytes]] = []
        try:
            writes = self._writes(reader)
            if (
                writes
                and other.up_to_date
                and other.number in writes
                and (said := other.read_now())
            ):
                pieces = self._in_turn(writes, reader, data, other, said)
        except MemoryError:
            reader.owe(data)
            if said:
                other.owe(said)
                other.wait_for_memory()
            raise
        if not pieces:
            reader.deliver(data)
            return
        for index, (said_by, piece) in enumerate(pieces):
            try:
                said_by.deliver(piece)
            except MemoryError:
                for later, rest in pieces[index + 1 :]:
                    later.owe(rest)
                if not other.up_to_date:
                    other.wait_for_memory()
                raise

    def _writes(self, reader: FdReader) -> list[int]:
        order = self._order
        if order is None:
            return []
        if self._parted:
            self._order = None
            order.stop(reader.number)
            return []
        return order.take()

    def _in_turn(
        self, writes: list[int], reader: FdReader, data: bytes, other: FdReader, said: bytes
    ) -> list[tuple[FdReader, bytes]]:
        """What two have read, in the order of the writes to them, if that is told."""
        if max(len(data), len(said)) <= MOST_BYTES and self._order is not None:
            mine, others = reader.number, other.number
            ends = hung_up(mine, others)
            known = in_turn(writes + self._order.take(), {mine: data, others: said}, ends)
            if known is not None:
                return [(reader if by == mine else other, piece) for by, piece in known]
        return [(reader, data), (other, said)]

    def flow(self, begins: bool, /) -> None:  # noqa: FBT001 - one word says it
        """Bytes begin to keep coming to one, whose order costs more than it is worth, or stop."""
        self._flows += 1 if begins else -1
        if self._order is None or self._parted:
            return
        if begins and self._flows == 1:
            self._order.pause()
        elif not self._flows:
            self._order.resume()

    def part(self) -> None:
        """One is about to be closed."""
        self._parted = True


def in_turn(
    writes: Sequence[int], said: Mapping[int, bytes], ends: Container[int] = ()
) -> list[tuple[int, bytes]] | None:
    """What was said by two pipes in pieces, in the order of the writes; None if they don't tell it.

    They do where nothing is written to one pipe between the first and the last write to the other,
    and where each write is a line, or all of them up to the other's turn are one.

    Args:
        writes: which was written to, one for each write. The last ones may be of what is yet to be
            read.
        said: what was read from each, not empty.
        ends: those whose last write was their end.
    """
    if len(writes) > MOST_WRITES:
        return None
    runs = [(number, len([*run])) for number, run in groupby(writes)]
    pieces: dict[int, Iterator[bytes]] = {}
    for number, data in said.items():
        counts = [count for written, count in runs if written == number]
        if number in ends:
            counts = _but_last(counts)
        parts = _parts(data, counts) or _parts(data, _but_last(counts))
        if parts is None:
            return None
        pieces[number] = iter(parts)
    in_order = ((number, next(pieces[number], b"")) for number, _ in runs)
    return [(number, piece) for number, piece in in_order if piece]


def _but_last(counts: Sequence[int]) -> list[int]:
    """The same without the last write."""
    *others, last = counts or [0]
    return [*others, last - 1] if last > 1 else others


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
