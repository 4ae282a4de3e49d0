"""Feed: when all was read, and what doesn't keep the loop until then."""

import asyncio
import fcntl
import os

from procd.unix.fd import pipe
from procd.unix.feed import Feed


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


async def test_a_pipe_that_its_reader_has_made_larger() -> None:
    """It always takes more, though nothing is read."""
    selector = Left()
    reading, writing = pipe()
    read, lost = asyncio.Event(), asyncio.Event()

    def on_read() -> None:
        read.set()
        feed.rest()

    feed = Feed(selector, writing, on_read, lost.set)
    feed.write(b"a line\n")
    fcntl.fcntl(reading.number, fcntl.F_SETPIPE_SZ, 1 << 20)
    async with asyncio.timeout(10):
        await selector.left.wait()
        assert not read.is_set()
        feed.write(b"another\n")
        assert os.read(reading.number, 100) == b"a line\nanother\n"
        await read.wait()
    assert not lost.is_set()
    reading.close()
    writing.close()
