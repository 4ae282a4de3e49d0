"""Feed: when all was read, and what doesn't keep the loop until then."""

import asyncio
import errno
import fcntl
import os
from contextlib import suppress

import pytest

from procd.services.shell.feed import SIZE_BYTES, Feed
from procd.unix.fd import pipe
from tests.waiting import until


class Left:
    """The loop as a selector, and whether it has been left."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.add_reader = self._loop.add_reader
        self.remove_reader = self._loop.remove_reader
        self.add_writer = self._loop.add_writer
        self.left = asyncio.Event()

    def remove_writer(self, fd: int, /) -> bool:
        self.left.set()
        return self._loop.remove_writer(fd)


@pytest.mark.parametrize("resizable", [True, False])
async def test_a_pipe_that_takes_more(monkeypatch: pytest.MonkeyPatch, resizable: bool) -> None:
    """Though nothing is read: its reader has made it larger, or it couldn't be made small."""
    resize = fcntl.fcntl

    def refuse(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return resize(fd, command, argument)

    if not resizable:
        monkeypatch.setattr(fcntl, "fcntl", refuse)
    selector = Left()
    reading, writing = pipe()
    read, lost = asyncio.Event(), asyncio.Event()

    def on_read() -> None:
        read.set()
        feed.rest()

    feed = Feed(selector, writing, on_read, lost.set)
    feed.write(b"a line\n")
    resize(reading.number, fcntl.F_SETPIPE_SZ, 1 << 20)
    async with asyncio.timeout(10):
        await selector.left.wait()
        assert not read.is_set()
        feed.write(b"another\n")
        assert os.read(reading.number, 100) == b"a line\nanother\n"
        await read.wait()
    assert not lost.is_set()
    reading.close()
    writing.close()


async def test_nobody_to_read_a_line() -> None:
    """That is told at once, and once."""
    reading, writing = pipe()
    told: list[str] = []
    feed = Feed(Left(), writing, lambda: told.append("read"), lambda: told.append("lost"))
    reading.close()
    feed.write(b"a line\n")
    assert told == ["lost"]
    await asyncio.sleep(0)
    assert told == ["lost"]
    writing.close()


async def test_it_ends_while_there_is_no_memory_to_go_on_with() -> None:
    """Nothing is left that would look at a pipe which is closed by then."""
    reading, writing = pipe()

    def on_read() -> None:
        raise MemoryError

    feed = Feed(Left(), writing, on_read, lambda: None)
    feed.write(b"a line\n")
    os.read(reading.number, 100)
    await until(lambda: feed._retry is not None)
    assert feed._retry is not None
    retry = feed._retry
    writing.close()
    assert retry.cancelled()
    reading.close()


async def test_a_line_that_is_longer_than_the_pipe() -> None:
    """It goes there as it is read; only then has all been."""
    reading, writing = pipe()
    os.set_blocking(reading.number, False)
    line = bytes(range(256)) * (3 * SIZE_BYTES // 256)
    got = bytearray()
    told: list[int] = []

    def on_read() -> None:
        told.append(len(got))
        feed.rest()

    def read() -> bool:
        with suppress(BlockingIOError):
            got.extend(os.read(reading.number, SIZE_BYTES // 2))
        return bool(told)

    feed = Feed(Left(), writing, on_read, lambda: None)
    feed.write(line[:100])
    feed.write(line[100:])
    await until(read)
    assert bytes(got) == line
    assert told == [len(line)]
    reading.close()
    writing.close()
