"""The client's own HTTP and WebSocket, against bytes as other servers may send them."""

import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.cli.client import Client
from procd.cli.failure import Refused, Unreachable
from procd.cli.target import parse
from procd.cli.websocket import BINARY, TEXT, Closed, Message, WebSocket

TARGET = parse("http://h")


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A frame as a server sends it."""
    head = bytes([0x80 * final | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return head + b"\x7f" + struct.pack("!Q", len(payload)) + payload


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
MESSAGES = [
    Message(TEXT, b"one"),
    Message(BINARY, b""),
    Message(BINARY, bytes(300)),
    Message(BINARY, b"in two parts"),
    Message(BINARY, b"x" * 70_000),
]


def unmasked(data: bytes) -> list[tuple[int, bytes]]:
    """The short frames that a client sent."""
    frames = []
    while data:
        size = data[1] & 0x7F
        assert data[1] & 0x80
        mask, body = data[2:6], data[6 : 6 + size]
        frames.append((data[0] & 15, bytes(byte ^ mask[at % 4] for at, byte in enumerate(body))))
        data = data[6 + size :]
    return frames


@given(st.lists(st.integers(0, len(STREAM)), max_size=5))
def test_frames_in_any_cut(cuts: list[int]) -> None:
    client, server = socket.socketpair()
    with server:
        places = sorted({0, *cuts, len(STREAM)})
        websocket = WebSocket(TARGET, client, STREAM[: places[1]])
        messages = websocket.receive()
        for begin, end in pairwise(places[1:]):
            server.sendall(STREAM[begin:end])
            messages += websocket.receive()
        assert messages == MESSAGES
        assert websocket.closed == Closed(1008, "why")
        answers = [(10, b"ping"), (8, struct.pack("!H", 1008))]
        assert unmasked(server.recv(1000)) == answers
        websocket.close()


def test_what_is_sent_waits_for_room() -> None:
    client, server = socket.socketpair()
    with server:
        websocket = WebSocket(TARGET, client, b"")
        sent = bytes(range(256)) * 8192
        websocket.send(sent)
        assert websocket.events & select.POLLOUT
        assert websocket.full
        data = bytearray()
        while websocket.events & select.POLLOUT:
            data += server.recv(1 << 20)
            websocket.flush()
        while len(data) < 14 + len(sent):
            data += server.recv(1 << 20)
        mask = data[10:14] * (len(sent) // 4)
        assert bytes(a ^ b for a, b in zip(data[14:], mask, strict=True)) == sent
        websocket.close()


@pytest.mark.parametrize(
    "sent",
    [
        frame(BINARY, b"")[:1] + b"\x7f" + struct.pack("!Q", 1 << 40),
        frame(BINARY, bytes(1000), final=False) + b"\x80\x7f" + struct.pack("!Q", 64 << 20),
    ],
    ids=["at once", "in parts"],
)
def test_a_message_too_large_is_not_waited_for(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        websocket = WebSocket(TARGET, ours, b"")
        theirs.sendall(sent)
        with pytest.raises(Unreachable, match="too large"):
            websocket.receive()
        websocket.close()


def test_an_end_without_a_close_is_a_loss() -> None:
    client, server = socket.socketpair()
    websocket = WebSocket(TARGET, client, b"")
    server.sendall(frame(BINARY, b"last") + b"\x82")
    server.close()
    assert websocket.receive() == [Message(BINARY, b"last")]
    with pytest.raises(Unreachable, match="broke"):
        websocket.receive()
    websocket.close()


Answer = Callable[[bytes], Client]


@pytest.fixture
def answers() -> Iterator[Answer]:
    """A server that answers one request with these bytes, and its client."""
    made: list[tuple[socket.socket, threading.Thread, Client]] = []

    def make(data: bytes) -> Client:
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            one, _ = listener.accept()
            with one:
                one.recv(65536)
                one.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        client = Client(parse(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        made.append((listener, thread, client))
        return client

    yield make
    for listener, thread, client in made:
        thread.join()
        listener.close()
        client.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"Content-Length: 7\r\n\r\n[1, 22]",
        b"content-length:7\r\nX: y\r\n\r\n[1, 22]",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n4;x=y\r\n 22]\r\n0\r\nT: t\r\n\r\n",
        b"Connection: close\r\n\r\n[1, 22]",
        b"\r\n[1, 22]",
    ],
)
def test_bodies(answers: Answer, reply: bytes) -> None:
    assert answers(b"HTTP/1.1 200 OK\r\n" + reply).call("GET", "/") == [1, 22]


def test_a_reply_that_is_announced(answers: Answer) -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    data += b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7"
    assert answers(data).call("GET", "/") == 7


@pytest.mark.parametrize(
    ("reply", "lasts"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1", True),
        (b"HTTP/1.1 200 OK\r\nConnection: X\r\nContent-Length: 1\r\n\r\n1", True),
        (b"HTTP/1.1 200 OK\r\nConnection: X, Close\r\nContent-Length: 1\r\n\r\n1", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1", False),
        (b"HTTP/1.1 200 OK\r\n\r\n1", False),
    ],
)
def test_connections_that_last(answers: Answer, reply: bytes, lasts: bool) -> None:
    client = answers(reply)
    connection = client.start("GET", "/")
    assert client.finish(connection) == 1
    assert connection.reusable == lasts


def test_no_content(answers: Answer) -> None:
    assert answers(b"HTTP/1.1 204 No Content\r\n\r\n").call("GET", "/") is None


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
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n1\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[1]",
        b"220 ready\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + bytes(100_000),
    ],
)
def test_broken_replies(answers: Answer, reply: bytes) -> None:
    with pytest.raises(Unreachable):
        answers(reply).call("GET", "/")


def test_refusals(answers: Answer) -> None:
    body = b'{"message": "no such thing"}'
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body)
    with pytest.raises(Refused, match="no such thing") as caught:
        answers(head + body).call("GET", "/")
    assert caught.value.status == 404
    with pytest.raises(Refused, match="no such thing"):
        answers(head + body).websocket("/x")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            b'"no \\u001b]0;title\\u0007\\u009b2J\\nsuch\\u202e thing"',
            "no  ]0;title  2J such  thing",
        ),
        (b"[5]", "[5]"),
    ],
)
def test_a_refusal_commands_no_terminal(answers: Answer, message: bytes, shown: str) -> None:
    body = b'{"message": %s}' % message
    head = b"HTTP/1.1 500 X\r\nContent-Length: %d\r\n\r\n" % len(body)
    with pytest.raises(Refused) as caught:
        answers(head + body).call("GET", "/")
    assert str(caught.value) == caught.value.message == shown


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_without_its_server(answers: Answer, status: int) -> None:
    page = b"HTTP/1.1 %d Why\r\nContent-Length: 6\r\n\r\n<html>" % status
    with pytest.raises(Unreachable, match=f"the server answered {status}"):
        answers(page).call("GET", "/")
    with pytest.raises(Unreachable, match=f"the server answered {status}"):
        answers(page).websocket("/x")


def test_no_websocket(answers: Answer) -> None:
    with pytest.raises(Unreachable, match="doesn't speak WebSocket"):
        answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").websocket("/x")
    with pytest.raises(Unreachable, match="doesn't speak WebSocket"):
        answers(b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: bad\r\n\r\n").websocket("/x")
