"""Two pipes of one process: their order, from real pipes and from what is known of the writes."""

import asyncio
import errno
import fcntl
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from types import SimpleNamespace

import pytest

from procd.process import reader as reader_module
from procd.process import stretch as stretch_module
from procd.process.arrivals import MOST_TAKEN, MOST_WRITES, RECORD_BYTES
from procd.process.pair import MOST_BYTES, Pair
from procd.process.poller import Poller
from procd.process.reader import READ_BYTES, SHORT_READ_BYTES, FdReader
from procd.process.stretch import MOST_ALONE, MOST_POURED_BYTES, MOST_TOLD
from procd.unix.fd import OwnedFd, pipe
from tests.allocations import ALLOCATIONS, short_in
from tests.process.collector import turn

OUT, ERR = 1, 2
Piece = tuple[int, bytes]


class Both:
    """What the readers of two pipes have been given, and the pipes' writing ends."""

    def __init__(self, poller: Poller, *, watched: bool = True) -> None:
        self.pieces: list[Piece] = []
        self.fails_at: int | None = None  # of the pieces, once
        self.ended = 0
        self._news = asyncio.Event()
        self.readings: list[OwnedFd] = []
        self.writings: dict[int, OwnedFd] = {}
        for stream in OUT, ERR:
            reading, self.writings[stream] = pipe()
            self.readings.append(reading)
        if watched:
            poller.arrivals.watch(*self.readings)
        self.readers = [
            FdReader(poller, reading, self._taker(stream), self._eof)
            for reading, stream in zip(self.readings, (OUT, ERR), strict=True)
        ]
        out, err = self.readers
        Pair(out, err, poller.arrivals)

    def _taker(self, stream: int) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            if len(self.pieces) == self.fails_at:
                self.fails_at = None
                raise MemoryError
            self.pieces.append((stream, data))
            self._news.set()

        return take

    def _eof(self) -> None:
        self.ended += 1
        self._news.set()

    def write(self, *pieces: Piece) -> None:
        """Write to them, in this order."""
        for stream, data in pieces:
            os.write(self.writings[stream].number, data)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until what has come, or what has ended, is enough."""
        async with asyncio.timeout(10):
            while not done():
                self._news.clear()
                await self._news.wait()

    async def until_said(self, *pieces: Piece) -> None:
        """Wait until as many bytes have come as these have."""
        size = sum(len(data) for _, data in pieces)
        await self.until(lambda: sum(len(data) for _, data in self.pieces) >= size)

    @property
    def said(self) -> dict[int, bytes]:
        """All that has come of each."""
        return {
            stream: b"".join(data for of, data in self.pieces if of == stream)
            for stream in (OUT, ERR)
        }

    def has_said(self, stream: int, data: bytes) -> bool:
        """Whether as much as this has come of it."""
        return len(self.said[stream]) >= len(data)

    @property
    def is_told(self) -> list[bool]:
        """Of which pipes each write is told of."""
        flags = [fcntl.fcntl(fd.number, fcntl.F_GETFL) for fd in self.readings if not fd.closed]
        return [bool(flag & os.O_ASYNC) for flag in flags]

    def close(self) -> None:
        """Close what is open."""
        for reader in self.readers:
            reader.close()
        for writing in self.writings.values():
            writing.close()


@pytest.fixture
async def both(poller: Poller, closing: ExitStack) -> Both:
    """Two pipes and their readers."""
    made = Both(poller)
    closing.callback(made.close)
    return made


def runs(pieces: Sequence[Piece]) -> list[Piece]:
    """What was said, where one is only told from the other."""
    grouped = groupby(pieces, key=lambda piece: piece[0])
    return [(stream, b"".join(data for _, data in run)) for stream, run in grouped]


LINES = [(OUT, b"a\n"), (ERR, b"b\n"), (OUT, b"c\n"), (OUT, b"d\n"), (ERR, b"e\n"), (OUT, b"f")]


@pytest.mark.parametrize("ends", [False, True])
async def test_lines_in_order(both: Both, ends: bool) -> None:
    """Though all of them are there before any is read, and the end of both is too."""
    both.write(*LINES)
    if ends:
        for writing in both.writings.values():
            writing.close()
    await both.until_said(*LINES)
    assert runs(both.pieces) == runs(LINES)
    if ends:
        await both.until(lambda: both.ended == 2)


async def test_lines_in_order_where_the_others_are_read_first(both: Both) -> None:
    """Whichever the poller hears of first, and again in the next round."""
    for _ in range(3):
        both.pieces.clear()
        both.readers[0].pause()
        both.write(*LINES[1:])
        await turn()
        both.readers[0].resume()
        await both.until_said(*LINES[1:])
        assert runs(both.pieces) == runs(LINES[1:])


async def test_drained_in_order(both: Both) -> None:
    """Where nobody waits for the poller."""
    both.write(*LINES)
    both.readers[1].drain()
    both.readers[0].drain()
    assert runs(both.pieces) == runs(LINES)


async def test_a_line_in_two_writes(both: Both) -> None:
    """As Python's print, unbuffered."""
    pieces = [(OUT, b"a"), (OUT, b"\n"), (ERR, b"b"), (ERR, b"\n"), (OUT, b"c"), (OUT, b"\n")]
    both.write(*pieces)
    await both.until_said(*pieces)
    assert runs(both.pieces) == runs(pieces)


@pytest.mark.parametrize("ends", [False, True])
async def test_many_lines_in_a_write_beside_one(both: Both, ends: bool) -> None:
    """Nothing has to be cut there, and the end of a pipe isn't taken for another write."""
    pieces = [(OUT, b"1\n2\n"), (ERR, b"x\n")]
    both.write(*pieces)
    if ends:
        both.writings[OUT].close()
    await both.until_said(*pieces)
    assert both.pieces == pieces


async def test_many_lines_in_a_write_behind_one(both: Both) -> None:
    """As many lines as writes were read, but not of the same."""
    pieces = [(ERR, b"x\n"), (OUT, b"1\n2\n")]
    both.write(*pieces)
    both.readers[0].drain()
    assert both.pieces == pieces


async def test_what_the_writes_do_not_tell(both: Both) -> None:
    """Then what was there first is first, and each stream is whole."""
    pieces = [(OUT, b"1\n2\n3\n"), (ERR, b"x\n"), (OUT, b"4\n5\n"), (ERR, b"y\n")]
    both.write(*pieces)
    await both.until_said(*pieces)
    assert runs(both.pieces) == [(OUT, b"1\n2\n3\n4\n5\n"), (ERR, b"x\ny\n")]
    both.pieces.clear()
    both.write(*LINES)  # which no longer know of those
    await both.until_said(*LINES)
    assert runs(both.pieces) == runs(LINES)


async def test_long_lines(both: Both) -> None:
    """They are counted as others are."""
    pieces = [(OUT, b"a\n"), (ERR, b"b\n"), (OUT, b"x" * MOST_BYTES + b"\n"), (ERR, b"c\n")]
    assert await say(both, *pieces) == pieces


async def test_more_than_is_cut(both: Both) -> None:
    """Comes first if it is what is read, and all of it."""
    long = b"x" * MOST_BYTES + b"\n" + b"y\n"
    pieces = [(OUT, b"a\n"), (ERR, b"b\n"), (OUT, long)]
    await say(both, (OUT, b"no line"))
    assert await say(both, *pieces) == [(OUT, b"a\n" + long), (ERR, b"b\n")]


@pytest.mark.parametrize("which", [OUT, ERR])
@pytest.mark.parametrize("more", [b"", b"again\n"])
async def test_first_words_before_much(both: Both, more: bytes, which: int) -> None:
    """Whichever is read before, and though much hasn't ended; what comes amid it isn't cut out."""
    fcntl.fcntl(both.readings[0].number, fcntl.F_SETPIPE_SZ, 1 << 20)
    much = b"x\n" * (1 << 17)
    pieces = [(ERR, b"first\n"), (ERR, b"words\n"), (OUT, much)]
    pieces += [(ERR, more), (OUT, b"y\n")] * bool(more)
    both.write(*pieces)
    both.readers[which - 1]._readable()
    assert both.pieces[0][0] == (OUT if more else ERR)
    await both.until_said(*pieces)
    for stream in OUT, ERR:
        said = b"".join(data for of, data in pieces if of == stream)
        assert b"".join(data for of, data in both.pieces if of == stream) == said


@pytest.mark.parametrize("which", [OUT, ERR])
async def test_words_after_what_is_read_in_part(
    both: Both, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of that nothing more is told, and its rest comes before them, whichever is read."""
    monkeypatch.setattr(reader_module, "POUR_S", 3600.0)
    fcntl.fcntl(both.readings[0].number, fcntl.F_SETPIPE_SZ, 1 << 20)
    much, more = b"x\n" * READ_BYTES, b"y\n" * MOST_BYTES
    both.write((OUT, much))
    both.readers[0]._readable()
    assert both.pieces == [(OUT, much[:READ_BYTES])]
    both.write((ERR, b"bad\n"), (OUT, more))
    both.readers[which - 1]._readable()
    await both.until_said((OUT, much), (ERR, b"bad\n"), (OUT, more))
    before = [data for of, data in both.pieces[: both.pieces.index((ERR, b"bad\n"))]]
    assert b"".join(before).startswith(much)


async def test_last_words_after_much(both: Both) -> None:
    """As much as a pipe holds is read in several turns, and those come after all of it."""
    fcntl.fcntl(both.readings[0].number, fcntl.F_SETPIPE_SZ, 1 << 20)
    much = b"x" * (1 << 19)
    both.write((OUT, much), (ERR, b"last\n"))
    await both.until_said((OUT, much), (ERR, b"last\n"))
    assert runs(both.pieces) == [(OUT, much), (ERR, b"last\n")]


async def say(both: Both, *pieces: Piece) -> list[Piece]:
    """Write, and what has come then; each call is another read at least."""
    both.pieces.clear()
    both.write(*pieces)
    await both.until_said(*pieces)
    return runs(both.pieces)


def before_the_next_look(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Have `act` called when it is looked next for what was told, as if it had happened by then."""

    def read(number: int, size: int) -> bytes:
        monkeypatch.undo()
        act()
        return os.read(number, size)

    monkeypatch.setattr("procd.process.process.arrivals.os", SimpleNamespace(read=read))


async def test_a_line_behind_one_that_is_not_read(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for that, where a program writes on while it is read."""
    more = (OUT, b"b\n"), (ERR, b"c\n")
    before_the_next_look(monkeypatch, lambda: both.write(*more))
    both.write((OUT, b"a\n"))
    await both.until_said((OUT, b"a\n"))
    assert both.pieces == [(OUT, b"a\n")]
    await both.until_said((OUT, b"a\n"), *more)
    assert both.pieces == [(OUT, b"a\n"), *more]
    assert await say(both, *LINES[1:]) == runs(LINES[1:])


async def test_lines_after_much(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program has printed at once, and what was said then, before any of that was read."""
    much = (OUT, b"x\n" * MOST_BYTES)
    before_the_next_look(monkeypatch, lambda: both.write(*LINES[1:]))
    both.write(much)
    await both.until_said(much, *LINES[1:])
    assert runs(both.pieces) == [much, *runs(LINES[1:])]


async def test_last_lines_of_a_pour(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """In turn with the other's, though its rest is read with them."""
    monkeypatch.setattr(reader_module, "POUR_S", 3600.0)
    row = b"x" * 99 + b"\n"
    await say(both, (OUT, row * 100))
    pieces = [
        (OUT, row * 80),
        (ERR, b"bad\n"),
        (OUT, b"done\n"),
        (ERR, b"worse\n"),
        (OUT, b"end\n"),
    ]
    assert await say(both, *pieces) == pieces
    assert await say(both, *LINES) == runs(LINES)


@pytest.mark.parametrize("size", [1, 2 * MOST_BYTES])
async def test_what_comes_beside_a_pour(both: Both, size: int) -> None:
    """Behind all of it, if there is much."""
    pieces = [(OUT, b"x" * MOST_BYTES + b"\n"), (ERR, b"y" * size + b"\n"), (OUT, b"z\n")]
    said = await say(both, *pieces)
    assert said[0][1].startswith(pieces[0][1])
    assert sorted(b"".join(data for _, data in said)) == sorted(
        b"".join(data for _, data in pieces)
    )


async def test_more_of_one_that_waits(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes behind what waits, and with that behind the other."""
    more = [(OUT, b"b\n"), (ERR, b"c\n")]
    before_the_next_look(monkeypatch, lambda: both.write(*more))
    both.write((OUT, b"a\n"))
    both.readers[0]._readable()
    both.write((ERR, b"d\n"))
    both.readers[1].drain()
    assert runs(both.pieces) == [(OUT, b"a\nb\n"), (ERR, b"c\nd\n")]


@pytest.mark.parametrize("before", [[(OUT, b"1\n2\n")], [(OUT, b"part")], [(ERR, b"x"), *LINES]])
async def test_lines_count_again_once_nothing_is_unread(
    both: Both, before: list[Piece], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was written until then."""
    await say(both, *before)
    more = [(OUT, b"b\n"), (ERR, b"c\n"), (OUT, b"d\n"), (ERR, b"e\n")]
    before_the_next_look(monkeypatch, lambda: both.write(*more))
    both.pieces.clear()
    both.write((OUT, b"a\n"))
    await both.until_said((OUT, b"a\n"), *more)
    assert runs(both.pieces) == [(OUT, b"a\nb\n"), *more[1:]]


async def test_what_pours_is_first(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the other is read before, and there is a little of it alone."""
    monkeypatch.setattr(reader_module, "POUR_S", 3600.0)
    await say(both, (OUT, b"x" * MOST_BYTES))
    pieces = [(OUT, b"y" * (MOST_BYTES + 1)), (ERR, b"last\n")]
    both.pieces.clear()
    both.write(*pieces)
    both.readers[1].drain()
    assert both.pieces == pieces


@pytest.mark.parametrize("most", [2, 1 << 20])
async def test_nothing_waits_where_all_is_to_be_taken(
    both: Both, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """As at the end of a process, though no more of one may be read."""
    more = (OUT, b"b\n"), (ERR, b"c\n")
    before_the_next_look(monkeypatch, lambda: both.write(*more))
    both.write((OUT, b"a\n"))
    both.readers[0].drain(most)
    assert both.pieces == [(OUT, b"a\n"), *more]


@pytest.mark.parametrize("fails_at", [None, 2, 3])
async def test_more_behind_what_goes_on(
    both: Both, fails_at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held when no more may be read comes all the same, when there is memory for it."""
    monkeypatch.setattr(reader_module, "MEMORY_REST_S", 0.0)
    both.fails_at = fails_at
    more = [(OUT, b"b\n"), (ERR, b"c\n")]
    last = [(OUT, b"d\n"), (ERR, b"e\n")]

    def act() -> None:
        both.write(*more)
        before_the_next_look(monkeypatch, then)

    def then() -> None:
        before_the_next_look(monkeypatch, lambda: both.write(*last))

    before_the_next_look(monkeypatch, act)
    both.write((OUT, b"a\n"))
    assert both.readers[0].drain(2) == (fails_at is None)
    if fails_at is not None:
        await both.until_said((OUT, b"a\n"), *more, *last)
        assert both.said == {OUT: b"a\nb\nd\n", ERR: b"c\ne\n"}
        return
    assert runs(both.pieces) == [(OUT, b"a\nb\n"), (ERR, b"c\ne\n")]
    # These aren't counted off: which write was "d" is forgotten by then.
    rest = [(OUT, b"f\n"), (ERR, b"g\n")]
    before_the_next_look(monkeypatch, lambda: both.write(*rest))
    await both.until_said((OUT, b"a\n"), *more, *last, *rest)
    assert runs(both.pieces)[2:] == [(OUT, b"d\nf\n"), (ERR, b"g\n")]


async def test_a_line_in_parts_while_it_is_read(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is read, and belongs to it."""
    more = [(OUT, b"b\n"), (ERR, b"c\n")]
    before_the_next_look(monkeypatch, lambda: both.write(*more))
    both.write((OUT, b"a"))
    await both.until_said((OUT, b"a"), *more)
    assert runs(both.pieces) == [(OUT, b"ab\n"), (ERR, b"c\n")]


async def test_what_waits_for_memory_comes_first(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one has read isn't passed by what it could read now."""
    monkeypatch.setattr(reader_module, "MEMORY_REST_S", 0.0)
    both.fails_at = 0
    both.write((ERR, b"a\n"))
    assert not both.readers[1].drain()
    both.write((ERR, b"b\n"), (OUT, b"c\n"), (ERR, b"d\n"))
    both.readers[0].drain()
    assert both.pieces == [(OUT, b"c\n")]
    await both.until_said((OUT, b"c\n"), (ERR, b"a\nb\nd\n"))
    assert b"".join(data for stream, data in both.pieces if stream == ERR) == b"a\nb\nd\n"


async def test_lines_after_one_without_an_end(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """That was a write as well: they are counted off where a program writes on."""
    await say(both, (OUT, b"doing "))
    both.pieces.clear()
    more = (OUT, b"b\n"), (ERR, b"c\n")
    before_the_next_look(monkeypatch, lambda: both.write(*more))
    both.write((OUT, b"a\n"))
    await both.until_said((OUT, b"a\n"))
    assert both.pieces == [(OUT, b"a\n")]
    await both.until_said((OUT, b"a\n"), *more)
    assert both.pieces == [(OUT, b"a\n"), *more]


UNBUFFERED = [(OUT, b"o"), (OUT, b"1"), (OUT, b"\n"), (ERR, b"e"), (ERR, b"1\n")]


async def test_lines_of_several_writes(both: Both) -> None:
    """As of Python's `print` without a buffer."""
    for _ in range(3):
        assert await say(both, *UNBUFFERED * 3) == runs(UNBUFFERED * 3)
    assert await say(both, *LINES) == runs(LINES)


async def test_lines_of_several_writes_while_they_are_read(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They aren't counted off as if each write was one: too few are unread for that."""
    before_the_next_look(monkeypatch, lambda: both.write(*UNBUFFERED))
    assert await say(both, *UNBUFFERED * 3) == runs(UNBUFFERED * 4)


async def test_a_write_that_is_told_after_it_was_read(both: Both, poller: Poller) -> None:
    """The writer was still at it."""
    number = both.readings[0].number
    order = poller.arrivals.order_of(number)
    assert order is not None
    order.writes.append(number)
    late = [(ERR, b"e\n"), *UNBUFFERED * 3]
    assert await say(both, *late) == runs(late)


async def test_what_it_waits_for_is_no_line(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """All comes, and each stream is whole."""
    more = [(OUT, b"b"), (ERR, b"c\n"), (OUT, b"d\n")]
    before_the_next_look(monkeypatch, lambda: both.write(*more))
    assert await say(both, (OUT, b"a\n"))
    await both.until_said((OUT, b"a\n"), *more)
    said = {stream: b"".join(data for of, data in both.pieces if of == stream) for stream in (1, 2)}
    assert said == {OUT: b"a\nbd\n", ERR: b"c\n"}
    await say(both, (OUT, b"again\n"))
    assert await say(both, *LINES) == runs(LINES)


@pytest.mark.parametrize("taken", range(3))
async def test_no_memory_while_one_waits(
    both: Both, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, and each stream stays in order."""
    more = (OUT, b"b\n"), (ERR, b"c\n")
    before_the_next_look(monkeypatch, lambda: both.write(*more))
    both.fails_at = taken
    both.write((OUT, b"a\n"))
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(reader_module, "MEMORY_REST_S", 0.0)
        await both.until_said((OUT, b"a\n"), *more)
    assert both.fails_at is None
    said = {stream: b"".join(data for of, data in both.pieces if of == stream) for stream in (1, 2)}
    assert said == {OUT: b"a\nb\n", ERR: b"c\n"}


class Late:
    """Takes the place of `os` where it is asked what was told, and writes more before."""

    def __init__(self, both: Both) -> None:
        self._numbers = [both.writings[stream].number for stream in (OUT, ERR)]
        self._said = [b"b\n", b"c\n"]

    def write(self) -> None:
        """Write what isn't yet."""
        while self._said:
            os.write(self._numbers[-len(self._said)], self._said[0])
            del self._said[0]

    def read(self, number: int, size: int) -> bytes:
        """As of `os`."""
        self.write()
        return os.read(number, size)


@pytest.mark.parametrize(("begin", "most"), [(b"a\n", 2), (b"a\n", 1 << 20), (b"a", 1 << 20)])
async def test_no_memory_at_any_allocation(
    poller: Poller, begin: bytes, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost or comes twice, whether a line waits for another by then or not."""
    monkeypatch.setattr(reader_module, "MEMORY_REST_S", 0.0)
    failed = 0
    for number in ALLOCATIONS:
        both = Both(poller)
        out, late = both.readers[0], Late(both)
        with monkeypatch.context() as patch:
            patch.setattr("procd.process.process.arrivals.os", late)
            both.write((OUT, begin))
            place = short_in(number, partial(out._drain, most, out.pairing))
        if place != "pair.py":  # such as `os.read`, which doesn't give back what it has read
            both.close()
            continue
        failed += 1
        out.wait_for_memory()
        late.write()
        await both.until_said((OUT, begin + b"b\n"), (ERR, b"c\n"))
        said = both.said
        both.close()
        assert said == {OUT: begin + b"b\n", ERR: b"c\n"}, number
    assert failed > 5


@pytest.mark.parametrize("which", [OUT, ERR])
async def test_no_memory_at_any_allocation_while_a_line_waits(
    poller: Poller, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what it waits for, or for what comes behind it."""
    monkeypatch.setattr(reader_module, "MEMORY_REST_S", 0.0)
    failed = 0
    for number in ALLOCATIONS:
        both = Both(poller)
        reader = both.readers[which - 1]
        with monkeypatch.context() as patch:
            before_the_next_look(patch, partial(both.write, (OUT, b"b\n"), (ERR, b"c\n")))
            both.write((OUT, b"a\n"))
            both.readers[0]._readable()
            both.readers[0].pause()
            if which == ERR:
                both.write((ERR, b"d\n"))
            place = short_in(number, partial(reader._drain, 1 << 20, reader.pairing))
        if place == "pair.py":
            failed += 1
            reader.wait_for_memory()
            said = {OUT: b"a\nb\n", ERR: b"c\nd\n" if which == ERR else b"c\n"}
            await both.until(partial(both.has_said, which, said[which]))
            both.readers[0].resume()
            await both.until_said(*said.items())
            assert both.said == said, number
        both.close()
    assert failed > 2


def short_after_one(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have memory for one more read of a descriptor."""
    reads = 0

    def read(of: int, size: int, whole: Callable[[int, int], bytes] = os.read) -> bytes:
        nonlocal reads
        reads += of == number
        if reads > 1:
            raise MemoryError
        return whole(of, size)

    monkeypatch.setattr("os.read", read)


LONG = b"d" * (2 * SHORT_READ_BYTES) + b"\n"


@pytest.mark.parametrize(("read", "short"), [(OUT, OUT), (ERR, ERR), (ERR, OUT)])
async def test_no_memory_amid_what_comes_after_a_line_that_waits(
    both: Both, read: int, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes, and before what is newer; whether that is of its own stream or of the other."""
    monkeypatch.setattr(reader_module, "MEMORY_REST_S", 0.0)
    pieces = [(OUT, b"a\n"), (OUT, LONG), (ERR, b"c\n"), (ERR, LONG)]
    before_the_next_look(monkeypatch, lambda: both.write(*pieces[1:3]))
    both.write(pieces[0])
    await both.until_said(pieces[0])
    if short == ERR:
        both.write(pieces[3])
    else:
        pieces.pop()
    short_after_one(monkeypatch, both.readers[short - 1].number)
    assert not both.readers[read - 1].drain()
    monkeypatch.undo()
    await both.until_said(*pieces)
    assert sorted(runs(both.pieces)) == sorted(runs(pieces))
    await say(both, *LINES)
    assert await say(both, *LINES) == runs(LINES)


async def test_what_waits_for_memory_comes_before_what_a_line_waits_for(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no more of that line's stream may be read."""
    pieces = [(OUT, b"a\n"), (OUT, LONG), (ERR, b"c\n"), (OUT, b"e\n")]
    before_the_next_look(monkeypatch, lambda: both.write(*pieces[1:3]))
    both.write(pieces[0])
    both.readers[0]._readable()
    short_after_one(monkeypatch, both.readers[0].number)
    assert not both.readers[0].drain()
    monkeypatch.undo()
    monkeypatch.setattr(reader_module, "MEMORY_REST_S", 0.0)
    both.write(pieces[3])
    assert both.readers[1].drain()
    assert both.readers[0].drain()
    assert both.said == {OUT: b"a\n" + LONG + b"e\n", ERR: b"c\n"}


async def test_what_a_line_waits_for_is_closed(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it comes with what follows it."""
    before_the_next_look(monkeypatch, lambda: both.write((OUT, b"b\n"), (ERR, b"c\n")))
    both.write((OUT, b"a\n"))
    both.readers[0]._readable()
    both.readers[0].close()
    both.writings[ERR].close()
    await both.until(lambda: both.ended == 1)
    assert both.pieces == [(OUT, b"a\n"), (ERR, b"c\n")]


async def test_no_memory_amid_the_rest_of_a_line(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after what was read of it before."""
    monkeypatch.setattr(reader_module, "MEMORY_REST_S", 0.0)
    pieces = [(OUT, b"a"), (OUT, LONG), (ERR, b"c\n")]

    def act() -> None:
        both.write(*pieces[1:])
        short_after_one(monkeypatch, both.readers[0].number)

    before_the_next_look(monkeypatch, act)
    both.write(pieces[0])
    assert not both.readers[0].drain()
    monkeypatch.undo()
    await both.until_said(*pieces)
    assert sorted(runs(both.pieces)) == [(OUT, b"a" + LONG), (ERR, b"c\n")]


async def test_the_end_of_what_it_waits_for(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is held comes, though there is no memory when the other ends."""
    more = (OUT, b"b\n"), (ERR, b"c\n")

    def act() -> None:
        both.write(*more)
        for writing in both.writings.values():
            writing.close()

    before_the_next_look(monkeypatch, act)
    both.write((OUT, b"a\n"))
    await both.until(lambda: both.ended == 2)
    assert both.pieces == [(OUT, b"a\n"), *more]


def last_signal_late(monkeypatch: pytest.MonkeyPatch, looks: int) -> Callable[[], bool]:
    """Have the last write be told only after so many looks; returns whether it has been."""
    late: list[bytes] = []
    looked = 0

    def read(number: int, size: int) -> bytes:
        nonlocal looked
        looked += 1
        if looked > looks:
            monkeypatch.undo()
            return late.pop()
        if late:
            raise BlockingIOError
        records = os.read(number, size)
        late.append(records[-RECORD_BYTES:])
        return records[:-RECORD_BYTES]

    monkeypatch.setattr("procd.process.process.arrivals.os", SimpleNamespace(read=read))
    return lambda: looked > looks


@pytest.mark.parametrize(("looks", "pieces"), [(1, LINES[:-1]), (1, LINES[:1]), (2, LINES[:-1])])
async def test_a_line_that_comes_before_its_signal(
    both: Both, looks: int, pieces: list[Piece], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write is told a moment after it can be read."""
    is_told = last_signal_late(monkeypatch, looks)
    assert await say(both, *pieces) == runs(pieces)
    assert is_told()
    assert await say(both, *LINES[:-1]) == runs(LINES[:-1])


async def test_words_behind_much_that_come_before_their_signal(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They aren't taken for its first."""
    fcntl.fcntl(both.readings[0].number, fcntl.F_SETPIPE_SZ, 1 << 20)
    pieces = [(OUT, b"x\n" * READ_BYTES), (ERR, b"last\n")]
    last_signal_late(monkeypatch, 1)
    both.write(*pieces)
    both.readers[0]._readable()
    await both.until_said(*pieces)
    assert runs(both.pieces) == pieces


@pytest.mark.parametrize("flood", ["alone", "much", "many", "told"])
async def test_a_flood_is_not_told_of(
    both: Both, flood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each signal takes the writer's time, and memory of the kernel's."""
    monkeypatch.setattr(stretch_module, "GAP_S", 3600.0)
    pieces = [(OUT, b"x\n")]
    times, over = MOST_ALONE, [(ERR, b"over\n")]
    if flood == "much":
        size = 1 << 15
        pieces = [(OUT, b"x" * size)]
        times, over = MOST_POURED_BYTES // size + 1, [(OUT, b"over\n")]
    elif flood == "many":
        pieces = [(OUT, b"x\n")] * (MOST_WRITES + 1)
        times = 1
    elif flood == "told":
        pieces = [(OUT, b"x\n"), (ERR, b"y\n")] * 500
        times = MOST_TOLD // 1000 + 1
    for _ in range(times):
        assert both.is_told == [True, True]
        await say(both, *pieces)
    assert both.is_told == [False, False]
    await say(both, *pieces)
    assert both.is_told == [False, False]
    if flood in ("many", "told"):  # whatever comes, until there is a gap
        await say(both, *over)
        assert both.is_told == [False, False]
        later = time.monotonic() + 7200
        monkeypatch.setattr("time.monotonic", lambda: later)
    await say(both, *over)
    assert both.is_told == [True, True]
    assert await say(both, *LINES) == runs(LINES)


async def test_a_flood_is_no_longer_heard_of_whoever_asks(
    both: Both, poller: Poller, closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks at other pipes would read of it for as long as it lasts."""
    monkeypatch.setattr(stretch_module, "GAP_S", 0.0)
    monkeypatch.setattr(stretch_module, "REST_S", 3600.0)
    other = Both(poller)
    closing.callback(other.close)
    pieces = [(OUT, b"x\n"), (ERR, b"y\n")] * (MOST_WRITES // 2 + 1)
    both.write(*pieces)
    poller.arrivals.take()
    assert both.is_told == [False, False]
    assert other.is_told == [True, True]
    await both.until_said(*pieces)
    for over in (OUT, b"over\n"), (ERR, b"over\n"):  # the first is read after a gap
        await say(both, over)
    assert both.is_told == [True, True]
    assert await say(both, *LINES) == runs(LINES)


async def test_a_flood_that_was_not_read_for_a_while_is_one_still(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there by then was written all the while: the gap is of our own making."""
    monkeypatch.setattr(stretch_module, "GAP_S", 0.0)
    monkeypatch.setattr(stretch_module, "REST_S", 3600.0)
    lines = [(OUT, b"x\n")] * (MOST_WRITES + 1)
    await say(both, *lines)
    assert both.is_told == [False, False]
    await say(both, *lines)
    assert both.is_told == [False, False]
    await say(both, (OUT, b"over\n"))
    assert both.is_told == [True, True]


async def test_much_after_a_rest_is_no_flood_yet(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretch_module, "GAP_S", 0.0)
    monkeypatch.setattr(stretch_module, "REST_S", 0.0)
    await say(both, *[(OUT, b"x\n")] * (MOST_WRITES + 1))
    assert both.is_told == [False, False]
    await say(both, *[(OUT, b"x\n")] * MOST_WRITES)
    assert both.is_told == [True, True]


async def test_many_floods_are_not_told_of_at_all(poller: Poller, closing: ExitStack) -> None:
    """Each may have as many writes as are told, and all together too many to read at a time."""
    every = [Both(poller) for _ in range(MOST_TAKEN // MOST_WRITES + 1)]
    for each in every:
        closing.callback(each.close)
        each.write(*[(OUT, b"x\n")] * (MOST_WRITES - 1))
    poller.arrivals.take()
    for each in every:
        order = poller.arrivals.order_of(each.readings[0].number)
        assert order is not None
        assert order.writes == []
        assert each.is_told == [True, True]
    poller.arrivals.take()
    each = every[-1]
    assert (order := poller.arrivals.order_of(each.readings[0].number)) is not None
    assert order.writes == []  # nothing that was left comes later
    each.write(*LINES)
    assert order.take() == [each.readings[stream - 1].number for stream, _ in LINES]


async def test_a_flood_after_others(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended those doesn't end it."""
    monkeypatch.setattr(stretch_module, "GAP_S", 3600.0)
    for _ in range(MOST_ALONE):
        await say(both, (OUT, b"x\n"))
    assert both.is_told == [False, False]
    await say(both, (ERR, b"over\n"))
    assert both.is_told == [True, True]
    for _ in range(MOST_POURED_BYTES // (1 << 15) + 1):
        await say(both, (OUT, b"x" * (1 << 15)))
    assert both.is_told == [False, False]
    await say(both, (OUT, b"over\n"))
    assert both.is_told == [True, True]
    await say(both, *[(OUT, b"x\n")] * (MOST_WRITES + 1))
    for stream in OUT, ERR:
        await say(both, (stream, b"more\n"))
        assert both.is_told == [False, False]


async def test_what_comes_now_and_then_is_no_flood(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often, and however much in the end."""
    monkeypatch.setattr(stretch_module, "GAP_S", 0.0)
    for _ in range(MOST_ALONE + 1):
        await say(both, (OUT, b"x" * (MOST_POURED_BYTES // MOST_ALONE) + b"\n"))
    assert both.is_told == [True, True]
    assert await say(both, *LINES) == runs(LINES)


async def test_lines_on_both_are_no_flood(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long they go on, up to the number that is told."""
    monkeypatch.setattr(stretch_module, "GAP_S", 3600.0)
    long = b"x" * 2000 + b"\n"
    pieces = [(OUT, long), (ERR, b"y\n")]
    for _ in range(MOST_POURED_BYTES // len(long) + 2):
        assert await say(both, *pieces) == pieces
    for _ in range(3):
        for _ in range(MOST_ALONE - 1):
            await say(both, (OUT, b"x\n"))
        assert await say(both, *LINES[:-1]) == runs(LINES[:-1])
    assert both.is_told == [True, True]


async def test_the_one_that_is_left_is_not_told_of(both: Both) -> None:
    """A child in the background goes on, and nobody asks for the order of its writes."""
    both.writings[ERR].close()
    await both.until(lambda: both.ended == 1)
    both.write((OUT, b"a\n"))
    await both.until_said((OUT, b"a\n"))
    assert both.is_told == [False]
    assert both.pieces == [(OUT, b"a\n")]


async def test_the_same_number_again(poller: Poller, closing: ExitStack) -> None:
    """What was written to others that had it isn't counted: not what is left, nor their ends."""
    old = Both(poller)
    numbers = [fd.number for fd in old.readings]
    old.write(*LINES)
    old.close()
    new = Both(poller)
    closing.callback(new.close)
    assert {fd.number for fd in new.readings} & {*numbers}
    new.write(*LINES)
    await new.until_said(*LINES)
    assert runs(new.pieces) == runs(LINES)


async def test_pipes_that_are_not_watched(poller: Poller, closing: ExitStack) -> None:
    """Where it can't be had, what was there first is first."""
    both = Both(poller, watched=False)
    closing.callback(both.close)
    both.write(*LINES)
    await both.until_said(*LINES)
    assert both.pieces == [(OUT, b"a\nc\nd\nf"), (ERR, b"b\ne\n")]
    assert both.is_told == [False, False]


@pytest.fixture
def no_signals() -> Iterator[None]:
    """None can be queued: the kernel sends SIGIO in their place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (soft, hard))


@pytest.mark.usefixtures("no_signals")
async def test_signals_that_can_not_be_queued(both: Both) -> None:
    """It ends nothing, and what was there first is first."""
    both.write(*LINES)
    await both.until_said(*LINES)
    assert both.pieces == [(OUT, b"a\nc\nd\nf"), (ERR, b"b\ne\n")]


async def test_a_filter_without_signals(
    both: Both, poller: Poller, closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that has none, or a sandbox that refuses them: all else is as ever."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr("procd.process.process.arrivals.fcntl", refuse)
    other = Both(poller)
    monkeypatch.undo()
    closing.callback(other.close)
    other.write(*LINES)
    await other.until_said(*LINES)
    assert other.pieces == [(OUT, b"a\nc\nd\nf"), (ERR, b"b\ne\n")]


@pytest.mark.parametrize("taken", range(5))
async def test_no_memory_for_a_piece(
    both: Both, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, and each stream stays in order."""
    monkeypatch.setattr(reader_module, "MEMORY_REST_S", 0.0)
    both.fails_at = taken
    both.write(*LINES)
    await both.until_said(*LINES)
    assert both.fails_at is None
    for stream in OUT, ERR:
        said = b"".join(data for of, data in both.pieces if of == stream)
        assert said == b"".join(data for of, data in LINES if of == stream)


@pytest.mark.parametrize("call", ["procd.process.pair.state", "procd.process.pair.in_turn"])
async def test_no_memory_for_the_order(
    both: Both, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is said when there is some."""
    monkeypatch.setattr(reader_module, "MEMORY_REST_S", 0.0)

    def short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(call, short)
    both.write(*LINES)
    await both.until_said(*LINES)
    assert sorted(both.pieces) == [(OUT, b"a\nc\nd\nf"), (ERR, b"b\ne\n")]
