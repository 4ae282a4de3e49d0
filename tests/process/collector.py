"""What a reader reads, and a turn of the event loop."""

import asyncio
import os

from procd.unix.fd import pipe


class Collector:
    """Collects what a reader reads; `ended` is set at its end."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    def received(self, data: bytes) -> None:
        self.pieces.append(data)
        self._news.set()

    def eof(self) -> None:
        self.ended.set_result(None)

    def eof_of_other(self) -> None:
        """The end of another reader that this collects from."""

    async def until(self, size: int) -> None:
        """Wait for this many bytes."""
        async with asyncio.timeout(10):
            while len(self.data) < size:
                self._news.clear()
                await self._news.wait()

    async def until_end(self) -> None:
        """Wait for the end."""
        async with asyncio.timeout(10):
            await self.ended


async def turn() -> None:
    """Let the event loop poll its descriptors once, and run what is ready."""
    loop = asyncio.get_running_loop()
    reading, writing = pipe()
    polled = loop.create_future()
    os.write(writing.number, b"x")
    loop.add_reader(reading.number, polled.set_result, None)
    async with asyncio.timeout(10):
        await polled
    loop.remove_reader(reading.number)
    reading.close()
    writing.close()
    await asyncio.sleep(0)
