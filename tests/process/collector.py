"""What a reader brings, and a turn of the loop in which it can."""

import asyncio
import os

from procd.unix.fd import pipe


class Collector:
    """Takes what a reader brings; `ended` is set at its end."""

    def __init__(self) -> None:
        self.runs: list[bytes] = []
        self.ended = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()

    @property
    def data(self) -> bytes:
        return b"".join(self.runs)

    def received(self, data: bytes) -> None:
        self.runs.append(data)
        self._news.set()

    def eof(self) -> None:
        self.ended.set_result(len(self.runs))

    async def until(self, size: int) -> None:
        """Wait for this many bytes."""
        while len(self.data) < size:
            self._news.clear()
            await self._news.wait()


async def turn() -> None:
    """Let the loop look at its descriptors once and run what that gives."""
    loop = asyncio.get_running_loop()
    reading, writing = pipe()
    looked = loop.create_future()
    os.write(writing.number, b"x")
    loop.add_reader(reading.number, looked.set_result, None)
    async with asyncio.timeout(10):
        await looked
    loop.remove_reader(reading.number)
    reading.close()
    writing.close()
    ran = loop.create_future()
    loop.call_soon(ran.set_result, None)
    await ran
