"""Reading descriptors: real pipes and terminals, in both loops."""

import asyncio
import fcntl
import os
import resource
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
from procd.process.pair import Pair

from procd.process import poller as module
from procd.process import reader as reader_module
from procd.process.io import (
    FLOW_PIPE_BYTES,
    FLOW_READS,
    POUR_BYTES,
    READ_BYTES,
    SHORT_READ_BYTES,
    TTY_READ_BYTES,
    FdReader,
)
from procd.process.tty import open_pty
from procd.unix.fd import OwnedFd, pipe
from tests.allocations import ALLOCATIONS, short_in
from tests.process.collector import Collector, turn

MEGABYTE = 1 << 20


async def test_reads_to_the_end(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """Everything arrives in order, then the end, once; the descriptor is closed by then."""
    reading, writing = ends
    got = Collector()
    closed_at_eof: list[bool] = []

    def eof() -> None:
        closed_at_eof.append(reading.closed)
        got.eof()

    reader = FdReader(poller, reading, got.received, eof)
    async with asyncio.timeout(10):
        os.write(writing.number, b"one")
        await got.until(3)
        assert not reader.ended
        os.write(writing.number, b"two")
        writing.close()
        await got.ended
    assert got.runs == [b"one", b"two"]
    assert closed_at_eof == [True]
    assert reader.ended


async def test_nothing_but_the_end(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """A writer that says nothing ends the reader without a run of bytes."""
    reading, writing = ends
    got = Collector()
    FdReader(poller, reading, got.received, got.eof)
    writing.close()
    async with asyncio.timeout(10):
        await got.ended
    assert got.runs == []


async def test_eio_of_a_terminal_is_its_end(
    loop: asyncio.AbstractEventLoop, closing: ExitStack
) -> None:
    """The last slave's closing ends the reader of the master, after the last bytes."""
    master, path = open_pty(80, 24)
    closing.callback(master.close)
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    got = Collector()
    FdReader(poller, master, got.received, got.eof)
    os.write(slave, b"last words")
    os.close(slave)
    async with asyncio.timeout(10):
        await got.ended
    assert got.data == b"last words"
    assert master.closed


async def test_other_errors_are_no_end(loop: asyncio.AbstractEventLoop, closing: ExitStack) -> None:
    """Only EIO counts as an end: a read that fails otherwise is a fault, and is raised."""
    directory = OwnedFd(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    closing.callback(directory.close)
    reading, writing = pipe()
    closing.callback(writing.close)
    got = Collector()
    reader = FdReader(poller, reading, got.received, got.eof)
    reader.pause()
    os.dup2(directory.number, reading.number, inheritable=False)
    with pytest.raises(IsADirectoryError):
        reader.read_now()
    assert not got.ended.done()
    reader.close()


@pytest.mark.parametrize("burst_bytes", [1, READ_BYTES, 4 * READ_BYTES])
async def test_a_burst_is_bounded(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd], burst_bytes: int
) -> None:
    """One turn takes at most the burst, rounded up to whole reads; the rest comes in later ones."""
    reading, writing = ends
    capacity = _grow(writing)
    os.write(writing.number, b"x" * capacity)
    got = Collector()
    FdReader(poller, reading, got.received, got.eof, burst_bytes=burst_bytes)
    async with asyncio.timeout(10):
        await got.until(capacity)
        writing.close()
        await got.ended
    most = max(burst_bytes, READ_BYTES)
    assert max(map(len, got.runs)) == most
    assert len(got.data) == capacity


def _grow(end: OwnedFd) -> int:
    """Make the pipe hold 512 KiB."""
    capacity = 512 << 10
    assert fcntl.fcntl(end.number, fcntl.F_SETPIPE_SZ, capacity) == capacity
    os.set_blocking(end.number, True)
    return capacity


async def test_a_terminal_is_read_in_runs(
    loop: asyncio.AbstractEventLoop, closing: ExitStack
) -> None:
    """A terminal gives less than 4 KiB at a time; a burst joins what is there."""
    master, path = open_pty(80, 24)
    closing.callback(master.close)
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    os.set_blocking(slave, False)
    written = os.write(slave, b"y" * (SHORT_READ_BYTES * 16))
    got = Collector()
    FdReader(poller, master, got.received, got.eof)
    async with asyncio.timeout(10):
        await got.until(written)
        os.close(slave)
        await got.ended
    assert got.data == b"y" * written


@pytest.mark.parametrize("paused", [False, True])
async def test_a_terminal_that_is_opened_again(
    loop: asyncio.AbstractEventLoop, closing: ExitStack, paused: bool
) -> None:
    """All that is said there comes, however much; and while paused no more than of one turn."""
    master, path = open_pty(80, 24)
    got = Collector()
    reader = FdReader(poller, master, got.received, got.eof, burst_bytes=1, may_go_on=lambda: True)
    closing.callback(reader.close)
    os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))
    async with asyncio.timeout(10):
        while not reader._asleep:
            await turn()
    if paused:
        reader.pause()
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    closing.callback(os.close, slave)
    os.set_blocking(slave, False)
    written = 0
    while written <= 2 * TTY_READ_BYTES:
        with suppress(BlockingIOError):
            written += os.write(slave, b"y" * TTY_READ_BYTES)
    if paused:
        for _ in range(3):
            await turn()
        assert len(got.data) <= TTY_READ_BYTES
        reader.resume()
    async with asyncio.timeout(10):
        await got.until(written)


async def test_pause_leaves_bytes_in_the_kernel(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """Nothing is read while paused, and nothing is missing after; both may be said twice."""
    reading, writing = ends
    got = Collector()
    reader = FdReader(poller, reading, got.received, got.eof)
    reader.pause()
    reader.pause()
    os.write(writing.number, b"waiting")
    writing.close()
    await turn()
    await turn()
    assert got.runs == []
    assert not got.ended.done()
    reader.resume()
    reader.resume()
    async with asyncio.timeout(10):
        await got.ended
    assert got.data == b"waiting"


async def test_pausing_from_within(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """Who receives may pause: no more comes until it resumes."""
    reading, writing = ends
    got = Collector()
    readers: list[FdReader] = []

    def received(data: bytes) -> None:
        got.received(data)
        readers[0].pause()

    capacity = _grow(writing)
    os.write(writing.number, b"x" * capacity)
    readers.append(FdReader(poller, reading, received, got.eof, burst_bytes=1))
    async with asyncio.timeout(10):
        await got.until(1)
        await turn()
        await turn()
        assert len(got.runs) == 1
        while len(got.data) < capacity:
            readers[0].resume()
            await got.until(len(got.data) + 1)
        writing.close()
        readers[0].resume()
        await got.ended


async def test_drain_takes_what_is_there(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """Paused or not, `drain` brings what the kernel holds, and goes no further."""
    reading, writing = ends
    got = Collector()
    reader = FdReader(poller, reading, got.received, got.eof)
    reader.pause()
    capacity = _grow(writing)
    os.write(writing.number, b"x" * capacity)
    reader.drain()
    assert got.data == b"x" * capacity
    assert not reader.ended
    reader.drain()
    assert len(got.data) == capacity
    writing.close()
    reader.drain()
    assert got.ended.done()
    assert reader.ended
    reader.drain()


async def test_drain_without_memory(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for the last bytes before an end goes on without them; they wait."""
    reading, writing = ends
    got = Collector()
    reader = FdReader(poller, reading, got.received, got.eof)
    os.write(writing.number, b"x")

    def short(number: int, size: int) -> bytes:
        raise MemoryError

    monkeypatch.setattr("os.read", short)
    reader.drain()
    assert not got.runs
    monkeypatch.undo()
    reader.drain()
    assert got.data == b"x"
    reader.close()


async def test_no_memory_to_join_what_was_read(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on in pieces, and one that there is no memory for comes with the rest in a while."""
    reading, writing = ends
    # Larger than what is ever taken from a heap, in which there may be room: mallopt(3).
    pieces = [bytes([number]) * (64 * MEGABYTE) for number in range(4)]
    waiting = pieces.copy()
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    got = Collector()
    refused: list[bytes] = []

    def read(number: int, size: int) -> bytes:
        if not waiting:
            raise BlockingIOError
        if len(waiting) == 1:
            resource.setrlimit(resource.RLIMIT_AS, (mapped, limits[1]))
        return waiting.pop(0)

    def received(data: bytes) -> None:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        if data is pieces[1] and not refused:
            refused.append(data)
            raise MemoryError
        got.received(data)

    reader = FdReader(poller, reading, received, got.eof, burst_bytes=256 * MEGABYTE)
    monkeypatch.setattr("os.read", read)
    os.write(writing.number, b"x")
    try:
        async with asyncio.timeout(10):
            await got.until(256 * MEGABYTE)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        reader.close()
    assert got.runs == pieces
    assert refused


async def test_no_memory_at_any_allocation_of_a_read(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has left the kernel comes, once and in order."""
    pieces = [bytes([number]) * 2 * SHORT_READ_BYTES for number in range(4)]
    waiting: list[bytes] = []

    def read(number: int, size: int) -> bytes:
        if not waiting:
            raise BlockingIOError
        return waiting.pop(0)

    got = Collector()
    reader = FdReader(poller, ends[0], got.received, got.eof)
    reader.pause()
    failed = 0
    with monkeypatch.context() as patch:
        patch.setattr("os.read", read)
        for number in ALLOCATIONS:
            waiting[:] = pieces
            got.runs.clear()
            if short_in(number, partial(reader._read, 1 << 20)) == "reader.py":
                failed += 1
                while not (reader.drain() and not waiting):
                    continue
                assert got.data == b"".join(pieces), number
            reader._owed.clear()
    assert failed > 2
    reader.close()


class Short(Collector):
    """A collector that has no memory for the first that comes, as often as it is told."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def received(self, data: bytes) -> None:
        """Refuse, or take."""
        if self.times:
            self.times -= 1
            raise MemoryError
        super().received(data)


async def test_no_memory_to_read_with(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It isn't tried at each turn, nor when it is to go on after a pause; nothing is lost."""
    reading, writing = ends
    got = Collector()
    tries = 0

    def read(number: int, size: int) -> bytes:
        nonlocal tries
        if number != reading.number:
            return whole_read(number, size)
        tries += 1
        raise MemoryError

    whole_read = os.read
    reader = FdReader(poller, reading, got.received, got.eof)
    monkeypatch.setattr(reader_module, "MEMORY_REST_S", 1000)
    monkeypatch.setattr("os.read", read)
    os.write(writing.number, b"x")
    for _ in range(3):
        await turn()
        reader.pause()
        reader.resume()
    assert tries == 1
    monkeypatch.undo()
    reader.drain()
    assert got.data == b"x"
    reader.close()


async def test_what_is_discarded_is_read_and_dropped(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """What waits by then, too; the end is told all the same."""
    reading, writing = ends
    got = Collector()
    reader = FdReader(poller, reading, got.received, got.eof)
    reader.pause()
    os.write(writing.number, b"before")
    reader.discard()
    os.write(writing.number, b"after")
    writing.close()
    async with asyncio.timeout(10):
        await got.ended
    assert got.runs == []


@pytest.mark.parametrize("ended", [False, True])
async def test_no_memory_to_keep_what_was_read(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd], ended: bool
) -> None:
    """It is brought again, before what follows or the end, and whether or not more comes."""
    reading, writing = ends
    got = Short(2)
    reader = FdReader(poller, reading, got.received, got.eof)
    os.write(writing.number, b"one")
    if ended:
        writing.close()
    async with asyncio.timeout(10):
        await got.until(3)
        if not ended:
            os.write(writing.number, b"two")
            await got.until(6)
            writing.close()
        await got.ended
    assert got.data == (b"one" if ended else b"onetwo")
    assert reader.ended


async def test_no_memory_to_keep_what_was_read_before_a_pause(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """That much has left the kernel, and comes however long the pause is; nothing else does."""
    reading, writing = ends
    got = Short(1)
    reader = FdReader(poller, reading, got.received, got.eof)
    os.write(writing.number, b"one")
    async with asyncio.timeout(10):
        while got.times:
            await turn()
        reader.pause()
        os.write(writing.number, b"two")
        await got.until(3)
        assert got.data == b"one"
        reader.resume()
        await got.until(6)
    assert got.data == b"onetwo"
    reader.close()


@pytest.mark.parametrize("leaves", [FdReader.close, FdReader.discard])
async def test_nobody_wants_what_there_was_no_memory_for(
    loop: asyncio.AbstractEventLoop,
    ends: tuple[OwnedFd, OwnedFd],
    leaves: Callable[[FdReader], None],
) -> None:
    """It isn't brought again."""
    reading, writing = ends
    got = Short(1)
    reader = FdReader(poller, reading, got.received, got.eof)
    os.write(writing.number, b"one")
    assert not reader.drain()
    leaves(reader)
    await turn()
    reader.drain()
    assert not got.runs
    reader.close()


@pytest.mark.parametrize("paused", [False, True])
async def test_no_memory_to_keep_what_was_drained(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd], paused: bool
) -> None:
    """It is brought in a while, though nothing more comes; and the rest follows."""
    reading, writing = ends
    got = Short(1)
    reader = FdReader(poller, reading, got.received, got.eof)
    if paused:
        reader.pause()
    os.write(writing.number, b"one")
    assert not reader.drain()
    async with asyncio.timeout(10):
        await got.until(3)
        reader.resume()
        os.write(writing.number, b"two")
        await got.until(6)
    assert got.data == b"onetwo"
    reader.close()


async def test_drain_brings_what_there_was_no_memory_for(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """First, and once; though whoever takes it drains as well."""
    reading, writing = ends
    got = Short(1)

    def received(data: bytes) -> None:
        if not got.times and data == b"one":
            assert reader.drain()
        got.received(data)

    reader = FdReader(poller, reading, received, got.eof)
    os.write(writing.number, b"one")
    assert not reader.drain()
    assert reader.drain()
    assert reader.drain()
    assert got.runs == [b"one"]
    reader.close()


async def test_no_memory_for_what_is_drained_meanwhile(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """Whoever takes what waited drains, and that there is no memory for waits in its turn."""
    reading, writing = ends
    refused: list[bytes] = []
    got = Collector()

    def received(data: bytes) -> None:
        if data not in refused:
            refused.append(data)
            raise MemoryError
        if data == b"one":
            os.write(writing.number, b"two")
            assert not reader.drain()
        got.received(data)

    reader = FdReader(poller, reading, received, got.eof)
    os.write(writing.number, b"one")
    assert not reader.drain()
    async with asyncio.timeout(10):
        await got.until(6)
    assert got.runs == [b"one", b"two"]
    reader.close()


@pytest.mark.parametrize("size", [1, 4096])
async def test_drain_is_bounded(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd], size: int
) -> None:
    """A writer that goes on and on can't keep `drain`, however little it writes at a time."""
    reading, writing = ends
    written = 0
    os.set_blocking(writing.number, False)

    def top_up(data: bytes) -> None:
        nonlocal written
        written += os.write(writing.number, data)

    reader = FdReader(poller, reading, top_up, lambda: None)
    reader.pause()
    os.write(writing.number, b"x" * size)
    reader.drain()
    assert size <= written <= 2 * size
    reader.close()


async def test_drain_takes_no_more_than_it_may(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """In whole reads."""
    reading, writing = ends
    capacity = _grow(writing)
    os.write(writing.number, b"x" * capacity)
    got = Collector()
    reader = FdReader(poller, reading, got.received, got.eof)
    reader.pause()
    reader.drain(READ_BYTES + 1)
    assert len(got.data) == 2 * READ_BYTES < capacity
    reader.close()


@pytest.fixture
def timing(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Have it that reads within `soon_s` follow each other, and that a rest takes `rest_s`."""

    def set_both(soon_s: float, rest_s: float) -> None:
        monkeypatch.setattr(reader_module, "SOON_S", soon_s)
        monkeypatch.setattr(module, "REST_S", rest_s)

    return set_both


async def byte_by_byte(writing: OwnedFd, got: Collector, count: int) -> None:
    """Write so many, each when the one before has been read."""
    async with asyncio.timeout(10):
        for size in range(1, count + 1):
            os.write(writing.number, b"x")
            await got.until(size)


async def test_lets_bytes_that_keep_coming_gather(
    loop: asyncio.AbstractEventLoop,
    ends: tuple[OwnedFd, OwnedFd],
    timing: Callable[[float, float], None],
) -> None:
    """When many reads have followed each other, it rests; a drain doesn't wait."""
    timing(3600.0, 3600.0)
    got = Collector()
    reading, writing = ends
    reader = FdReader(poller, reading, got.received, got.eof)
    await byte_by_byte(writing, got, FLOW_READS + 1)
    os.write(writing.number, b"y")
    await turn()
    await turn()
    assert got.data == b"x" * (FLOW_READS + 1)
    capacity = fcntl.fcntl(writing.number, fcntl.F_GETPIPE_SZ)
    assert capacity == FLOW_PIPE_BYTES, "its writer need not stop meanwhile"
    reader.drain()
    assert got.data.endswith(b"xy")
    reader.close()


@pytest.fixture
async def beside(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd], closing: ExitStack
) -> "Beside":
    """A reader of `ends`, and one of another stream of the same process, with its writing end.

    The order of the writes isn't told.
    """
    got = Collector()
    reading, writing = pipe()
    closing.callback(writing.close)
    reader = FdReader(poller, ends[0], got.received, got.eof)
    other = FdReader(poller, reading, got.received, got.eof)
    Pair(reader, other, poller.arrivals)
    closing.callback(reader.close)
    closing.callback(other.close)
    return got, reader, other, writing


Beside = tuple[Collector, FdReader, FdReader, OwnedFd]


async def test_what_gathers_comes_before_what_comes_beside_it(
    beside: Beside, ends: tuple[OwnedFd, OwnedFd], timing: Callable[[float, float], None]
) -> None:
    """A program's last words on the one stream, after much on the other."""
    timing(3600.0, 3600.0)
    got, reader, _, other_writing = beside
    _, writing = ends
    await byte_by_byte(writing, got, FLOW_READS + 1)
    os.write(writing.number, b"y")
    os.write(other_writing.number, b"z")
    async with asyncio.timeout(10):
        await got.until(FLOW_READS + 3)
    assert got.data.endswith(b"xyz")
    reader.close()
    os.write(other_writing.number, b"!")
    async with asyncio.timeout(10):
        await got.until(FLOW_READS + 4)


@pytest.mark.parametrize(
    ("begin", "rest"),
    [("\u00e9", 1), ("\u20ac", 2), ("\u20ac", 1), ("\U0001f600", 3), ("x\U0001f600", 1)],
)
async def test_the_rest_of_a_character_comes_before_what_comes_beside_it(
    beside: Beside, ends: tuple[OwnedFd, OwnedFd], begin: str, rest: int
) -> None:
    """Whoever has written half of it hasn't written on the other stream since."""
    got, _, _, other_writing = beside
    _, writing = ends
    whole = begin.encode()
    os.write(writing.number, whole[:-rest])
    async with asyncio.timeout(10):
        await got.until(len(whole) - rest)
        await turn()  # the poller has seen that there is no more
        os.write(other_writing.number, b"z")  # which is what the poller hears of first
        os.write(writing.number, whole[-rest:])
        await got.until(len(whole) + 1)
    assert got.data == whole + b"z"


async def test_what_pours_comes_before_what_comes_beside_it(
    beside: Beside, ends: tuple[OwnedFd, OwnedFd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one piece of what a program writes that writes much."""
    monkeypatch.setattr(reader_module, "POUR_S", 3600.0)
    got, _, _, other_writing = beside
    _, writing = ends
    async with asyncio.timeout(10):
        os.write(writing.number, bytes(POUR_BYTES))
        await got.until(POUR_BYTES)
        os.write(other_writing.number, b"z")
        os.write(writing.number, b"y")
        await got.until(POUR_BYTES + 2)
    assert got.data.endswith(b"yz")


async def test_no_memory_for_what_gathers_beside_it(
    beside: Beside, ends: tuple[OwnedFd, OwnedFd], timing: Callable[[float, float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What was read is kept, and the other comes later."""
    timing(3600.0, 3600.0)
    got, reader, _, other_writing = beside
    reading, writing = ends
    await byte_by_byte(writing, got, FLOW_READS + 1)
    os.write(writing.number, b"y")

    def short(number: int, size: int, read: Callable[[int, int], bytes] = os.read) -> bytes:
        if number == reading.number:
            raise MemoryError
        return read(number, size)

    monkeypatch.setattr("os.read", short)
    os.write(other_writing.number, b"z")
    async with asyncio.timeout(10):
        await got.until(FLOW_READS + 2)
    assert got.data.endswith(b"xz")
    monkeypatch.undo()
    reader.drain()
    assert got.data.endswith(b"xzy")


async def test_a_pause_amid_what_gathers(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd], timing: Callable[[float, float], None],
    closing: ExitStack,
) -> None:  # fmt: skip
    """It isn't left to rest, and then read all the same."""
    timing(3600.0, 0.0001)
    got = Collector()
    reading, writing = ends
    readers: list[FdReader] = []
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))

    def received(data: bytes) -> None:
        got.received(data)
        if len(got.data) > FLOW_READS:
            readers[0].pause()

    readers.append(FdReader(poller, reading, received, got.eof))
    closing.callback(readers[0].close)
    await byte_by_byte(writing, got, FLOW_READS + 1)
    os.write(writing.number, b"y")
    for _ in range(3):
        await turn()
    assert b"y" not in got.data
    readers[0].resume()
    async with asyncio.timeout(10):
        await got.until(FLOW_READS + 2)
    assert not complaints


@pytest.mark.parametrize(
    ("soon_s", "burst_bytes", "gathers"),
    [
        pytest.param(0.0, READ_BYTES, True, id="what comes now and then"),
        # Its writer is held up by us, and would be more so if we rested.
        pytest.param(3600.0, 1, True, id="more than one turn reads"),
        pytest.param(3600.0, READ_BYTES, False, id="a terminal"),
    ],
)
async def test_comes_at_once(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd], timing: Callable[[float, float], None],
    soon_s: float, burst_bytes: int, gathers: bool,
) -> None:  # fmt: skip
    """However often."""
    timing(soon_s, 3600.0)
    got = Collector()
    reading, writing = ends
    reader = FdReader(
        poller,
        reading,
        got.received,
        got.eof,
        burst_bytes=burst_bytes,
        may_go_on=None if gathers else lambda: True,
    )
    await byte_by_byte(writing, got, 3 * FLOW_READS)
    reader.close()


async def test_goes_on_after_a_rest(
    loop: asyncio.AbstractEventLoop,
    ends: tuple[OwnedFd, OwnedFd],
    timing: Callable[[float, float], None],
) -> None:
    """And brings the end; pausing meanwhile is no different from pausing at another time."""
    timing(3600.0, REST_S)
    got = Collector()
    reading, writing = ends
    loop = asyncio.get_running_loop()
    reader = FdReader(poller, reading, got.received, got.eof)
    await byte_by_byte(writing, got, 3 * FLOW_READS)
    reader.pause()
    os.write(writing.number, b"y")
    rested = loop.create_future()
    loop.call_later(10 * REST_S, rested.set_result, None)
    await rested
    assert got.data.endswith(b"x")
    reader.resume()
    writing.close()
    async with asyncio.timeout(10):
        await got.ended
    assert got.data == b"x" * (3 * FLOW_READS) + b"y"


async def test_what_can_not_be_waited_for_is_closed(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    """Epoll refuses: a file, as it is here, or the one watch too many."""
    fd = OwnedFd(os.open(tmp_path / "file", os.O_RDONLY | os.O_CREAT))
    with pytest.raises(PermissionError):
        FdReader(poller, fd, lambda _: None, lambda: None)
    assert fd.closed


async def test_close_order(loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]) -> None:
    """A closed reader has left the loop: whoever gets its number next hears nothing of it."""
    reading, _ = ends
    number = reading.number
    got = Collector()
    reader = FdReader(poller, reading, got.received, got.eof)
    reader.close()
    reader.close()
    reader.resume()
    assert reader.ended
    assert not os.path.lexists(f"/proc/self/fd/{number}")
    # The same number again, with bytes waiting, belongs to a stranger.
    again, other = os.pipe()
    if again != number:
        os.dup2(again, number, inheritable=False)
        os.close(again)
    os.write(other, b"not for you")
    await turn()
    await turn()
    assert not poller.remove_reader(number)
    assert got.runs == []
    assert not got.ended.done(), "close is not an end"
    os.close(number)
    os.close(other)


async def test_our_end_alone_is_non_blocking(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """The child's end is another open file, and stays blocking."""
    reading, writing = ends
    reader = FdReader(poller, reading, lambda _: None, lambda: None)
    assert not os.get_blocking(reading.number)
    assert os.get_blocking(writing.number)
    reader.close()
