"""A procd that stands still for a while, as its sandbox may: it hears nobody, who all are there."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from procd.api.interpreter import CONTEXTS
from procd.api.pty import PTYS
from procd.api.pty_protocol import PROTOCOL
from procd.api.sessions import SESSIONS
from procd.http import connection, websocket
from procd.http.websocket import WEBSOCKETS
from procd.services.shell.command import State
from tests.aliases import MakeClient
from tests.api import sessions
from tests.api.cells import said, start
from tests.api.clients import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Fifo,
    Gate,
    connect,
    create,
    execute,
    listed,
    program,
    raw,
)
from tests.api.test_pty_attach import end_session, later
from tests.http.test_websocket import closed_with, masked
from tests.waiting import until

PATIENCE_S = 0.5
STANDSTILL_S = 2.0


async def test_a_terminal(procd: MakeClient, tmp_path: Path) -> None:
    shell = program(tmp_path, "stty raw -echo; exec cat")
    client = await procd(
        process={"shell": shell}, server={"ping_s": 0.1, "dead_peer_s": PATIENCE_S}
    )
    await create(client, "t1")
    async with raw(client) as quiet:
        await quiet.upgrade("/process/pty/t1/connect")
        await quiet.send_frame(PONG, await quiet.next(PING))
        await listed(client)  # by then it was heard
        time.sleep(STANDSTILL_S)
        for _ in range(3):
            await quiet.send_frame(PONG, await quiet.next(PING))
        await quiet.send_frame(BINARY, b"alive")
        assert await quiet.output(5) == b"alive"
        time.sleep(STANDSTILL_S)
        await quiet.rest()  # as it answers no more


async def test_a_client_that_was_sent_away(procd: MakeClient) -> None:
    client = await procd(server={"ping_s": 0.1, "dead_peer_s": PATIENCE_S})
    await create(client, "t1")
    async with raw(client) as slow:
        await slow.upgrade("/process/pty/t1/connect", f"Sec-WebSocket-Protocol: {PROTOCOL}")
        await slow.send_frame(TEXT, b"nonsense")
        assert await closed_with(slow) == 1002
        time.sleep(STANDSTILL_S)
        await listed(client)
        await slow.send_frame(CLOSE, b"")
        assert await slow.rest() == b""
    assert client.app[WEBSOCKETS].dropped["silent"] == 0


async def test_a_reply(procd: MakeClient) -> None:
    client = await procd(server={"dead_peer_s": 2 * PATIENCE_S})
    body = json.dumps({"command": "head -c 9000000 /dev/zero | tr '\\0' z"}).encode()
    head = f"POST /process/execute HTTP/1.1\nConnection: close\nContent-Length: {len(body)}"
    async with raw(client, receive_bytes=4096, ahead_bytes=1000) as slow:
        await slow.request(head, body)
        assert (await slow.head())[0] == 200
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_S  # it is known then that it takes no more
        while loop.time() < end:
            await listed(client)
        time.sleep(STANDSTILL_S)
        await listed(client)
        assert (await slow.rest()).count(b"z") == 9_000_000


async def test_a_request(procd: MakeClient) -> None:
    client = await procd(server={"body_s": PATIENCE_S})
    body = b'{"command": "echo here"}'
    async with raw(client) as slow:
        head = f"POST /process/execute HTTP/1.1\nConnection: close\nContent-Length: {len(body)}"
        await slow.request(head, body[:10])
        await execute(client, ":")
        time.sleep(STANDSTILL_S)
        await slow.send(body[10:])
        assert (await slow.head())[0] == 200
        assert b"here" in await slow.rest()


async def test_who_sends_no_more(
    procd: MakeClient, alive: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is answered if that takes a moment, of which the standstill isn't part."""
    monkeypatch.setattr(connection, "HALF_CLOSE_S", PATIENCE_S)
    client = await procd()
    body = json.dumps({"command": f"exec 9>{alive}; echo begun >&9; sleep 0.1; echo here"}).encode()
    async with raw(client) as rude:
        await rude.request(f"POST /process/execute HTTP/1.1\nContent-Length: {len(body)}", body)
        rude.end_input()
        assert await alive.line() == "begun"
        time.sleep(STANDSTILL_S)
        assert b"here" in await rude.rest()


async def test_a_first_message(procd: MakeClient) -> None:
    client = await procd(interpreter={"first_message_s": PATIENCE_S})
    async with raw(client) as slow:
        await slow.upgrade("/process/interpreter/execute")
        time.sleep(STANDSTILL_S)
        await slow.send_frame(TEXT, b'{"code": "print(7)"}')
        assert b"7" in await slow.next(TEXT)


async def test_the_rest_of_what_is_too_long(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "SILENCE_S", PATIENCE_S)
    client = await procd(pty={"max_message_bytes": 4096})
    await create(client, "t1")
    connections = client.app[WEBSOCKETS]
    async with raw(client) as slow:
        await slow.upgrade("/process/pty/t1/connect")
        await slow.send(masked(0x82, 1 << 20))
        assert await closed_with(slow) == 1009
        time.sleep(STANDSTILL_S)
        await listed(client)
        assert len(connections) == 1
        await slow.send(bytes(1 << 20))
        await slow.send_frame(CLOSE, b"")
        await until(lambda: not len(connections))


async def test_code_that_cleans_up(procd: MakeClient, alive: Fifo, gate: Gate) -> None:
    """It has its time of grace, if all stands still meanwhile."""
    client = await procd(interpreter={"grace_s": PATIENCE_S})
    code = f"""
import time
try:
    time.sleep(60)
finally:
    state = "kept"
    print("up", file=open({str(alive)!r}, "w"), flush=True)
    open({str(gate)!r}).readline()
"""
    cell = await start(client, code, timeout=3)
    assert await alive.line() == "up"
    time.sleep(STANDSTILL_S)
    await listed(client)
    gate.open()
    await cell.to_end()
    assert cell.close == (4008, "")
    assert await said(client, "print(state)") == "kept\n"


async def test_a_terminal_that_has_ended(procd: MakeClient, tmp_path: Path, gate: Gate) -> None:
    """Who lost it meanwhile gets the rest of it, and how it ended."""
    shell = program(tmp_path, later(gate, "printf rest; exit 3"))
    client = await procd(process={"shell": shell}, pty={"linger_s": PATIENCE_S})
    await create(client, "t1")
    seen = await end_session(client, "t1", gate)
    time.sleep(STANDSTILL_S)
    await listed(client)
    resumed = await connect(client, "t1", "?offset=0")
    assert await resumed.to_end() == seen.close
    assert resumed.output == b"rest"
    assert client.app[PTYS].all()
    await until(lambda: not client.app[PTYS].all())


async def test_an_idle_context(procd: MakeClient) -> None:
    client = await procd(interpreter={"idle_ttl_s": PATIENCE_S})
    assert not await said(client, "state = 'kept'")
    time.sleep(STANDSTILL_S)
    await listed(client)
    assert await said(client, "print(state)") == "kept\n"
    await until(lambda: client.app[CONTEXTS].get("default").pid is None)


async def test_a_shell_that_leaves_a_command(
    procd: MakeClient, gate: Gate, alive: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its time to, if all stands still meanwhile, and is kept."""
    monkeypatch.setattr("procd.services.shell.command.KILL_WAIT_S", PATIENCE_S)
    client = await procd(sessions={"grace_s": 0.0})
    await sessions.create(client)
    await sessions.run(client, "state=kept")
    script = f"trap '' URG; echo up >{alive}; read x <{gate}; echo left"
    command_id = await sessions.start(client, script)
    assert await alive.line() == "up"
    command = client.app[SESSIONS].get("s").commands.get(command_id)
    async with asyncio.TaskGroup() as group:
        group.create_task(sessions.terminate(client, command_id))
        await until(lambda: command.state is State.LEAVING)
        time.sleep(STANDSTILL_S)
        await listed(client)
        gate.open()
    assert (await sessions.ended(client, command_id))["exitCode"] == 143
    assert (await sessions.run(client, "echo $state"))["output"] == "kept\n"
