"""What is over takes no memory with it, though Python's garbage isn't collected for a long time."""

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from procd.api.execute import EXECUTIONS
from procd.api.pty_protocol import PROTOCOL, Attendant
from procd.http.connection import HttpConnection
from procd.http.frame_reader import Incoming
from procd.http.log_sender import Outlet
from procd.http.websocket import Connection
from procd.output.buffer import Buffer
from procd.services.execute import ExecuteRequest, unwatched
from procd.services.pty.input_queue import InputQueue
from procd.services.pty.session import PtyInfo
from tests.aliases import Client, MakeClient
from tests.api.clients import CLOSE, PING, TEXT, WAIT_S, create, delete, json_body, program, raw
from tests.waiting import until

ASK = "POST /process/execute HTTP/1.1\nContent-Length: 60000000\nOrigin: http://a.example"
SIZE = 200_000


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("head", [ASK, "GARBAGE"])
@pytest.mark.usefixtures("uncollected")
async def test_connections(procd: MakeClient, head: str) -> None:
    """Of strangers, too, who may come one after the other."""
    client = await procd()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(5):
            async with raw(client) as stranger:
                await stranger.request(head, bytes(SIZE))
                assert (await stranger.head())[0] in {400, 403}
        await until(lambda: tracemalloc.get_traced_memory()[0] - before < 2 * SIZE)
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("uncollected")
async def test_connections_of_who_sends_no_more(procd: MakeClient) -> None:
    client = await procd()
    async with raw(client) as rude:
        await rude.request("GET /version HTTP/1.1")
        rude.end_input()
        assert b"200 OK" in await rude.rest()
    await until(lambda: not [each for each in gc.get_objects() if type(each) is HttpConnection])


@pytest.mark.usefixtures("uncollected")
async def test_environments_of_terminals(procd: MakeClient) -> None:
    client = await procd()
    envs = {"A": "x" * 1_000_000}
    for lazy in (False, True):
        body = {"id": "t", "envs": envs, "lazyStart": lazy}
        async with client.post("/process/pty", json=body) as reply:
            assert reply.status == 500
    envs = {"A": "x" * 100_000}
    await create(client, "t", envs=envs, lazyStart=True)
    await delete(client, "t")
    long = [each for each in gc.get_objects() if type(each) is PtyInfo and "A" in each.envs]
    assert not long


@pytest.mark.parametrize("way", ["close", "leave", "reset", "end", "take-over"])
@pytest.mark.usefixtures("uncollected")
async def test_clients_of_terminals(procd: MakeClient, tmp_path: Path, way: str) -> None:
    """However they go, or are sent away."""
    shell = program(tmp_path, "stty raw -echo; read x")
    client = await procd(process={"shell": shell})
    await create(client, "t")
    async with raw(client) as terminal:
        await terminal.upgrade("/process/pty/t/connect")
        await terminal.next(PING)
        if way == "close":
            await terminal.send_frame(CLOSE, b"\x03\xe8")
        elif way == "leave":
            await terminal.leave()
        elif way == "reset":
            terminal.reset()
        elif way == "end":
            await delete(client, "t")
        else:
            async with raw(client) as taker:
                token = f"Sec-WebSocket-Protocol: {PROTOCOL}"
                await taker.upgrade("/process/pty/t/connect", token)
                await taker.send_frame(TEXT, b'{"type": "take-over"}')
                await terminal.next(CLOSE)
        if way in ("end", "take-over"):
            await terminal.send_frame(CLOSE, b"\x03\xe8")
    kinds = (Attendant, Connection, Incoming, Outlet, InputQueue)
    await until(lambda: not [each for each in gc.get_objects() if type(each) in kinds])


LONG = f"true #{'x' * SIZE}"
EXECUTE, RUN, SESSION = "/process/execute", "/process/code-run", "/process/session"
CONTEXT = "/process/interpreter/context"


@pytest.mark.parametrize(
    ("path", "document", "status"),
    [
        (EXECUTE, {"command": LONG}, 200),
        (EXECUTE, {"command": LONG, "cwd": "/absent"}, 200),
        (EXECUTE, {"command": "true", "envs": {"A": "x" * SIZE}}, 200),
        (EXECUTE, {"command": f"sleep 60 #{'x' * SIZE}", "timeout": 1}, 408),
        (RUN, {"code": f"#{'x' * SIZE}", "language": "python"}, 200),
        (RUN, {"code": f"#{'x' * SIZE}", "language": "python", "envs": {"A": "x" * SIZE}}, 200),
        (RUN, {"code": f"#{'x' * SIZE}", "language": "none"}, 400),
        (SESSION, {"sessionId": "s", "unknown": "x" * SIZE, "cwd": "/absent"}, None),
        (CONTEXT, {"cwd": "/absent", "language": "python", "unknown": "x" * SIZE}, None),
    ],
)
@pytest.mark.usefixtures("uncollected")
async def test_requests_that_start_something(
    procd: MakeClient, path: str, document: dict[str, Any], status: int | None
) -> None:
    """Or fail to."""
    client = await procd()
    await _leaves_nothing(client, path, document, status)


@pytest.mark.usefixtures("uncollected")
async def test_output(procd: MakeClient) -> None:
    """Though the time of its command is not up for long."""
    client = await procd()
    request = ExecuteRequest(command="echo said", timeout_s=3600)
    before = _backlogs()
    result = await client.app[EXECUTIONS].run(request, unwatched)
    assert result.exit_code == 0
    assert _backlogs() == before + 1
    del result
    await until(lambda: _backlogs() <= before)


def _backlogs() -> int:
    return sum(type(each) is Buffer for each in gc.get_objects())


@pytest.mark.usefixtures("uncollected")
async def test_requests_of_who_leaves(procd: MakeClient) -> None:
    client = await procd()
    executions = client.app[EXECUTIONS]
    body = json_body({"command": f"sleep 60 #{'x' * SIZE}"}).read()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(5):
            async with raw(client) as leaver:
                head = f"POST {EXECUTE} HTTP/1.1\nContent-Length: {len(body)}"
                await leaver.request(head, body)
                await until(lambda: executions.running == 1)
            await until(lambda: not executions.running)
        await until(lambda: tracemalloc.get_traced_memory()[0] - before < 2 * SIZE)
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("uncollected")
async def test_requests_that_there_is_no_room_for(procd: MakeClient) -> None:
    client = await procd(process={"max_processes": 1})
    await create(client, "t")
    for path, document in (
        (EXECUTE, {"command": LONG}),
        (RUN, {"code": f"#{'x' * SIZE}", "language": "python"}),
    ):
        await _leaves_nothing(client, path, document, 429)


async def _leaves_nothing(
    client: Client, path: str, document: dict[str, Any], status: int | None
) -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(5):
            async with (
                asyncio.timeout(WAIT_S),
                client.post(path, data=json_body(document)) as reply,
            ):
                await reply.read()
                assert status is None or reply.status == status
        await until(lambda: tracemalloc.get_traced_memory()[0] - before < 2 * SIZE)
    finally:
        tracemalloc.stop()
