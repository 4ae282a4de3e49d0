"""Reading and writing real pipes and terminals, on both event loops."""

import asyncio
import fcntl
import os
from contextlib import ExitStack

import pytest

from procd.process.io import LARGE_PIPE_BYTES, FdReader, FdWriter
from procd.process.tty import open_terminal
from procd.unix.fd import OwnedFd, pipe
from tests.process.collector import Collector, turn

MEGABYTE = 1 << 20


@pytest.fixture
async def reader(ends: tuple[OwnedFd, OwnedFd], closing: ExitStack, got: Collector) -> FdReader:
    """A reader of the pipe `ends`."""
    made = FdReader(asyncio.get_running_loop(), ends[0], got.received, got.eof)
    closing.callback(made.close)
    return made


@pytest.fixture
def writing(ends: tuple[OwnedFd, OwnedFd]) -> OwnedFd:
    """The writing end of the pipe."""
    return ends[1]


@pytest.fixture
async def got() -> Collector:
    """What was read."""
    return Collector()


async def test_reads_to_the_end(reader: FdReader, writing: OwnedFd, got: Collector) -> None:
    os.write(writing.number, b"one")
    await got.until(3)
    assert not reader.ended
    os.write(writing.number, b"two")
    writing.close()
    await got.until_end()
    assert got.pieces == [b"one", b"two"]
    assert reader.ended


async def test_eio_of_a_terminal_is_the_end(closing: ExitStack, got: Collector) -> None:
    terminal = open_terminal(80, 24)
    closing.callback(terminal.close)
    FdReader(asyncio.get_running_loop(), terminal.master, got.received, got.eof)
    os.write(terminal.slave.number, b"last words")
    terminal.slave.close()
    await got.until_end()
    assert got.data == b"last words"
    assert terminal.master.closed


async def test_pause_leaves_data_in_the_kernel(
    reader: FdReader, writing: OwnedFd, got: Collector
) -> None:
    reader.pause()
    reader.pause()
    os.write(writing.number, b"waiting")
    writing.close()
    await turn()
    assert (got.pieces, got.ended.done()) == ([], False)
    reader.resume()
    reader.resume()
    await got.until_end()
    assert got.data == b"waiting"


async def test_discard_drops_data_to_the_end(
    reader: FdReader, writing: OwnedFd, got: Collector
) -> None:
    reader.pause()
    os.write(writing.number, b"before")
    reader.discard()
    os.write(writing.number, b"after")
    writing.close()
    await got.until_end()
    assert got.pieces == []


async def test_full_pipe_is_enlarged(reader: FdReader, writing: OwnedFd, got: Collector) -> None:
    os.set_blocking(writing.number, False)
    written = os.write(writing.number, bytes(MEGABYTE))
    await got.until(written)
    assert fcntl.fcntl(writing.number, fcntl.F_GETPIPE_SZ) == LARGE_PIPE_BYTES
    assert os.write(writing.number, bytes(MEGABYTE)) == MEGABYTE
    await got.until(written + MEGABYTE)


@pytest.fixture
async def paired(reader: FdReader, got: Collector, closing: ExitStack) -> tuple[FdReader, OwnedFd]:
    """A reader paired with `reader`, and its writing end."""
    reading, writing = pipe()
    closing.callback(writing.close)
    other = FdReader(asyncio.get_running_loop(), reading, got.received, got.eof_of_other)
    closing.callback(other.close)
    reader.pair_with(other)
    return other, writing


@pytest.mark.parametrize("swapped", [False, True])
async def test_first_readable_of_a_pair_goes_first(
    paired: tuple[FdReader, OwnedFd], writing: OwnedFd, got: Collector, swapped: bool
) -> None:
    first, second = (paired[1], writing) if swapped else (writing, paired[1])
    for _ in range(3):
        os.write(first.number, b"first ")
        os.write(second.number, b"second ")
        await got.until(len(b"first second "))
        assert got.data == b"first second "
        got.pieces.clear()


async def test_last_word_on_the_other_stream_of_a_pair(
    paired: tuple[FdReader, OwnedFd], reader: FdReader, writing: OwnedFd, got: Collector
) -> None:
    """It comes after what fills a pipe, and is followed by the ends of both."""
    fcntl.fcntl(writing.number, fcntl.F_SETPIPE_SZ, MEGABYTE)
    os.write(writing.number, bytes(900_000))
    os.write(paired[1].number, b"last word")
    writing.close()
    paired[1].close()
    await got.until(900_009)
    await got.until_end()
    assert got.data == bytes(900_000) + b"last word"


@pytest.fixture
async def writer(writing: OwnedFd) -> FdWriter:
    """A writer to the pipe."""
    return FdWriter(asyncio.get_running_loop(), writing)


async def test_queues_what_does_not_fit(
    writer: FdWriter, ends: tuple[OwnedFd, OwnedFd], got: Collector
) -> None:
    whole = bytes(range(251)) * 5000
    writer.write(whole[:300_000])
    writer.write(whole[300_000:])
    queued = writer.queued_bytes
    assert 0 < queued < len(whole)
    await turn()
    assert writer.queued_bytes == queued
    loop = asyncio.get_running_loop()
    waiters = [loop.create_task(writer.drain(low)) for low in (len(whole), 1000, 0)]
    waiters[1].cancel()
    FdReader(loop, ends[0], got.received, got.eof)
    async with asyncio.timeout(10):
        await asyncio.wait(waiters)
        await got.until(len(whole))
    assert not loop.remove_writer(ends[1].number)
    ends[1].close()
    await got.until_end()
    assert got.data == whole


@pytest.mark.parametrize("way", ["broken pipe", "abandon"])
async def test_queue_is_dropped(writer: FdWriter, ends: tuple[OwnedFd, OwnedFd], way: str) -> None:
    reading, writing = ends
    loop = asyncio.get_running_loop()
    writer.write(bytes(MEGABYTE))
    waiters = [loop.create_task(writer.drain(low)) for low in (0, 10)]
    await turn()
    if way == "abandon":
        writer.abandon()
        writer.abandon()
    else:
        reading.close()
    async with asyncio.timeout(10):
        await asyncio.wait(waiters)
    assert writer.queued_bytes == 0
    assert not loop.remove_writer(writing.number)
    if way == "broken pipe":
        writer.write(b"nobody")
    writing.close()
    writer.write(b"late")
    assert (writer.queued_bytes, writer.closed) == (0, True)
