"""The client's end of a WebSocket, for a loop that polls several descriptors. Source: RFC 6455."""

import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from procd.cli.failure import Unreachable

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

RECEIVE_BYTES: Final = 256 << 10
MAX_MESSAGE_BYTES: Final = 64 << 20
# The longest single wait; the silence after which the server is pinged; the silence after which it
# counts as lost.
WAIT_S: Final = 5.0
PING_S: Final = 15.0
DEAD_S: Final = 45.0


class Message(NamedTuple):
    """A complete message; its opcode is TEXT or BINARY."""

    opcode: int
    payload: bytes


class Closed(NamedTuple):
    code: int
    reason: str


class WebSocket:
    """An open WebSocket. No method blocks; `wait` waits for it.

    `unsent` are frames that wait for room; `closed` is the server's Close.
    """

    def __init__(self, url: str, connected: socket.socket) -> None:
        self._url = url
        self.socket = connected
        self.socket.settimeout(0)
        self._received = bytearray()
        self.unsent = bytearray()
        self._fragments = bytearray()
        self._opcode = BINARY
        self._heard_at = self._pinged_at = time.monotonic()
        self.closed: Closed | None = None

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        """Send a message, or queue it until there is room; raises Unreachable."""
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
        mask = os.urandom(4)
        key = (mask * (size // 4 + 1))[:size]
        masked = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
        self.unsent += head + mask + masked.to_bytes(size, "big")
        self._flush()

    def receive(self) -> list[Message]:
        """Send what waits, ping, and return what has arrived. To be called every few seconds."""
        self._flush()
        now = time.monotonic()
        try:
            if data := self.socket.recv(RECEIVE_BYTES):
                self._received += data
                self._heard_at = now
            elif self.closed is None:
                raise Unreachable(f"the connection to {self._url} broke")
        except OSError as exc:
            if not _would_block(exc):
                raise self._lost(exc.strerror) from exc
        messages = self._parse()
        if now - self._heard_at > DEAD_S:
            raise self._lost("it is silent")
        if now - max(self._pinged_at, self._heard_at) > PING_S:
            self._pinged_at = now
            self.send(b"", PING)
        return messages

    def close(self) -> None:
        try:
            if self.closed is None:
                self.send(struct.pack("!H", 1000), CLOSE)
        except Unreachable:
            pass
        finally:
            self.socket.close()

    def _flush(self) -> None:
        try:
            while self.unsent:
                del self.unsent[: self.socket.send(self.unsent)]
        except OSError as exc:
            if not _would_block(exc):
                raise self._lost(exc.strerror) from exc

    def _lost(self, why: str | None) -> Unreachable:
        return Unreachable(f"the connection to {self._url} broke: {why}")

    def _parse(self) -> list[Message]:
        messages = []
        position = 0
        while self.closed is None and (frame := self._frame(position)) is not None:
            final, opcode, start, position = frame
            payload = bytes(self._received[start:position])
            if opcode == CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if len(payload) > 1 else 1005
                self.closed = Closed(code, payload[2:].decode(errors="replace"))
                self._reply(payload[:2], CLOSE)
            elif opcode == PING:
                self._reply(payload, PONG)
            elif opcode != PONG:
                self._opcode = opcode or self._opcode
                self._fragments += payload
                if final:
                    messages.append(Message(self._opcode, bytes(self._fragments)))
                    self._fragments.clear()
        del self._received[:position]
        return messages

    def _frame(self, position: int) -> tuple[bool, int, int, int] | None:
        """Return the final bit, opcode, begin and end of a complete frame."""
        data = self._received
        if len(data) < position + 2:
            return None
        size = data[position + 1] & 0x7F
        start = position + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(data) < start + width:
                return None
            size = int.from_bytes(data[start : start + width], "big")
            start += width
        if len(self._fragments) + size > MAX_MESSAGE_BYTES:
            raise Unreachable(f"{self._url} sends a message that is too large")
        if len(data) < start + size:
            return None
        return bool(data[position] & 0x80), data[position] & 0x0F, start, start + size

    def _reply(self, payload: bytes, opcode: int) -> None:
        try:
            self.send(payload, opcode)
        except Unreachable:
            return  # what arrived before is still to be read; the next read fails


def wait(websocket: WebSocket | None, others: Iterable[int], timeout_s: float = WAIT_S) -> set[int]:
    """Wait until a WebSocket or another descriptor is ready; returns those that are."""
    poll = select.poll()
    if websocket is not None:
        poll.register(websocket, select.POLLIN | (select.POLLOUT if websocket.unsent else 0))
        decrypted = getattr(websocket.socket, "pending", None)
        if decrypted is not None and decrypted():  # bytes within TLS, which poll(2) doesn't report
            timeout_s = 0
    for descriptor in others:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(timeout_s * 1000)}


def _would_block(exc: OSError) -> bool:
    # By name, so that ssl need not be imported: its errors are no BlockingIOError.
    return isinstance(exc, BlockingIOError) or type(exc).__name__ in (
        "SSLWantReadError", "SSLWantWriteError"
    )  # fmt: skip
