"""Too many connections: the idle go for new ones, and where none is idle procd says how it is."""

import asyncio
import json
import resource
import select
import socket
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path

import aiohttp
import pytest

from tests.daemon.conftest import Start
from tests.daemon.daemon import PATIENCE_S, PROCD, Daemon, descriptors, eventually

TOKEN = "a" * 40
VERSION = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
# More than the kernel takes in the place of who reads nothing.
PAGES = b"GET /terminal/static/vendor/xterm.mjs HTTP/1.1\r\nHost: localhost\r\n\r\n" * 12
LONG = b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + b"".join(
    b"X-%d: %b\r\n" % (number, b"x" * 120_000) for number in range(3)
)
MEGABYTE = 1 << 20
FEW_STRANGERS = {"PROCD_AUTH_TOKEN": TOKEN, "PROCD_SERVER_MAX_STRANGERS_BYTES": str(MEGABYTE)}
REFUSED = b"POST /process/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
BEGUN = b"POST /process/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"


def connected(daemon: Daemon) -> socket.socket:
    return socket.create_connection((daemon.host, daemon.port), timeout=PATIENCE_S)


def answers(connection: socket.socket) -> bool:
    connection.sendall(VERSION)
    return connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_the_longest_idle_goes_first(start: Start) -> None:
    daemon = start(env={"PROCD_SERVER_MAX_CONNECTIONS": "3"})
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(connected(daemon)) for _ in range(3))
        for each in second, third, first:
            assert answers(each)
        newcomers = [stack.enter_context(connected(daemon)) for _ in range(2)]
        assert all(answers(each) for each in newcomers)
        assert second.recv(1) == b""
        assert third.recv(1) == b""
        assert all(answers(each) for each in (first, *newcomers))


async def test_none_is_idle(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start(env={"PROCD_SERVER_MAX_CONNECTIONS": "2"})
    url = f"{daemon.url}/process/pty/create-connect?id="
    async with http.ws_connect(f"{url}a") as one, http.ws_connect(f"{url}b") as two:
        for each in one, two:
            assert (await each.receive_json())["status"] == "connected"
        full = ["limit of 2 connections is reached"]
        for path, status, reasons in ("/healthz", 200, None), ("/readyz", 503, full):
            async with http.get(f"{daemon.url}{path}") as reply:
                assert reply.status == status
                assert (await reply.json()).get("reasons") == reasons
        async with http.get(f"{daemon.url}/version") as reply:
            body = await reply.json()
            assert (reply.status, body["code"]) == (429, "LIMIT_REACHED")
            assert reply.headers["Connection"] == "close"
            assert body["message"] == "limit of 2 connections is reached"
        with ExitStack() as stack:  # a silent newcomer takes the place of another one
            silent = [stack.enter_context(connected(daemon)) for _ in range(300)]
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


async def test_whoever_comes_at_once_gets_an_answer(start: Start, tmp_path: Path) -> None:
    """No command runs whose client gets none: it would send it again."""
    daemon = start(env={"PROCD_SERVER_MAX_CONNECTIONS": "5"})
    script = f"echo ran >>{tmp_path}/ran; echo said"
    body = json.dumps({"command": script}).encode()
    head = (
        f"POST /process/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with ExitStack() as stack:
        crowd = [stack.enter_context(connected(daemon)) for _ in range(40)]
        for connection in crowd:
            connection.sendall(head.encode() + body)
        statuses = [int(connection.recv(4096).split()[1]) for connection in crowd]
    assert set(statuses) in ({200}, {200, 429})  # some may have the places of those answered
    assert (tmp_path / "ran").read_text() == "ran\n" * statuses.count(200)


async def test_who_is_told_to_go_has_not_asked(start: Start, tmp_path: Path) -> None:
    """Clients that keep their connections, and more of them than there may be connections."""
    daemon = start(env={"PROCD_SERVER_MAX_CONNECTIONS": "8"})

    async def work(client: int) -> list[str]:
        answered = []
        async with aiohttp.ClientSession() as own:
            for number in range(20):
                name = f"{client}.{number}"
                command = {"command": f"echo {name} >>{tmp_path}/ran"}
                try:
                    async with own.post(f"{daemon.url}/process/execute", json=command) as reply:
                        assert reply.status in (200, 429)
                        answered += [name] if reply.status == 200 else []
                except aiohttp.ClientConnectionError:
                    continue  # as it asked it was idle, and told to go
        return answered

    answered = [*chain(*await asyncio.gather(*(work(client) for client in range(20))))]
    assert answered
    assert sorted((tmp_path / "ran").read_text().split()) == sorted(answered)


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
            assert (await reply.json())["result"] == "on\n"
    assert len(daemon.stderr().splitlines()) < 5, daemon.stderr()


async def test_work_and_half_a_request_of_many_leave_room_for_health(
    start: Start, http: aiohttp.ClientSession
) -> None:
    daemon = start(command=("sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *PROCD))
    for number in range(80):
        session = {"sessionId": f"s{number}"}
        async with http.post(f"{daemon.url}/process/session", json=session) as reply:
            if reply.status != 201:
                break  # no descriptors are left for work
    else:
        raise AssertionError("there was room for all of them")
    with ExitStack() as stack:
        crowd = [stack.enter_context(connected(daemon)) for _ in range(120)]
        for each in crowd:
            with suppress(ConnectionError):
                each.sendall(BEGUN)
        # Where there is no descriptor for one, it is closed, as are those that wait behind it.
        assert eventually(lambda: len(select.select(crowd, [], [], 0)[0]) > 20)

        def healthy() -> bool:
            with suppress(OSError), connected(daemon) as probe:
                probe.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return probe.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
            return False

        assert await asyncio.to_thread(eventually, healthy)


def stranger(daemon: Daemon, request: bytes) -> socket.socket:
    """A connection on which answers are on their way, of which nobody takes more than a byte."""
    connection = socket.socket()
    connection.settimeout(PATIENCE_S)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect((daemon.host, daemon.port))
    connection.sendall(request)
    assert connection.recv(1) == b"H"
    return connection


@pytest.mark.parametrize("request_", [PAGES, REFUSED, b""], ids=["unread", "refused", "silent"])
async def test_strangers_shut_nobody_out(start: Start, request_: bytes) -> None:
    """Whether they don't read their replies, stay when they are refused, or say nothing."""
    daemon = start(env={"PROCD_SERVER_MAX_CONNECTIONS": "3", "PROCD_AUTH_TOKEN": TOKEN})
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with ExitStack() as stack:
        for _ in range(8):
            for _ in range(40):
                each = stack.enter_context(connected(daemon))
                if request_:
                    each.sendall(request_)
            async with (
                aiohttp.ClientSession(headers=headers) as http,
                http.get(f"{daemon.url}/version") as reply,
            ):
                assert reply.status == 200
                assert reply.headers.get("Connection") != "close"


async def test_who_has_a_token_may_take_its_time(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start(env={"PROCD_SERVER_MAX_CONNECTIONS": "2", "PROCD_AUTH_TOKEN": TOKEN})
    body = json.dumps({"command": "head -c 20000000 /dev/zero | tr '\\0' x"}).encode()
    head = (
        "POST /process/execute HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with stranger(daemon, head.encode() + body) as slow:
        for _ in range(20):
            async with http.get(f"{daemon.url}/healthz") as reply:
                assert reply.status == 200
        received = 0
        while data := slow.recv(1 << 20):
            received += data.count(b"x")
        assert received >= 20_000_000


async def test_unfinished_requests_of_strangers_have_a_limit(start: Start) -> None:
    """Those with most are closed; not one with little, nor one that has shown a token before."""
    daemon = start(env=FEW_STRANGERS)
    authorization = f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    with ExitStack() as stack:
        known, short = (stack.enter_context(connected(daemon)) for _ in range(2))
        known.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + authorization)
        assert known.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        known.sendall(LONG)
        short.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n")
        strangers = [stack.enter_context(connected(daemon)) for _ in range(10)]
        for each in strangers:
            with suppress(ConnectionError):
                each.sendall(LONG)
        told: set[socket.socket] = set()

        def few_are_left() -> bool:
            told.update(select.select(strangers, [], [], 0)[0])
            return len(strangers) - len(told) <= MEGABYTE // len(LONG)

        assert eventually(few_are_left)
        for each in known, short:
            each.sendall(authorization)
            assert each.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("more", [b"", LONG + b"\r\n"], ids=["answers", "requests"])
async def test_what_strangers_do_not_take_has_a_limit(start: Start, more: bytes) -> None:
    daemon = start(env=FEW_STRANGERS)
    before = daemon.idle_descriptors()
    with ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(stranger(daemon, PAGES))
            with suppress(ConnectionError):
                connection.sendall(more)
        assert eventually(lambda: len(descriptors(daemon.pid)) < before + 40)


async def test_strangers_leave_with_the_answer_to_much(start: Start) -> None:
    daemon = start(env={"PROCD_AUTH_TOKEN": TOKEN})
    short = b"GET /version HTTP/1.1\r\nHost: localhost\r\n"
    token = f"Authorization: Bearer {TOKEN}\r\n".encode()
    for request, stays in ((short, True), (LONG, False), (LONG + token, True)):
        with connected(daemon) as connection:
            connection.sendall(request + b"\r\n")
            answer = connection.recv(4096)
            assert (b"\r\nConnection: close\r\n" not in answer) == stays
            if stays:
                connection.sendall(VERSION)
            assert connection.recv(1) == (b"H" if stays else b"")


async def test_who_takes_nothing_is_dropped(start: Start) -> None:
    daemon = start(env={"PROCD_SERVER_DEAD_PEER_S": "0.5"})
    before = daemon.idle_descriptors()
    with stranger(daemon, PAGES):
        assert not daemon.leaks(before)
