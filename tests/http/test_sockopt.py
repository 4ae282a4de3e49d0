"""What the kernel is told of how to send. Source: tcp(7)."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web

from procd.http.sockopt import PLAINEST, UNSENT_BYTES, limit_unsent, spare_pacing
from tests.aliases import MakeClient

AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


def congestion_control(sock: socket.socket) -> bytes:
    """That of a connection."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


@pytest.fixture
def another() -> bytes:
    """One that isn't what a client of this machine gets."""
    others = {*AVAILABLE.read_bytes().split()} - {PLAINEST}
    if not others:
        pytest.skip("the kernel has no other congestion control")
    return min(others)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Closes what a test has opened."""
    with ExitStack() as stack:
        yield stack


def accepted(closing: ExitStack, host: str, control: bytes) -> socket.socket:
    """The server's end of a connection, with this congestion control."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = closing.enter_context(socket.create_server((host, 0), family=family))
    except OSError:
        pytest.skip("no IPv6 here")
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control)
    closing.enter_context(socket.create_connection(server.getsockname()[:2]))
    return closing.enter_context(server.accept()[0])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1"])
def test_who_is_on_this_machine(closing: ExitStack, another: bytes, host: str) -> None:
    """By whichever of its own addresses."""
    sock = accepted(closing, host, another)
    spare_pacing(sock, sock.getpeername())
    assert congestion_control(sock) == PLAINEST


@pytest.mark.parametrize("peername", [("192.0.2.127", 80), ("2001:db8::1", 80, 0, 0), "unix", None])
def test_who_is_not(closing: ExitStack, another: bytes, peername: object) -> None:
    """They keep what the system has."""
    sock = accepted(closing, "127.0.0.1", another)
    spare_pacing(sock, peername)
    assert congestion_control(sock) == another


def test_who_has_gone(closing: ExitStack) -> None:
    """Nothing is left to be told."""
    sock = closing.enter_context(socket.socket())
    sock.close()
    spare_pacing(sock, ("127.0.0.1", 80))
    limit_unsent(sock)


def test_unsent(closing: ExitStack) -> None:
    """As much as is said; a unix socket has no such limit."""
    with socket.socket() as sock:
        limit_unsent(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES
    with socket.socket(socket.AF_UNIX) as sock:
        limit_unsent(sock)


async def test_a_clients_connection(procd: MakeClient, another: bytes) -> None:
    """It is told when it is made."""
    client = await procd()
    runner = client.server.runner
    assert isinstance(runner, web.AppRunner)
    assert runner.server is not None
    for site in runner.sites:
        server = cast("asyncio.Server", site._server)  # uvloop's isn't one
        for listening in server.sockets:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, another)
    assert (await client.get("/version")).status == 200
    (connection,) = runner.server.connections
    assert connection.transport is not None
    assert congestion_control(connection.transport.get_extra_info("socket")) == PLAINEST
