"""A TCP proxy whose connections can be cut, or fall silent."""

import asyncio
import re
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from tests.daemon.daemon import PATIENCE_S, eventually

T = TypeVar("T")
RESET = b"\1\0\0\0\0\0\0\0"  # linger for no time: socket(7), SO_LINGER


class Pair:
    """A connection of a client, and the one that it is passed on to."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.writers = writers
        self.flows = asyncio.Event()
        self.flows.set()
        self.request = b""  # line of the last one
        self.loses = False

    def cut(self) -> None:
        """Break both with a reset."""
        self.flows.set()
        for writer in self.writers:
            with suppress(OSError):  # it is closed already
                connection: socket.socket = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


class Proxy:
    """Passes connections on to a port of loopback.

    Attributes:
        port_behind: where connections go.
        lines: the request lines that came.
        refused: number of connections that were refused.
        portion: number of bytes after which a connection ends for its client; 0 for no limit.
        loses: the reply to the next request that contains this never arrives.
        down_after_loss: whether the proxy is down from then on.
    """

    def __init__(self, port: int) -> None:
        self.port_behind = port
        self.lines: list[bytes] = []
        self.refused = self.portion = 0
        self.loses = b""
        self.down_after_loss = False
        self._is_up = True
        self._answer = b""
        self._pairs: set[Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break all connections; new ones are passed on."""
        self._run(self._cut())

    def down(self, status: int | None = None) -> None:
        """Break all connections, and refuse new ones.

        Args:
            status: answer requests with it instead, as a gateway without its server does.
        """
        page = b"<html>why</html>"
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
        self._answer = b"" if status is None else head.encode() + page
        self._is_up = False
        self.cut()

    def fail_once(self, status: int) -> None:
        """Be a gateway whose server is away until the next request."""
        before = len(self.lines)
        self.down(status)
        assert eventually(lambda: len(self.lines) > before)
        self.up()

    def up(self) -> None:
        """Pass new connections on again."""
        self._is_up = True

    def hold(self, what: bytes = b"") -> None:
        """Silently stop passing on connections whose last request line contains this.

        So it is when a NAT forgets a connection, or a machine goes.
        """
        self._run(self._hold(what))

    def flow(self) -> None:
        """Pass on what was held, and everything that comes."""
        self._run(self._hold(b"", flows=True))

    def close(self) -> None:
        """Break all connections and stop."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[object, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _cut(self) -> None:
        for pair in self._pairs:
            pair.cut()

    async def _hold(self, what: bytes, *, flows: bool = False) -> None:
        for pair in self._pairs:
            if flows:
                pair.flows.set()
            elif what in pair.request:
                pair.flows.clear()

    async def _end(self) -> None:
        self._server.close()
        self._is_up = False
        await self._cut()
        own = asyncio.current_task()
        if others := [task for task in asyncio.all_tasks() if task is not own]:
            await asyncio.wait(others)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._is_up:
            if self._answer:
                self.lines.append(await reader.readline())
                writer.write(self._answer)
                writer.close()
            else:
                writer.transport.abort()
                self.refused += 1
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.port_behind)
        if not self._is_up:  # meanwhile
            back.close()
            writer.transport.abort()
            return
        pair = Pair(writer, back)
        self._pairs.add(pair)
        await asyncio.gather(
            self._pass_requests(pair, reader, back), self._pass_replies(pair, there, writer)
        )
        self._pairs.remove(pair)

    async def _pass_requests(
        self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if lines := re.findall(rb"(?m)^[A-Z]+ /\S* HTTP/1.1\r$", data):
                    self.lines += lines
                    pair.request = lines[-1]
                if self.loses and self.loses in data:
                    self.loses = b""
                    pair.loses = True
                    self._is_up = not self.down_after_loss
                await pair.flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _pass_replies(
        self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        passed = 0
        with suppress(OSError):
            while data := await reader.read(65536):
                await pair.flows.wait()
                if pair.loses:
                    pair.cut()
                    return
                writer.write(data)
                await writer.drain()
                passed += len(data)
                if 0 < self.portion <= passed:
                    break
        for each in pair.writers:
            each.close()


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Make a proxy of a port of loopback."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
