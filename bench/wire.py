"""HTTP and WebSocket clients that cost next to nothing: blocking sockets, the least parsing."""

import json
import os
import socket
import struct
from typing import Any, Final

TIMEOUT_S: Final = 120
BUFFER_BYTES: Final = 1 << 20
LAST_CHUNK: Final = b"\r\n0\r\n\r\n"

BINARY: Final = 2
CLOSE: Final = 8


def request(method: str, path: str, document: object = None) -> bytes:
    """A whole request."""
    body = b"" if document is None else json.dumps(document).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def connect(port: int) -> socket.socket:
    """A blocking connection; the kernel keeps the timeout, which spares a poll for each call."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", TIMEOUT_S, 0))
    return sock


class Http:
    """A keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.sock = connect(port)
        self._buffer = bytearray(BUFFER_BYTES)

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def exchange(self, whole_request: bytes) -> bytes:
        """Send a request; its reply, of known length and short, as it came."""
        self.sock.sendall(whole_request)
        reply = self.sock.recv(65536)
        while not complete(reply):
            more = self.sock.recv(65536)
            if not more:
                raise ConnectionError("closed in a reply")
            reply += more
        return reply

    def call(self, method: str, path: str, document: object = None) -> Any:
        """The parsed body of a reply that must be a success."""
        reply = self.exchange(request(method, path, document))
        head, _, body = reply.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{method} {path}: {reply.decode()}")
        return json.loads(body)

    def count(self, whole_request: bytes) -> int:
        """Send a request and read its reply, chunked or not, unseen; the bytes it took."""
        self.sock.sendall(whole_request)
        buffer = self._buffer
        total = got = self.sock.recv_into(buffer)
        head_end = buffer.find(b"\r\n\r\n", 0, got) + 4
        head = bytes(buffer[:head_end]).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(bytes(buffer[:got]).decode())
        _, found, length = head.partition(b"content-length:")
        if found:
            size = head_end + int(length.split(b"\r\n", 1)[0])
            while total < size:
                got = self.sock.recv_into(buffer)
                if not got:
                    raise ConnectionError("closed in a reply")
                total += got
            return total
        tail = bytes(buffer[max(0, got - len(LAST_CHUNK)) : got])
        while tail != LAST_CHUNK:
            got = self.sock.recv_into(buffer)
            if not got:
                raise ConnectionError("closed in a reply")
            total += got
            tail = (tail + bytes(buffer[max(0, got - len(LAST_CHUNK)) : got]))[-len(LAST_CHUNK) :]
        return total


def complete(reply: bytes) -> bool:
    """Whether a reply of known length is all there."""
    head_end = reply.find(b"\r\n\r\n")
    if head_end < 0:
        return False
    at = reply.find(b"Content-Length: ")
    if not 0 <= at < head_end:
        if reply.startswith(b"HTTP/1.1 204"):
            return True
        raise RuntimeError(f"no length: {reply[:head_end].decode()}")
    return len(reply) >= head_end + 4 + int(reply[at + 16 : reply.index(b"\r\n", at)])


class FrameCounter:
    """Counts the payload of binary frames in a run of bytes that is cut anywhere."""

    def __init__(self) -> None:
        self.payload_bytes = 0
        self.closed = False
        self._skip = 0
        self._header = b""

    def feed(self, data: memoryview) -> None:
        """Take what a socket gave."""
        size = len(data)
        position = min(self._skip, size)
        self._skip -= position
        while position < size:
            header = self._header + bytes(data[position : position + 10 - len(self._header)])
            parsed = parse_header(header)
            if parsed is None:
                self._header = header
                return
            opcode, header_bytes, length = parsed
            position += header_bytes - len(self._header)
            self._header = b""
            if opcode == BINARY:
                self.payload_bytes += length
            elif opcode == CLOSE:
                self.closed = True
            here = min(length, size - position)
            position += here
            self._skip = length - here


def parse_header(data: bytes) -> tuple[int, int, int] | None:
    """Opcode, size of the header and of the payload; None if there is more to come."""
    if len(data) < 2:
        return None
    opcode, short = data[0] & 15, data[1]
    if short < 126:
        return opcode, 2, short
    if short == 126:
        return (opcode, 4, int.from_bytes(data[2:4], "big")) if len(data) >= 4 else None
    return (opcode, 10, int.from_bytes(data[2:10], "big")) if len(data) >= 10 else None


class WebSocket:
    """A client connection; what it sends is masked with zeros, which leaves it as it is."""

    def __init__(self, port: int, path: str) -> None:
        self.sock = connect(port)
        self.sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        reply = b""
        while b"\r\n\r\n" not in reply:
            more = self.sock.recv(65536)
            if not more:
                raise ConnectionError("closed in the handshake")
            reply += more
        head, _, self._data = reply.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(reply.decode())

    def close(self) -> None:
        """Drop the connection."""
        self.sock.close()

    def take(self) -> bytes:
        """What came with the handshake's reply or the last message, not looked at yet."""
        data, self._data = self._data, b""
        return data

    def send(self, payload: bytes) -> None:
        """Send a binary message."""
        self.sock.sendall(frame(payload))

    def receive(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload."""
        while True:
            parsed = parse_header(self._data)
            if parsed is not None:
                opcode, header_bytes, length = parsed
                end = header_bytes + length
                if len(self._data) >= end:
                    payload, self._data = self._data[header_bytes:end], self._data[end:]
                    return opcode, payload
            more = self.sock.recv(65536)
            if not more:
                raise ConnectionError("closed")
            self._data += more

    def receive_until(self, marker: bytes) -> bytes:
        """All binary payload up to and with the frame that completes `marker`."""
        seen = b""
        while marker not in seen:
            opcode, payload = self.receive()
            if opcode == CLOSE:
                raise ConnectionError(f"closed: {payload!r}")
            if opcode == BINARY:
                seen += payload
        return seen

    def echo(self, sent: bytes, expected: bytes) -> None:
        """Send bytes and wait for exactly those that come back: one system call each way."""
        self.sock.sendall(sent)
        got = self.sock.recv(4096)
        while got != expected:
            if got.startswith(b"\x89\x00"):  # a ping
                got = got[2:]
                if got:
                    continue
            if len(got) >= len(expected):
                raise RuntimeError(f"unexpected echo: {got!r}")
            got += self.sock.recv(4096)


def frame(payload: bytes) -> bytes:
    """A masked binary frame."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB4x", 0x82, 0x80 | size) + payload
    if size < 1 << 16:
        return struct.pack("!BBH4x", 0x82, 0x80 | 126, size) + payload
    return struct.pack("!BBQ4x", 0x82, 0x80 | 127, size) + payload


def read_all(fd: int) -> int:
    """Read a descriptor to its end; how many bytes."""
    total = 0
    while data := os.read(fd, 65536):
        total += len(data)
    return total
