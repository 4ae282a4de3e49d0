"""Clients of the API: polite ones, one that speaks raw bytes, and means to watch a program.

Nothing here sleeps: a FIFO tells what a program does and when the last of its processes has ended,
and a source added to a log is told when the log holds its program back.
"""

import asyncio
import base64
import ctypes
import functools
import hashlib
import inspect
import io
import json
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import pytest
from aiohttp import ClientResponse, ClientWebSocketResponse, WSMsgType

from procd.api.pty import PTYS
from tests.aliases import Client

WAIT_S = 40

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SO_ATTACH_FILTER = 26
EXIT_TOKEN = "X-Daytona-Pty-Exit-Control"
ENVS_TOKEN = "X-Daytona-Pty-Envs~"
VERSION_TOKEN = "X-Daytona-SDK-Version~0.218.0"


Test = Callable[..., Awaitable[None]]


def each(names: str | tuple[str, ...], cases: Iterable[object]) -> Callable[[Test], Test]:
    """Run a test for each of these cases, in turn.

    As `parametrize`, but one test: the look for leaks after each test takes longer than most cases.
    """
    names = (names,) if isinstance(names, str) else names

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        async def all_cases(**fixtures: object) -> None:
            for case in cases:
                values = case if isinstance(case, tuple) and len(names) > 1 else (case,)
                try:
                    await test(**fixtures, **dict(zip(names, values, strict=True)))
                except BaseException as exc:
                    exc.add_note(f"case: {case!r}"[:200])
                    raise

        signature = inspect.signature(test)
        rest = [each for name, each in signature.parameters.items() if name not in names]
        all_cases.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]  # functions have one if given
        return all_cases

    return decorate


async def execute(client: Client, command: str, **fields: object) -> dict[str, Any]:
    """Run a command and return the body of its 200."""
    async with (
        asyncio.timeout(WAIT_S),
        client.post("/process/execute", data=json_body({"command": command, **fields})) as reply,
    ):
        body: dict[str, Any] = await reply.json()
        assert reply.status == 200, body
        return body


def json_body(document: object) -> io.BytesIO:
    """A body of any size; aiohttp warns of large ones in any other form."""
    return io.BytesIO(json.dumps(document).encode())


async def refused(reply: ClientResponse, status: int, code: str) -> dict[str, Any]:
    """Check that a reply is an error of this kind in the full envelope, and return its body."""
    body: dict[str, Any] = await reply.json()
    assert (reply.status, body.get("code")) == (status, code), body
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    assert body["statusCode"] == status
    assert body["source"] == "DAYTONA_DAEMON"
    assert body["message"]
    assert (body["method"], body["path"]) == (reply.method, reply.url.path)
    assert datetime.fromisoformat(body["timestamp"]).tzinfo is not None
    assert body.get("error") == (body["message"] if "/process/pty" in reply.url.path else None)
    return body


def program(directory: Path, text: str) -> str:
    """An executable that does `text`, to be a session's shell; returns its path."""
    fresh = directory / "fresh"  # a shell that still reads the one before goes on with that
    fresh.write_text(f"#!/bin/sh\n{text}\n")
    fresh.chmod(0o755)
    return str(fresh.rename(directory / "program"))


def random_base64(size: int) -> bytes:
    """`size` bytes without a newline that no compression or repetition can fake."""
    return base64.b64encode(os.urandom(size // 4 * 3 + 3))[:size]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Fifo:
    """The reading end of a FIFO: what programs say into it, and when all who hold it have gone.

    A writing end of its own bridges the time from one program to the next, until `ended`.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self._held = b""
        self._number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._bridge = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def __str__(self) -> str:
        return str(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._number)
        if self._bridge >= 0:
            os.close(self._bridge)

    async def line(self) -> str:
        while b"\n" not in self._held:
            await self._more()
        line, _, self._held = self._held.partition(b"\n")
        return line.decode()

    async def ended(self) -> None:
        """Wait until no process has it open any more; ask once `line` shows that one had."""
        os.close(self._bridge)
        self._bridge = -1
        while await self._more():
            pass

    async def _more(self) -> bool:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._number, readable.set)
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    await readable.wait()
                    readable.clear()
                    try:
                        data = os.read(self._number, 65536)
                    except BlockingIOError:
                        continue  # it was something before the last read
                    self._held += data
                    return bool(data)
        finally:
            loop.remove_reader(self._number)


class Gate:
    """A FIFO that programs wait at with `read x <gate`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self._number = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def __str__(self) -> str:
        return str(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._number)

    def open(self, programs: int = 1) -> None:
        """Let so many pass."""
        os.write(self._number, b"pass\n" * programs)


class PauseWatch:
    """A source of a log that brings nothing, and knows when the log's sources are held back."""

    def __init__(self, client: Client, session_id: str) -> None:
        self._paused = asyncio.Event()
        log = client.app[PTYS].get(session_id).log
        log.feed_from(self)
        if log.paused:
            self.pause()

    def pause(self) -> None:
        self._paused.set()

    def resume(self) -> None:
        self._paused.clear()

    async def paused(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self._paused.wait()


class Terminal:
    """A client of a PTY session.

    Attributes:
        connected: the control message that it began with.
        controls: those that came later.
        output: all bytes so far.
        close: code and reason, once the server has closed.
    """

    def __init__(self, ws: ClientWebSocketResponse[bool]) -> None:
        self.ws = ws
        self.controls: list[dict[str, Any]] = []
        self.output = bytearray()
        self.close: tuple[int | None, str] | None = None

    @property
    def connected(self) -> dict[str, Any]:
        """The control message that it began with."""
        assert self.controls
        return self.controls[0]

    @property
    def offset(self) -> int:
        """The absolute offset that it has read up to."""
        if "liveOffset" in self.connected:
            live: int = self.connected["liveOffset"]
            return live + len(self.output) - int(self.connected["replayBytes"])
        return int(self.connected["offset"]) + len(self.output)

    @property
    def ending(self) -> dict[str, Any]:
        """The reason that the server closed with."""
        assert self.close is not None
        reason: dict[str, Any] = json.loads(self.close[1])
        return reason

    async def step(self) -> bool:
        """Take the next message; False when that was the last."""
        message = await self.ws.receive()
        match message.type:
            case WSMsgType.BINARY:
                self.output += message.data
            case WSMsgType.TEXT:
                self.controls.append(json.loads(message.data))
            case WSMsgType.CLOSE:
                self.close = message.data, message.extra or ""
            case _:
                self.close = self.close or (self.ws.close_code, "")
        return self.close is None

    async def until(self, marker: bytes | Callable[[bytearray], bool]) -> None:
        """Read until the output has `marker` in it, or is as it says."""
        found = marker if callable(marker) else lambda output: marker in output
        async with asyncio.timeout(WAIT_S):
            while not found(self.output):
                assert await self.step(), (self.close, bytes(self.output[-2000:]))

    async def until_size(self, size: int) -> None:
        await self.until(lambda output: len(output) >= size)

    async def type(self, data: bytes) -> None:
        await self.ws.send_bytes(data)

    async def to_end(self) -> tuple[int | None, str]:
        """Read until the server closes, and return code and reason."""
        async with asyncio.timeout(WAIT_S):
            while await self.step():
                pass
        assert self.close is not None
        return self.close


async def attach(client: Client, path: str, *protocols: str) -> Terminal:
    """Upgrade and read the first message, which is always a control message."""
    async with asyncio.timeout(WAIT_S):
        terminal = Terminal(await client.ws_connect(path, protocols=protocols, max_msg_size=0))
        await terminal.step()
    assert terminal.controls, "the first message is no control message"
    return terminal


async def create(client: Client, session_id: str, **fields: object) -> None:
    async with client.post("/process/pty", json={"id": session_id, **fields}) as reply:
        assert (reply.status, await reply.json()) == (201, {"sessionId": session_id})


async def connect(client: Client, session_id: str, query: str = "", *protocols: str) -> Terminal:
    """Attach to a session that accepts."""
    terminal = await attach(client, f"/process/pty/{session_id}/connect{query}", *protocols)
    assert terminal.connected["status"] == "connected", terminal.connected
    return terminal


async def describe(client: Client, session_id: str) -> dict[str, Any]:
    """What the server tells about a session, but for what it uses, where a cgroup tells that."""
    async with client.get(f"/process/pty/{session_id}") as reply:
        body: dict[str, Any] = await reply.json()
        assert reply.status == 200, body
        body.pop("usage", None)
        return body


async def listed(client: Client) -> list[str]:
    async with client.get("/process/pty") as reply:
        assert reply.status == 200
        return [session["id"] for session in (await reply.json())["sessions"]]


async def delete(client: Client, session_id: str) -> None:
    async with asyncio.timeout(WAIT_S), client.delete(f"/process/pty/{session_id}") as reply:
        assert (reply.status, await reply.json()) == (200, {"message": "PTY session deleted"})


def envs_token(document: object) -> str:
    """The sub-protocol token that carries an environment."""
    text = json.dumps(document).encode()
    return ENVS_TOKEN + base64.urlsafe_b64encode(text).decode().rstrip("=")


def masked_frame(first: int, payload: bytes) -> bytes:
    """A frame of a client: its first byte, its length, and the rest under a mask."""
    mask = os.urandom(4)
    if len(payload) < 126:
        size = struct.pack("!B", 0x80 | len(payload))
    else:
        size = struct.pack("!BQ", 0x80 | 127, len(payload))
    spread = mask * (len(payload) // 4 + 1)
    masked = bytes(byte ^ with_ for byte, with_ in zip(payload, spread, strict=False))
    return bytes([first]) + size + mask + masked


class Raw:
    """A client that sends what it likes and reads only when told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ahead: tuple[int, bytes] | None = None

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def request(self, head: str, body: bytes = b"") -> None:
        """Send a request: `head` is its first line and headers, without Host."""
        await self.send(
            f"{head}\r\nHost: localhost\r\n\r\n".replace("\n", "\r\n")
            .replace("\r\r", "\r")
            .encode(errors="surrogateescape")
            + body
        )

    async def ask_upgrade(self, path: str, *headers: str, to: str = "websocket") -> None:
        lines = [
            f"GET {path} HTTP/1.1",
            f"Upgrade: {to}",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            *headers,
        ]
        await self.request("\n".join(lines))

    async def head(self) -> tuple[int, list[str]]:
        """The head of a reply: its status and its header lines."""
        async with asyncio.timeout(WAIT_S):
            text = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = text.rstrip("\r\n").split("\r\n")
        return int(first.split()[1]), lines

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self._reader.readexactly(size)

    async def line(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self._reader.readline()

    async def upgrade(self, path: str, *headers: str, to: str = "websocket") -> list[str]:
        """Complete a WebSocket handshake and return the reply's header lines."""
        await self.ask_upgrade(path, *headers, to=to)
        status, lines = await self.head()
        assert status == 101
        return lines

    async def send_frame(self, opcode: int, payload: bytes) -> None:
        await self.send(masked_frame(0x80 | opcode, payload))

    async def output(self, least: int | None) -> bytes:
        """The payload of the next binary frames: `least` bytes or more, or all up to the close."""
        output = bytearray()
        while (least is None or len(output) < least) and self._ahead is None:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                self._ahead = opcode, payload
            elif opcode == BINARY:
                output += payload
        return bytes(output)

    async def frame(self) -> tuple[int, bytes]:
        if self._ahead is not None:
            return self._ahead
        async with asyncio.timeout(WAIT_S):
            first, size = await self._reader.readexactly(2)
            if size == 126:
                (size,) = struct.unpack("!H", await self._reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
            return first & 0x0F, await self._reader.readexactly(size)

    async def next(self, opcode: int) -> bytes:
        """The payload of the next frame of this kind."""
        while (frame := await self.frame())[0] != opcode:
            assert frame[0] != CLOSE, frame
        return frame[1]

    async def control(self) -> bytes:
        """The payload of the next message, which must be a text."""
        while (frame := await self.frame())[0] in (PING, PONG):
            pass
        assert frame[0] == TEXT, frame
        return frame[1]

    async def rest(self) -> bytes:
        """What the server sends until it closes; what was lost to a reset is not there."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    def segments(self) -> int:
        """How many segments with data have come. Source: linux/tcp.h, tcpi_data_segs_in."""
        sock = self._writer.get_extra_info("socket")
        (count,) = struct.unpack("152xI", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 156))
        return int(count)

    def reset(self) -> None:
        """Vanish: the server's kernel gets RST, and whatever is on the way is dropped."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def vanish(self) -> None:
        """From now on the client's host acknowledges nothing: its kernel drops what comes.

        Source: socket(7), SO_ATTACH_FILTER; the program is `ret #0`.
        """
        program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
        sock = self._writer.get_extra_info("socket")
        attached = struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, attached)
        except PermissionError:
            pytest.skip("this kernel takes filters from root alone")

    def end_input(self) -> None:
        """Send no more, but go on reading: the server's kernel gets FIN."""
        self._writer.write_eof()

    async def leave(self) -> None:
        """Close the connection without a word: the server's kernel gets FIN."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return


@asynccontextmanager
async def raw(
    client: Client, receive_bytes: int | None = None, ahead_bytes: int = 1 << 16
) -> AsyncIterator[Raw]:
    """Connect a raw client, whose kernel may buffer only `receive_bytes`.

    Args:
        ahead_bytes: of how much it reads, about, before it is told to.
    """
    sock = socket.socket()
    sock.setblocking(False)
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await asyncio.get_running_loop().sock_connect(sock, (client.host, client.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=ahead_bytes)
    connection = Raw(reader, writer)
    try:
        yield connection
    finally:
        await connection.leave()


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    """Ask the server until its answer is yes; each time it gets to do whatever it has to do."""
    async with asyncio.timeout(WAIT_S):
        while not await fact():
            pass


@contextmanager
def descriptors_exhausted(but: int = 0) -> Iterator[None]:
    """No further descriptor can be opened in this process, `but` for so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(number) for number in os.listdir("/proc/self/fd"))
    # Those that are free below are taken, so that the ones left are the last that there can be.
    taken = [os.open(os.devnull, os.O_RDONLY)]
    while taken[-1] <= highest:
        taken.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1 + but, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


async def unchunked(reading: Raw) -> bytes:
    """The body of a reply in chunks."""
    body = bytearray()
    while size := int(await reading.line(), 16):
        body += (await reading.exactly(size + 2))[:-2]
    await reading.line()  # the empty one behind the last
    return bytes(body)
