"""Writing to descriptors: real pipes and terminals, in both loops."""

import asyncio
import fcntl
import os
import tracemalloc
from contextlib import ExitStack, suppress

from procd.process.io import READ_BYTES, FdReader, FdWriter
from procd.process.tty import open_pty
from procd.unix.fd import OwnedFd
from tests.process.collector import Collector, turn

MEGABYTE = 1 << 20


def _pattern(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + b"e" * (size % 251)


async def test_a_megabyte_that_is_read_late(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """What doesn't fit waits, in order, and all of it arrives once somebody reads."""
    reading, writing = ends
    whole = _pattern(MEGABYTE)
    writer = FdWriter(poller, writing)
    writer.write(whole[:300_000])
    writer.write(b"")
    writer.write(whole[300_000:])
    queued = writer.queued_bytes
    assert 0 < queued < MEGABYTE, "a pipe holds some of it and not all"
    await turn()
    assert writer.queued_bytes == queued, "nobody has read"
    got = Collector()
    FdReader(poller, reading, got.received, got.eof)
    async with asyncio.timeout(10):
        await writer.drain(0)
        assert writer.queued_bytes == 0
        await got.until(MEGABYTE)
        writing.close()
        await got.ended
    assert got.data == whole


async def test_a_pipe_that_is_just_full(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """It has taken all, and what comes next waits."""
    reading, writing = ends
    size = fcntl.fcntl(writing.number, fcntl.F_GETPIPE_SZ)
    writer = FdWriter(poller, writing)
    writer.write(bytes(size))
    before = writer.queued_bytes
    writer.write(b"next")
    assert (before, writer.queued_bytes) == (0, 4)
    assert os.read(reading.number, size) == bytes(size)
    async with asyncio.timeout(10):
        await writer.drain(0)
    assert os.read(reading.number, size) == b"next"


async def test_what_fits_is_written_at_once(ends: tuple[OwnedFd, OwnedFd]) -> None:
    """A short write needs no turn of the loop, and leaves no watch on the descriptor."""
    reading, writing = ends
    loop = asyncio.get_running_loop()
    writer = FdWriter(loop, writing)
    writer.write(b"now")
    assert os.read(reading.number, 100) == b"now"
    assert writer.queued_bytes == 0
    await writer.drain(0)
    assert not loop.remove_writer(writing.number)


async def test_the_loop_is_left_when_all_is_written(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """With an empty queue the loop does not go on asking whether there is room."""
    reading, writing = ends
    writer = FdWriter(poller, writing)
    writer.write(b"x" * MEGABYTE)
    got = Collector()
    reader = FdReader(poller, reading, got.received, got.eof)
    async with asyncio.timeout(10):
        await writer.drain(0)
        await got.until(MEGABYTE)
    assert not poller.remove_writer(writing.number)
    reader.close()


async def test_several_wait_each_for_its_own_mark(
    loop: asyncio.AbstractEventLoop, ends: tuple[OwnedFd, OwnedFd]
) -> None:
    """A waiter is woken when the queue is at its mark and not before; a cancelled one is no bar."""
    reading, writing = ends
    loop = asyncio.get_running_loop()
    writer = FdWriter(poller, writing)
    writer.write(b"x" * MEGABYTE)
    seen: dict[str, int] = {}

    async def wait(name: str, low_bytes: int) -> None:
        await writer.drain(low_bytes)
        seen[name] = writer.queued_bytes

    half = loop.create_task(wait("half", MEGABYTE // 2))
    given_up = loop.create_task(wait("given up", 0))
    empty = loop.create_task(wait("empty", 0))
    again = loop.create_task(wait("again", MEGABYTE // 2))
    await turn()
    assert seen == {}
    given_up.cancel()
    os.set_blocking(reading.number, False)
    async with asyncio.timeout(10):
        while not half.done():
            with suppress(BlockingIOError):
                os.read(reading.number, READ_BYTES)
            await turn()
        assert not empty.done()
        assert MEGABYTE // 2 >= seen["half"] > 0
        got = Collector()
        reader = FdReader(poller, reading, got.received, got.eof)
        await asyncio.wait([half, given_up, empty, again])
    assert given_up.cancelled()
    assert seen["empty"] == 0
    assert seen["again"] <= MEGABYTE // 2
    reader.close()


async def test_who_has_given_up_leaves_nothing(ends: tuple[OwnedFd, OwnedFd]) -> None:
    """However many do, though nobody ever reads."""
    _, writing = ends
    loop = asyncio.get_running_loop()
    writer = FdWriter(loop, writing)
    writer.write(b"x" * MEGABYTE)
    waiters = [loop.create_task(writer.drain(0)) for _ in range(100)]
    await turn()
    assert len(writer._waiters) == len(waiters)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    assert not writer._waiters
    writer.abandon()


async def test_many_short_writes_take_no_more_than_one_long(
    ends: tuple[OwnedFd, OwnedFd],
) -> None:
    """The queue's length is what it takes, whatever it was written in."""
    _, writing = ends
    writer = FdWriter(asyncio.get_running_loop(), writing)
    writer.write(b"x" * MEGABYTE)
    queued = writer.queued_bytes
    tracemalloc.start()
    try:
        for _ in range(100_000):
            writer.write(b"x")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert writer.queued_bytes == queued + 100_000
    assert taken < 2 * writer.queued_bytes
    writer.abandon()


async def test_broken_pipe_abandons_and_wakes(ends: tuple[OwnedFd, OwnedFd]) -> None:
    """When the reader goes, the queue is dropped, waiters wake, and later writes are no error."""
    reading, writing = ends
    loop = asyncio.get_running_loop()
    writer = FdWriter(loop, writing)
    writer.write(b"x" * MEGABYTE)
    waiters = [loop.create_task(writer.drain(low)) for low in (0, 1, 10)]
    await turn()
    assert not any(waiter.done() for waiter in waiters)
    reading.close()
    async with asyncio.timeout(10):
        await asyncio.wait(waiters)
    for waiter in waiters:
        waiter.result()
    assert writer.queued_bytes == 0
    assert not loop.remove_writer(writing.number)
    writer.write(b"nobody")
    assert writer.queued_bytes == 0


async def test_broken_before_the_first_write(ends: tuple[OwnedFd, OwnedFd]) -> None:
    """EPIPE on a write of its own is dropped as well."""
    reading, writing = ends
    writer = FdWriter(asyncio.get_running_loop(), writing)
    reading.close()
    writer.write(b"nobody")
    assert writer.queued_bytes == 0
    async with asyncio.timeout(10):
        await writer.drain(0)


async def test_abandon_drops_and_wakes(ends: tuple[OwnedFd, OwnedFd]) -> None:
    """The owner may give up: what is queued goes, waiters wake, the loop is left."""
    _, writing = ends
    loop = asyncio.get_running_loop()
    writer = FdWriter(loop, writing)
    writer.write(b"x" * MEGABYTE)
    waiter = loop.create_task(writer.drain(0))
    await turn()
    writer.abandon()
    writer.abandon()
    async with asyncio.timeout(10):
        await waiter
    assert writer.queued_bytes == 0
    assert not loop.remove_writer(writing.number)
    writing.close()
    writer.write(b"late")
    assert writer.queued_bytes == 0


async def test_a_writer_beside_a_reader_of_one_terminal(
    loop: asyncio.AbstractEventLoop, closing: ExitStack
) -> None:
    """Reader and writer share a master; pausing the one does not touch the other."""
    master, path = open_pty(80, 24)
    closing.callback(master.close)
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    got = Collector()
    reader = FdReader(poller, master, got.received, got.eof)
    writer = FdWriter(poller, master)
    reader.pause()
    writer.write(b"typed\n")
    assert os.read(slave, 100) == b"typed\n"
    reader.resume()
    async with asyncio.timeout(10):
        await got.until(len(b"typed\r\n"))  # the echo
    assert got.data == b"typed\r\n"
    writer.abandon()
    os.close(slave)
    reader.close()
