"""Clients that vanish at any point: nothing of them stays, and the others are served."""

import asyncio
import json
import socket
import struct

import aiohttp
import pytest

from tests.daemon.conftest import Start
from tests.daemon.daemon import Daemon

COMMAND = json.dumps({"command": "head -c 3000000 /dev/zero; sleep 0.1"}).encode()
HEAD = b"POST /process/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
WHOLE = HEAD % len(COMMAND) + COMMAND
UPGRADE = (
    b"GET /process/pty/t/connect HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
STAGES = {
    "connect": (b"", 0),
    "head": (WHOLE[:30], 0),
    "body": (WHOLE[:-5], 0),
    "command": (WHOLE, 0),
    "reply": (WHOLE, 1000),
    "pipelined": (WHOLE * 3, 1000),
    "handshake": (UPGRADE, 0),
    "terminal": (UPGRADE, 200),
    "frame": (UPGRADE + b"\x82\xff\0\0", 200),
    "garbage": (b"GARBAGE\r\n\r\n", 0),
}


def vanish(daemon: Daemon, sent: bytes, received: int, *, reset: bool) -> None:
    """Connect, send and receive so much, and go."""
    with socket.create_connection((daemon.host, daemon.port)) as client:
        client.sendall(sent)
        while received > 0:
            received -= len(client.recv(received))
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_clients_that_vanish(
    start: Start, http: aiohttp.ClientSession, *, reset: bool
) -> None:
    daemon = start()
    async with http.post(f"{daemon.url}/process/pty", json={"id": "t"}) as reply:
        assert reply.status == 201
    before = daemon.idle_descriptors()
    for sent, received in STAGES.values():
        for _ in range(3):
            await asyncio.to_thread(vanish, daemon, sent, received, reset=reset)
        async with http.get(f"{daemon.url}/version") as reply:
            assert reply.status == 200
    assert not await asyncio.to_thread(daemon.leaks, before, 1)
    assert "Traceback" not in daemon.stderr()
    assert daemon.stop() == 0
