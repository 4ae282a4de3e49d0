"""The client's side of a WebSocket, for a loop that waits on several descriptors.

Source: RFC 6455.
"""

import binascii
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from procd.cli.failure import Unreachable
from procd.cli.http import REPLY_S, Connection, Reply
from procd.cli.target import Target

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PIECE_BYTES: Final = 256 << 10
# What is read at once, so that whoever else is waited for has a turn.
MOST_BYTES: Final = 1 << 20
MAX_MESSAGE_BYTES: Final = 64 << 20
# Of input that the server hasn't taken; beyond it no more should be read.
FULL_BYTES: Final = 256 << 10
# How long one wait is, how often the server is asked for a sign of life, and after which silence it
# counts as gone.
BEAT_S: Final = 5.0
PING_S: Final = 15.0
DEAD_S: Final = 45.0


class Message(NamedTuple):
    """A message: TEXT or BINARY."""

    opcode: int
    payload: bytes


class Closed(NamedTuple):
    """How the server closed."""

    code: int
    reason: str


def connect(
    target: Target, path: str, protocols: Sequence[str] = (), within_s: float = REPLY_S
) -> "WebSocket | Reply":
    """Open one; the server's refusal, if it doesn't upgrade.

    Raises:
        Unreachable: the server isn't there.
    """
    from hashlib import sha1  # loads a large library

    key = binascii.b2a_base64(os.urandom(16), newline=False)
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key.decode(),
        "Sec-WebSocket-Version": "13",
        "X-Daytona-Split-Output": "true",
    }
    if protocols:
        headers["Sec-WebSocket-Protocol"] = ", ".join(protocols)
    connection = Connection(target)
    try:
        connection.send("GET", path, headers=headers)
        reply = connection.receive(within_s)
        if reply.status != 101:
            connection.close()
            return reply
        expected = binascii.b2a_base64(sha1(key + GUID).digest(), newline=False)  # noqa: S324 - the protocol's
        if reply.headers.get("sec-websocket-accept", "").encode() != expected:
            raise Unreachable(f"{target.url} doesn't speak WebSocket")
    except BaseException:
        connection.close()
        raise
    return WebSocket(target, *connection.leave())


class WebSocket:
    """An open one; nothing here blocks.

    Attributes:
        closed: how the server closed; None while it hasn't.
    """

    def __init__(self, target: Target, connected: socket.socket, received: bytes) -> None:
        self._target = target
        self._socket = connected
        self._socket.settimeout(0)
        self._received = bytearray(received)
        self._unseen = bool(received)
        self._unsent = bytearray()
        self._parts = bytearray()
        self._opcode = 0
        self._heard = self._asked = time.monotonic()
        self.closed: Closed | None = None

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    @property
    def events(self) -> int:
        """What to wait for, as poll(2) has it: what comes, and room for what waits to be sent."""
        return select.POLLIN | (select.POLLOUT if self._unsent else 0)

    @property
    def full(self) -> bool:
        """Whether it should be given no more to send."""
        return len(self._unsent) > FULL_BYTES

    @property
    def pending(self) -> bool:
        """Whether `receive` has something that the descriptor doesn't show."""
        decrypted = getattr(self._socket, "pending", None)
        return self._unseen or (decrypted is not None and decrypted() > 0)

    def wait(self, *others: int) -> None:
        """Wait for what comes, here or by other descriptors, for BEAT_S at the most."""
        if self.pending:
            return
        poll = select.poll()
        poll.register(self, self.events)
        for number in others:
            poll.register(number, select.POLLIN)
        poll.poll(BEAT_S * 1000)

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        """Send a message, as soon as there is room.

        Raises:
            Unreachable: the connection is gone.
        """
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
        mask = os.urandom(4)
        self._unsent += head + mask + _masked(payload, mask)
        self.flush()

    def flush(self) -> None:
        """Send what there is room for.

        Raises:
            Unreachable: the connection is gone.
        """
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except OSError as exc:
            if not _would_block(exc):
                raise self._lost(exc) from exc

    def receive(self) -> list[Message]:
        """The messages that have arrived.

        Raises:
            Unreachable: the connection is gone without a Close.
        """
        ended = self._unseen = False
        room = MOST_BYTES
        try:
            while room > 0:
                data = self._socket.recv(PIECE_BYTES)
                if not data:
                    ended = True
                    break
                self._received += data
                room -= len(data)
                self._heard = time.monotonic()
        except OSError as exc:
            if not _would_block(exc):
                raise self._lost(exc) from exc
        messages = self._parse()
        if ended and self.closed is None:
            if messages:
                return messages  # the next call says that it is gone
            raise self._lost(None)
        return messages

    def beat(self) -> None:
        """To be called every few seconds: asks for a sign of life.

        Raises:
            Unreachable: there has been none for DEAD_S.
        """
        now = time.monotonic()
        if now - self._heard > DEAD_S:
            raise self._lost(TimeoutError())
        if now - max(self._asked, self._heard) > PING_S:
            self._asked = now
            self.send(b"", PING)

    def close(self, code: int = 1000) -> None:
        """Say goodbye, without waiting for the answer."""
        try:
            if self.closed is None:
                self.send(struct.pack("!H", code), CLOSE)
        except Unreachable:
            pass  # it has gone already
        finally:
            self._socket.close()

    def _lost(self, exc: OSError | None) -> Unreachable:
        how = "" if exc is None else f": {exc.strerror or 'it is silent'}"
        return Unreachable(f"the connection to {self._target.url} broke{how}")

    def _parse(self) -> list[Message]:
        messages: list[Message] = []
        data = self._received
        position = 0
        while self.closed is None and (frame := self._frame(position)) is not None:
            final, opcode, start, position = frame
            payload = bytes(data[start:position])
            if opcode == CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if len(payload) > 1 else 1005
                self.closed = Closed(code, payload[2:].decode(errors="replace"))
                self._answer(payload[:2], CLOSE)
            elif opcode == PING:
                self._answer(payload, PONG)
            elif opcode in (TEXT, BINARY, CONTINUATION):
                if opcode != CONTINUATION:
                    self._opcode = opcode
                self._parts += payload
                if final:
                    messages.append(Message(self._opcode, bytes(self._parts)))
                    self._parts.clear()
        del data[:position]
        return messages

    def _frame(self, position: int) -> tuple[bool, int, int, int] | None:
        """Whether it is the last of its message, opcode, begin and end of the payload."""
        data = self._received
        if len(data) < position + 2:
            return None
        first, second = data[position], data[position + 1]
        start = position + 2
        size = second & 0x7F
        for marker, width in ((126, 2), (127, 8)):
            if size == marker:
                if len(data) < start + width:
                    return None
                size = int.from_bytes(data[start : start + width], "big")
                start += width
                break
        if len(self._parts) + size > MAX_MESSAGE_BYTES:
            raise Unreachable(f"{self._target.url} sends a message that is too large")
        if len(data) < start + size:
            return None
        return bool(first & 0x80), first & 0x0F, start, start + size

    def _answer(self, payload: bytes, opcode: int) -> None:
        try:
            self.send(payload, opcode)
        except Unreachable:
            return  # what has come before is still to be read; the next read says that it is gone


def _would_block(exc: OSError) -> bool:
    # ssl.SSLWantReadError is an OSError of its own, errno 2; ssl itself isn't imported for it.
    return isinstance(exc, BlockingIOError) or type(exc).__name__ in (
        "SSLWantReadError", "SSLWantWriteError",
    )  # fmt: skip


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    if not size:
        return b""
    key = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return number.to_bytes(size, "big")
