"""Two pipes of one process, read in the order in which it writes to them, as far as that is told.

To read one takes all that was written to it until then, whatever came by the other meanwhile. So
where both were written to, what has come is cut by the number and the order of the writes. Once
each write was a line, the lines are counted off against the writes, and one that is behind another
which hasn't been read yet is held for that: a program may write faster than it is read. Otherwise
both are read until they are empty at once. And where neither can be done, what was there first
comes first.
"""

import time
from collections.abc import Mapping
from typing import Final

from procd.unix.arrivals import MOST_WRITES, Arrivals, Order, state
from procd.unix.reader import FdReader
from procd.unix.writes import Piece, counted_off, in_turn

# More than this of one, and there is no waiting for both to be empty; and so much of lines that are
# counted off.
MOST_BYTES: Final = 4096
MOST_LINES_BYTES: Final = 64 << 10
# How often is looked for more until both are empty: a program may write while they are read.
MOST_LOOKS: Final = 16
# Reads that follow each other within so many seconds are one stretch. Once one pipe alone was read
# so often in it, or so much was, or so many writes were told, it is a flood, of whose writes nobody
# is told: to count a line off takes some microseconds, and some of them are the writer's.
GAP_S: Final = 0.005
MOST_ALONE: Final = 64
MOST_POURED_BYTES: Final = 256 << 10
MOST_TOLD: Final = 20_000

Said = tuple[FdReader, bytes]


class Pair:
    """Keeps to the order of two readers, from its creation until one is closed.

    Args:
        arrivals: watches both.
    """

    __slots__ = ("_alone", "_by_line", "_flooding", "_held", "_one", "_order", "_other", "_parted",
                 "_paused", "_poured_bytes", "_pouring", "_soon", "_told")  # fmt: skip

    def __init__(self, one: FdReader, other: FdReader, arrivals: Arrivals) -> None:
        self._one, self._other = one, other
        self._order = arrivals.order_of(one.number)
        self._by_line = True  # each write was a line, and all are known that aren't read
        self._held: Said | None = None  # what is behind something that is there to be read
        self._soon = 0.0  # until when a read belongs to this stretch
        self._alone = self._poured_bytes = self._told = 0  # in it
        self._paused = False  # and no write is told
        self._flooding: FdReader | None = None  # until the other is read
        self._pouring = False  # until little is read
        self._parted = False
        one.pairing = other.pairing = self

    def _lose_count(self) -> None:
        """Which line is whose write is no longer known."""
        self._by_line = False
        if self._order is not None:
            self._order.writes.clear()

    def _beside(self, reader: FdReader) -> FdReader:
        return self._other if reader is self._one else self._one

    def deliver(self, reader: FdReader, data: bytes) -> None:
        """Deliver what one has read, and what has come to the other if that may be older.

        Raises:
            MemoryError: part of it wasn't taken, and waits; so is `reader` to.
        """
        other = self._beside(reader)
        mine, theirs = [data], list[bytes]()
        if self._held is not None:
            holder, held = self._held
            (mine if holder is reader else theirs).insert(0, held)
            self._held = None
        poured: FdReader | None = None
        try:
            pieces = self._in_turn(reader, mine, other, theirs)
            if pieces is None:
                self._lose_count()
                if len(mine) == 1 and not theirs:
                    pieces = [(reader, data)]
                    if other.amid:
                        other.drain(alone=True)
                else:
                    pieces = [(reader, b"".join(mine)), (other, b"".join(theirs))]
                    if other.amid or len(pieces[1][1]) > MOST_BYTES:
                        pieces.reverse()
                    first, begun = pieces[0]
                    if first.amid or len(begun) > MOST_BYTES:
                        poured = first  # the rest of that comes before the other, too
        except MemoryError:
            self._lose_count()
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
                self._owe(pieces[index + 1 :])
                if not other.up_to_date:
                    other.wait_for_memory()
                raise
            if said_by is poured:
                said_by.drain(alone=True)

    def _owe(self, pieces: list[Said]) -> None:
        """Have these taken later, and what is held after them."""
        self._lose_count()
        if self._held is not None:
            pieces.append(self._held)
            self._held = None
        for later, rest in pieces:
            later.owe(rest)

    def settle(self) -> None:
        """Deliver what is held: one is about to be closed, or has been read to the end.

        Raises:
            MemoryError: it wasn't taken, and waits; so is its reader to.
        """
        for _ in range(MOST_LOOKS):
            if self._held is None:
                return
            lacking = self._beside(self._held[0])
            more = lacking.read_now() if lacking.up_to_date and not lacking.ended else b""
            if not more:
                break
            try:
                self.deliver(lacking, more)
            except MemoryError:
                lacking.wait_for_memory()
                raise
        if self._held is not None:
            holder, held = self._held
            self._held = None
            self._lose_count()
            try:
                holder.deliver(held)
            except MemoryError:
                holder.wait_for_memory()
                raise

    def _in_turn(
        self, reader: FdReader, mine: list[bytes], other: FdReader, theirs: list[bytes]
    ) -> list[Said] | None:
        """What is there to read, in the order of the writes; None if that isn't told.

        Args:
            mine: what `reader` has read; gets what it reads now.
            theirs: gets what `other` reads.
        """
        size = sum(map(len, mine))
        order = self._order_now(reader, size)
        if order is None:
            return None
        writes = order.take()
        one, two = reader.number, other.number
        both = bool(theirs) or two in writes
        if self._is_flood(reader, size, len(writes), both=both):
            order.pause()
            return None
        if size > self._most_bytes or not other.up_to_date:
            return None
        data = b"".join(mine)
        lines = data.count(b"\n")
        if self._by_line and lines > len(writes):  # one may not have been told yet
            writes += order.take()
            both = bool(theirs) or two in writes
        if not both:
            is_whole = data.endswith(b"\n")
            if self._by_line and is_whole and lines <= len(writes):
                left = writes[lines:]
                if not left or state(one)[0]:
                    order.writes[:0] = left
                    return [(reader, data)]
            elif is_whole and lines == len(writes) and not state(one, two)[0]:
                self._by_line = True
                return [(reader, data)]
            if len(writes) <= lines:
                return None
        return self._read_out(order, writes, (reader, mine), (other, theirs))

    @property
    def _most_bytes(self) -> int:
        return MOST_LINES_BYTES if self._by_line else MOST_BYTES

    def _order_now(self, reader: FdReader, size: int) -> Order | None:
        """What tells the order, having read so much; None if nothing does."""
        order = self._order
        if order is None:
            return None
        if self._parted:
            self._order = None
            order.stop(reader.number)
            return None
        now = time.monotonic()
        is_new = now >= self._soon
        self._soon = now + GAP_S
        if is_new:
            self._told = 0
        if self._paused:
            is_other = self._flooding not in (None, reader)
            if not (is_new or is_other or (self._pouring and size <= MOST_BYTES)):
                return None
            self._paused = self._pouring = False
            self._flooding = None
            order.resume()
            is_new = True
        if is_new:
            self._alone = self._poured_bytes = 0
        return order

    def _is_flood(self, reader: FdReader, size: int, writes: int, *, both: bool) -> bool:
        """Whether this stretch is one by now."""
        self._alone = 0 if both else self._alone + 1
        self._told += writes
        if size > self._most_bytes or not both:
            self._poured_bytes += size
        if writes > MOST_WRITES or self._told > MOST_TOLD:
            self._paused = True
        elif self._poured_bytes > MOST_POURED_BYTES:
            self._paused = self._pouring = True
        elif self._alone >= MOST_ALONE:
            self._paused, self._flooding = True, reader
        return self._paused

    def part(self) -> None:
        """One is about to be closed."""
        self._parted = True

    def _read_out(
        self,
        order: Order,
        writes: list[int],
        *said: tuple[FdReader, list[bytes]],
    ) -> list[Said] | None:
        """Read both until their order is known; None if it isn't.

        Args:
            writes: those that are told; gets those that come meanwhile.
            said: two readers, and what gets what each of them reads; the first has just read.
        """
        (reader, mine), (other, theirs) = said
        readers = {reader.number: reader, other.number: other}
        for _ in range(MOST_LOOKS):
            if more := other.read_now():
                theirs.append(more)
            writes += order.take()
            readable, ends = state(*readers)
            texts = {
                number: b"".join(each) for number, (_, each) in zip(readers, said, strict=True)
            }
            if not readable:
                known = self._known(order, writes, texts, ends)
                return None if known is None else [(readers[of], piece) for of, piece in known]
            if self._by_line:
                counted = counted_off(writes, texts)
                if counted is None:  # one may not have been told yet
                    writes += order.take()
                    counted = counted_off(writes, texts)
                if counted is not None and (counted.behind is None or counted.left[0] in readable):
                    order.writes[:0] = counted.left
                    if counted.behind is not None:
                        number, lines = counted.behind
                        self._held = readers[number], lines
                    return [(readers[number], piece) for number, piece in counted.pieces]
                self._by_line = False
            if max(map(len, texts.values())) > MOST_BYTES or len(writes) > MOST_WRITES:
                return None
            if reader.number in readable and (more := reader.read_now()):
                mine.append(more)
        return None

    def _known(
        self, order: Order, writes: list[int], said: Mapping[int, bytes], ends: list[int]
    ) -> list[Piece] | None:
        """What is known when both are empty: all of the writes, then."""
        lines = {number: data.count(b"\n") for number, data in said.items()}
        if sum(lines.values()) > len(writes) or ends:  # one may not have been told yet
            writes += order.take()
        self._by_line = all(
            lines[number] == writes.count(number) - (number in ends and number in writes)
            and (not data or data.endswith(b"\n"))
            for number, data in said.items()
        )
        said = {number: data for number, data in said.items() if data}
        return in_turn(writes, said, ends) if len(said) > 1 else [*said.items()]
