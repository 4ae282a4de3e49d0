"""Replies and messages of other servers and gateways, byte by byte."""

import base64
import hashlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from procd.cli.failure import Refused, Unreachable
from procd.cli.transport import Client, parse
from procd.cli.websocket import BINARY, TEXT, Closed, Message, WebSocket, wait
from tests.cli.conftest import Cli

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# What a server with HTTP, but not procd's API, may answer to everything.
PAGES = {"html": b"<html>app</html>", "nothing": b"", "null": b"null", "number": b"5"}
COMMANDS = [
    ["ps"], ["ps", "--json"], ["sessions"], ["sessions", "--json"], ["logs", "s"],
    ["logs", "--json", "s", "c"], ["input", "s", "c", "x"], ["kill", "x"], ["kill", "s", "c"],
    ["exec", "--", "true"], ["run", "--language", "python", "-"], ["python"],
    ["record", "w", "FILE"],
]  # fmt: skip


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A frame as a server sends it."""
    head = bytes([0x80 * final | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return head + b"\x7f" + struct.pack("!Q", len(payload)) + payload


Serve = Callable[[bytes], Client]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Make a server that answers every request with these bytes, and its client.

    `ACCEPT` in them becomes the answer to a WebSocket's key.
    """
    listeners: list[tuple[socket.socket, threading.Thread]] = []

    def make(reply: bytes) -> Client:
        listener = socket.create_server(("127.0.0.1", 0))

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    request = connection.recv(65536)
                    key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
                    digest = hashlib.sha1((key[1] if key else b"") + GUID).digest()
                    connection.sendall(reply.replace(b"ACCEPT", base64.b64encode(digest)))

        thread = threading.Thread(target=answer)
        thread.start()
        listeners.append((listener, thread))
        return Client(parse(f"http://127.0.0.1:{listener.getsockname()[1]}"))

    yield make
    for listener, thread in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    ("reply", "lasts"),
    [
        (b"1 200 OK\r\nContent-Length: 7\r\n\r\n[1, 22]", True),
        (b"1 200 OK\r\ncontent-length:7\r\nX: y\r\n\r\n[1, 22]", True),
        (
            b"1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\n[1,\r\n4;x=y\r\n 22]\r\n0\r\nT: t\r\n\r\n",
            True,
        ),
        (b"1 200 OK\r\nConnection: X, Close\r\nContent-Length: 7\r\n\r\n[1, 22]", False),
        (b"0 200 OK\r\nContent-Length: 7\r\n\r\n[1, 22]", False),
        (b"1 200 OK\r\n\r\n[1, 22]", False),
        (
            b"1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[1, 22]",
            True,
        ),
    ],
)
def test_replies(serve: Serve, reply: bytes, lasts: bool) -> None:
    client = serve(b"HTTP/1." + reply)
    connection = client.start("GET", "/")
    assert client.finish(connection) == [1, 22]
    assert connection.reusable == lasts
    connection.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1]",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n[1]",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n17",
        b"HTTP/1.1 \xb2\xb2\xb2 OK\r\nContent-Length: 3\r\n\r\n[1]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[1]",
        b"220 ready\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + bytes(100_000),
    ],
)
def test_broken_replies(serve: Serve, reply: bytes) -> None:
    with pytest.raises(Unreachable):
        serve(reply).call("GET", "/")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b'{"message": "no such thing"}', "no such thing"),
        (
            500,
            b'{"message": "no \\u001b]0;title\\u0007\\u009b2J\\nsuch\\u202e thing"}',
            "no  ]0;title  2J such  thing",
        ),
        (500, b'{"message": [5]}', "[5]"),
        (429, b"<html>", "the server answered 429"),
        (502, b"<html>", "the server answered 502"),
        (503, b"<html>", "the server answered 503"),
        (504, b"<html>", "the server answered 504"),
    ],
)
def test_errors(serve: Serve, status: int, body: bytes, message: str) -> None:
    """The text of others commands no terminal; a gateway's status means that its server is away."""
    head = b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    client = serve(head % (status, len(body)) + body)
    for call in (lambda: client.call("GET", "/"), lambda: client.websocket("/")):
        with pytest.raises(Unreachable if b"<" in body else Refused) as caught:
            call()
        assert str(caught.value) == caught.value.message == message
        if isinstance(caught.value, Refused):
            assert caught.value.status == status


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_command_at_a_server_that_is_not_procd(
    serve: Serve, home: str, tmp_path: Path, page: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(page)
    cli = Cli(serve(head + page).target.url, home)
    file = str(tmp_path / "x.cast")
    message = f"procd: {cli.url} doesn't speak procd's API: say where procd is with --url"
    for words in COMMANDS:
        result = cli(*(file if word == "FILE" else word for word in words), stdin=b"1")
        assert result.returncode == (125 if words[0] == "exec" else 1), words
        assert (result.stdout, result.stderr.decode()) == (b"", f"{message} or PROCD_URL\n"), words


def test_a_server_without_http(serve: Serve, home: str) -> None:
    cli = Cli(serve(b"SSH-2.0-x\r\n\r\n").target.url, home)
    result = cli("ps")
    assert result.returncode == 1
    assert result.stderr == f"procd: {cli.url} doesn't speak HTTP\n".encode()


@pytest.mark.parametrize("reply", [b"200 OK\r\nContent-Length: 2\r\n\r\n{}", b"101 X\r\n\r\n"])
def test_a_server_without_websockets(serve: Serve, reply: bytes) -> None:
    with pytest.raises(Unreachable, match="doesn't speak WebSocket"):
        serve(b"HTTP/1.1 " + reply).websocket("/x")


ACCEPTED = b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n"
MESSAGES = [
    Message(TEXT, b"one"),
    Message(BINARY, b""),
    Message(BINARY, bytes(300)),
    Message(BINARY, b"in two parts"),
    Message(BINARY, b"x" * 70_000),
]
STREAM = (
    frame(TEXT, b"one")
    + frame(BINARY, b"")
    + frame(BINARY, bytes(300))
    + frame(BINARY, b"in ", final=False)
    + frame(9, b"ping")
    + frame(0, b"two ", final=False)
    + frame(0, b"parts")
    + frame(BINARY, b"x" * 70_000)
    + frame(8, struct.pack("!H", 1008) + b"why")
)


def receive_all(websocket: WebSocket) -> list[Message]:
    """Receive until the server has closed."""
    messages = []
    while websocket.closed is None:
        wait(websocket, ())
        messages += websocket.receive()
    return messages


def test_messages_right_behind_the_handshake(serve: Serve) -> None:
    websocket = serve(ACCEPTED + STREAM).websocket("/")
    assert receive_all(websocket) == MESSAGES
    assert websocket.closed == Closed(1008, "why")
    websocket.close()


def test_a_message_that_is_too_large(serve: Serve) -> None:
    websocket = serve(ACCEPTED + b"\x82\x7f" + struct.pack("!Q", 1 << 40)).websocket("/")
    with pytest.raises(Unreachable, match="too large"):
        receive_all(websocket)
    websocket.close()
