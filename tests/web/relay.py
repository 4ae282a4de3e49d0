"""A TCP relay between the browser and the server, whose connections can be cut or fall silent."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Relay:
    """Passes bytes both ways, as long as it is up."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._up = True
        self._answer = b""
        self._flows = asyncio.Event()
        self._flows.set()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def _run(self, work: Coroutine[object, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._up:
            await self._turn_away(reader, writer)
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, back}
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        self._open -= {writer, back}

    async def _turn_away(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._answer:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer)
            writer.close()
        else:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # cut
        writer.close()

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    def cut(self) -> None:
        """Break all connections; new ones are served."""
        self._run(self._cut())

    def down(self, status: int | None = None) -> None:
        """Break all connections, and every new one at once.

        Args:
            status: what new ones are answered before that, as by a gateway without its server.
        """
        self._up = False
        head = f"HTTP/1.1 {status} Bad\r\nContent-Length: 13\r\nConnection: close\r\n\r\n"
        self._answer = b"" if status is None else head.encode() + b"<html></html>"
        self.cut()

    def up(self) -> None:
        """Serve again."""
        self._up = True

    def hold(self) -> None:
        """Pass nothing on, and tell nobody, as when a machine goes without a word."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def flow(self) -> None:
        """Pass on what was held, and all that comes."""
        self._loop.call_soon_threadsafe(self._flows.set)

    async def _end(self) -> None:
        self._server.close()
        self._flows.set()
        await self._cut()
        own = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not own]
        if others:
            await asyncio.wait(others)

    def close(self) -> None:
        """End it."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def relay_to(port: int) -> Iterator[Relay]:
    """A relay to a port of this machine, for a while."""
    relay = Relay(port)
    try:
        yield relay
    finally:
        relay.close()
