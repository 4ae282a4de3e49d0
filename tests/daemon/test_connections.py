"""Too many connections: the idle go for new ones, and where none is idle procd says how it is."""

import asyncio
import resource
import socket
from contextlib import ExitStack

import aiohttp

from tests.daemon.conftest import Start
from tests.daemon.daemon import PATIENCE_S, PROCD, Daemon

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connected(daemon: Daemon) -> socket.socket:
    """A connection that says nothing yet."""
    return socket.create_connection((daemon.host, daemon.port), timeout=PATIENCE_S)


def answers(connection: socket.socket) -> bool:
    """Whether it is served."""
    connection.sendall(HEALTH)
    return connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_the_longest_idle_goes_first(start: Start) -> None:
    daemon = start(env={"PROCD_SERVER_MAX_CONNECTIONS": "3"})
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(connected(daemon)) for _ in range(3))
        assert answers(second)
        assert answers(third)
        assert answers(first), "which is the last to have been of use"
        newcomers = [stack.enter_context(connected(daemon)) for _ in range(2)]
        assert second.recv(1) == b""
        assert third.recv(1) == b""
        assert all(answers(each) for each in (first, *newcomers))


async def test_none_is_idle(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start(env={"PROCD_SERVER_MAX_CONNECTIONS": "2"})
    url = f"{daemon.url}/process/pty/create-connect?id="
    async with http.ws_connect(f"{url}a") as one:
        assert (await one.receive_json())["status"] == "connected"
        async with http.ws_connect(f"{url}b") as two:
            assert (await two.receive_json())["status"] == "connected"
            # Each by a connection of its own, which is then closed.
            for path in ("/healthz", "/readyz"):
                async with http.get(f"{daemon.url}{path}") as reply:
                    assert reply.status == 200
                    assert reply.headers["Connection"] == "close"
            async with http.get(f"{daemon.url}/version") as reply:
                body = await reply.json()
                assert (reply.status, body["code"]) == (429, "LIMIT_REACHED")
                assert body["message"] == "limit of 2 connections is reached"
            # Who only sits there does so in the place of others of the kind.
            with ExitStack() as stack:
                silent = [stack.enter_context(connected(daemon)) for _ in range(40)]
                async with http.get(f"{daemon.url}/healthz") as reply:
                    assert reply.status == 200
                assert silent[0].recv(1) == b""
            await two.send_bytes(b"echo st''ill\n")
            async with asyncio.timeout(PATIENCE_S):
                while b"still" not in (await two.receive()).data:
                    continue

    async def served() -> bool:
        async with http.get(f"{daemon.url}/version") as reply:
            return reply.status == 200

    async with asyncio.timeout(PATIENCE_S):
        while not await served():
            continue


async def test_more_than_there_are_descriptors_for(
    start: Start, http: aiohttp.ClientSession
) -> None:
    daemon = start(command=("sh", "-c", 'ulimit -n 200; exec "$@"', "sh", *PROCD))
    assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (200, 200)
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(daemon))
        for _ in range(3):
            async with http.get(f"{daemon.url}/healthz") as reply:
                assert reply.status == 200
        async with http.post(f"{daemon.url}/process/execute", json={"command": "echo on"}) as reply:
            assert (await reply.json())["stdout"] == "on\n"
    assert len(daemon.stderr().splitlines()) < 5, daemon.stderr()
