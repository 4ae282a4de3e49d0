"""Many PTY sessions and clients, and the limits to their number."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import WSServerHandshakeError

from tests.api.clients import (
    Fifo,
    Gate,
    Terminal,
    attach,
    connect,
    create,
    delete,
    execute,
    listed,
    program,
    refused,
)
from tests.conftest import MakeClient


async def test_100_sessions_at_once(
    procd: MakeClient, tmp_path: Path, gate: Gate, alive: Fifo
) -> None:
    text = f"echo begun >{alive}; read x <{gate}; echo I am $N; exit $N"
    client = await procd(process={"shell": program(tmp_path, text)})
    terminals: dict[int, Terminal] = {}

    async def begin(number: int) -> None:
        await create(client, f"t{number}", envs={"N": str(number)})
        terminals[number] = await connect(client, f"t{number}")

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(begin(number))
        for _ in range(100):
            assert await alive.line() == "begun"
    gate.open(100)
    async with asyncio.TaskGroup() as group:
        for terminal in terminals.values():
            group.create_task(terminal.to_end())
    for number, terminal in terminals.items():
        assert terminal.ending["exitCode"] == number
        assert terminal.output == f"I am {number}\r\n".encode()
    assert await listed(client) == []


async def test_limit_of_sessions(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"shell": program(tmp_path, "read x")}, pty={"max_sessions": 2})
    await create(client, "t1")
    await create(client, "t2", lazyStart=True)
    async with client.post("/process/pty", json={"id": "t3"}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    with pytest.raises(WSServerHandshakeError) as caught:
        await client.ws_connect("/process/pty/create-connect?id=t3")
    assert caught.value.status == 429
    # A duplicate is one, whatever the number.
    async with client.post("/process/pty", json={"id": "t1"}) as reply:
        await refused(reply, 409, "CONFLICT")
    await delete(client, "t2")
    await create(client, "t3")
    terminal = await connect(client, "t3")
    await terminal.type(b"\n")
    await terminal.to_end()
    await create(client, "t4")
    assert await listed(client) == ["t1", "t4"]


async def test_limit_of_clients(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(
        process={"shell": program(tmp_path, "read x; exit 3")}, pty={"max_clients": 2}
    )
    await create(client, "t1")
    first = await connect(client, "t1")
    second = await connect(client, "t1")
    third = await attach(client, "/process/pty/t1/connect")
    assert third.controls[0]["status"] == "error"
    assert "limit of 2 clients" in third.controls[0]["error"]
    assert (await third.to_end())[0] == 1011
    await second.ws.close()
    fourth = await connect(client, "t1")
    await first.type(b"\n")
    for terminal in (first, fourth):
        await terminal.to_end()
        assert terminal.ending["exitCode"] == 3


async def test_limit_of_ended_sessions(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"shell": program(tmp_path, "exit 3")}, pty={"max_ended": 2})
    for number in range(4):
        await (await attach(client, f"/process/pty/create-connect?id=t{number}")).to_end()
    states = []
    for number in range(4):
        terminal = await attach(client, f"/process/pty/t{number}/connect?offset=0")
        states.append(terminal.controls[0]["status"])
        await terminal.to_end()
    assert states == ["error", "error", "connected", "connected"]


async def test_limit_of_processes(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"shell": program(tmp_path, "read x; exit 0"), "max_processes": 1})
    await create(client, "t1")
    async with client.post("/process/pty", json={"id": "t2"}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    async with client.post("/process/execute", json={"command": "true"}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    terminal = await attach(client, "/process/pty/t2/connect")
    assert terminal.controls[0]["status"] == "error"
    await delete(client, "t1")
    assert (await execute(client, "x"))["exitCode"] == 0
