"""Two pipes of one process, read in the order in which it writes to them, as far as that is told.

To read one takes all that was written to it until then, whatever came by the other meanwhile. So
where both were written to, what has come is cut by the number and the order of the writes. As long
as each write is a line, lines are counted off against the writes, and one that is behind another
which hasn't been read yet is held for that: a program may write faster than it is read. Otherwise
both are read until they are empty at once, and what was several lines is guessed (`writes`). And
where neither can be done, what was there first comes first.
"""

from itertools import dropwhile
from typing import Final

from procd.process.arrivals import MOST_WRITES, Arrivals, Order, state
from procd.process.reader import FdReader, held_bytes
from procd.process.stretch import Stretch
from procd.process.writes import counted_off, in_turn

# More than this of one, and there is no waiting for both to be empty.
MOST_BYTES: Final = 4096
# How often is looked for more until both are empty: a program may write while they are read.
MOST_LOOKS: Final = 16

Said = tuple[FdReader, bytes]


class Pair:
    """Keeps to the order of two readers, from its creation until one is closed.

    Args:
        arrivals: watches both.
    """

    __slots__ = ("_aligned", "_held", "_one", "_order", "_other", "_parted", "_stretch")

    def __init__(self, one: FdReader, other: FdReader, arrivals: Arrivals) -> None:
        self._one, self._other = one, other
        self._order = arrivals.order_of(one.number)
        self._stretch = Stretch()
        self._aligned = True  # all is told that isn't read, and each write may be a line
        self._held: Said | None = None  # what is behind something that is there to be read
        self._parted = False
        one.pairing = other.pairing = self

    def _lose_count(self) -> None:
        """Which line is whose write is no longer known."""
        self._aligned = False
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
        try:
            mine: list[bytes] = [data]
            theirs: list[bytes] = []
            if self._held is not None:
                holder, held = self._held
                (mine if holder is reader else theirs).insert(0, held)
                self._held = None
        except MemoryError:
            self._owe([])
            reader.owe(data)
            if not other.up_to_date:
                other.wait_for_memory()
            raise
        poured: FdReader | None = None
        try:
            pieces = self._in_turn(reader, mine, other, theirs)
            if pieces is None:
                pieces = [(reader, b"".join(mine)), (other, b"".join(theirs))]
                if other.amid or len(pieces[1][1]) > MOST_BYTES:
                    pieces.reverse()
                first, begun = pieces[0]
                if first is other or (theirs and (first.amid or len(begun) > MOST_BYTES)):
                    poured = first  # the rest of that comes before the other, too
        except MemoryError:
            reader.owe_first(mine)
            other.owe_first(theirs)
            if not other.up_to_date:
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
                self._lose_count()
                said_by.drain(alone=True)

    def _owe(self, pieces: list[Said]) -> None:
        """Have these taken later, and then what is held."""
        for later, rest in pieces:
            later.owe(rest)
        if self._held is not None:
            holder, held = self._held
            self._held = None
            holder.owe(held)

    def settle(self) -> None:
        """Deliver what is held: one is about to be closed, or has been read to the end.

        Raises:
            MemoryError: it wasn't taken, and waits; so is its reader to.
        """
        if self._held is None:
            return
        holder, held = self._held
        lacking = self._beside(holder)
        try:
            reads = lacking.up_to_date and not lacking.ended
            if reads and (more := lacking.read_now()):
                self.deliver(lacking, more)
        except MemoryError:
            lacking.wait_for_memory()
            raise
        if self._held is None:
            return
        holder, held = self._held  # it goes on, or is in no order
        self._held = None
        self._lose_count()
        try:
            holder.deliver(held)
        except MemoryError:
            holder.wait_for_memory()
            raise

    def catch_up(self) -> None:
        """As `settle`: what one has read has been delivered by itself.

        Raises:
            MemoryError: as `settle`.
        """
        self._lose_count()
        self.settle()

    def _in_turn(
        self, reader: FdReader, mine: list[bytes], other: FdReader, theirs: list[bytes]
    ) -> list[Said] | None:
        """What is there to read, in the order of the writes; None if that isn't told.

        Args:
            mine: what `reader` has read; gets what it reads now.
            theirs: gets what `other` reads.
        """
        aligned, self._aligned = self._aligned, False  # until the count is known again
        data = b"".join(mine)
        order = self._order_now(reader, len(data))
        if order is None:
            return None
        writes = order.take()
        one, two = reader.number, other.number
        lines = data.count(b"\n")
        if aligned and lines == len(writes) + 1:  # one may not have been told yet
            writes += order.take()
        both = bool(theirs) or two in writes
        is_much = len(data) > MOST_BYTES and not (aligned and lines <= writes.count(one))
        poured_bytes = len(data) if is_much or not both else 0
        if self._stretch.is_flood(order, one, poured_bytes, len(writes), both=both):
            return None
        if not other.up_to_date:
            return None
        if is_much and not (two in writes and self._has_ended(reader, other)):
            is_first = _is_first(two, writes) and not reader.pours
            if is_first and held_bytes(two) <= MOST_BYTES:
                _read_more(other, theirs)
                return [(other, b"".join(theirs)), (reader, data)]
            # What was written after that to the other is there, and may be told then.
            order.writes[:0] = dropwhile(lambda number: number == one, writes)
            return None
        if not both and len(writes) <= lines:
            if (aligned and len(writes) == lines) or not state(one, two)[0]:
                self._aligned = True  # nothing that was told is unread
                return [(reader, data)]
            return None
        return self._read_out(order, writes, (reader, mine), (other, theirs), aligned=aligned)

    def _has_ended(self, pour: FdReader, other: FdReader) -> bool:
        """Whether all of what pours is read, and the other has but little."""
        return pour.number not in state(pour.number, other.number)[0] and (
            held_bytes(other.number) <= MOST_BYTES
        )

    def _order_now(self, reader: FdReader, size: int) -> Order | None:
        """What tells the order, having read so much; None if nothing does."""
        order = self._order
        if order is None:
            return None
        if self._parted:
            self._order = None
            order.stop(reader.number)
            return None
        return order if self._stretch.is_told(order, reader.number, size) else None

    def part(self) -> None:
        """One is about to be closed."""
        self._parted = True

    def _read_out(
        self,
        order: Order,
        writes: list[int],
        *said: tuple[FdReader, list[bytes]],
        aligned: bool,
    ) -> list[Said] | None:
        """Read both until their order is known; None if it isn't.

        Args:
            writes: those that are told; gets those that come meanwhile.
            said: two readers, and what gets what each of them reads; the first has just read.
        """
        (reader, mine), (other, theirs) = said
        readers = {reader.number: reader, other.number: other}
        for _ in range(MOST_LOOKS):
            _read_more(other, theirs)
            writes += order.take()
            texts = {
                number: b"".join(each) for number, (_, each) in zip(readers, said, strict=True)
            }
            line_counts = {number: text.count(b"\n") for number, text in texts.items()}
            readable, ends = state(*readers)
            if not readable:
                if ends or sum(line_counts.values()) > len(writes):
                    writes += order.take()
                # A line may be one that has no end yet; and an end is told of as if it was written.
                self._aligned = all(
                    writes.count(number)
                    <= line_counts[number] + (text[-1:] not in (b"", b"\n")) + (number in ends)
                    for number, text in texts.items()
                )
                if not theirs:
                    return [(reader, texts[reader.number])]
                pours = reader.number if reader.pours else None
                known = in_turn(writes, texts, ends, pours)
                if known is None and not self._aligned:  # the first was told after it was read
                    known = in_turn(writes[1:], texts, ends, pours)
                return None if known is None else [(readers[of], piece) for of, piece in known]
            if aligned and any(
                2 * (writes.count(number) - line_counts[number] - (number in ends))
                > held_bytes(number)
                for number in readers
            ):
                aligned = False  # for so many lines, all but empty ones, too little is unread
            if aligned:
                counted = counted_off(writes, texts)
                if counted is None:  # one may not have been told yet
                    writes += order.take()
                    counted = counted_off(writes, texts)
                if counted is not None and (counted.behind is None or counted.left[0] in readable):
                    pieces = [(readers[number], piece) for number, piece in counted.pieces]
                    order.writes[:0] = counted.left
                    if counted.behind is not None:
                        number, lines = counted.behind
                        self._held = readers[number], lines  # for which there was memory
                    self._aligned = True
                    return pieces
                aligned = False
            if max(map(len, texts.values())) > MOST_BYTES or len(writes) > MOST_WRITES:
                one = reader.number
                is_little = one not in readable and len(texts[one]) <= MOST_BYTES
                if is_little and _is_first(one, writes) and not other.pours:
                    return [(of, texts[of.number]) for of, _ in said]
                return None
            _read_more(reader, mine)
        return None


def _is_first(number: int, writes: list[int]) -> bool:
    """Whether it was written to, and only before the other."""
    count = writes.count(number)
    return count > 0 and writes[:count] == [number] * count


def _read_more(reader: FdReader, said: list[bytes]) -> None:
    """Add what there is to read to what was read before.

    Raises:
        MemoryError: there is none for it, and it waits.
    """
    more = reader.read_now()
    if not more:
        return
    try:
        said.append(more)
    except MemoryError:
        reader.owe(more)
        raise
