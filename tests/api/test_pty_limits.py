"""Many PTY sessions and clients, and the limits to their number."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSServerHandshakeError

from tests.aliases import MakeClient
from tests.api.clients import (
    Fifo,
    Gate,
    Terminal,
    attach,
    connect,
    create,
    delete,
    json_body,
    listed,
    program,
    refused,
)


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


IMPOSSIBLE: list[dict[str, Any]] = [
    {"envs": {"A": "x" * ((128 << 10) - len("A=\0") + 1)}},
    {"envs": {"A": "é" * (64 << 10)}},
    {"envs": {"A" * (128 << 10): ""}},
    {"envs": {f"V{number}": "x" * 100_000 for number in range(80)}},
    {"cwd": "/" + "tmp/../" * 600 + "tmp"},
    {"cwd": "/tmp" + "/" * 1_000_000},
]


async def test_what_can_never_start_is_not_kept_until_then(
    procd: MakeClient, tmp_path: Path
) -> None:
    """It is refused as if it were to start at once."""
    client = await procd(process={"shell": program(tmp_path, "read x")})
    for fields in IMPOSSIBLE:
        messages = []
        for lazy in True, False:
            body = {"id": "t", "lazyStart": lazy, **fields}
            async with client.post("/process/pty", data=json_body(body)) as reply:
                refusal = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
                messages.append(refusal["message"])
        assert messages[0] == messages[1]
        assert messages[0].startswith("failed to start PTY session: ")
    assert await listed(client) == []


async def test_long_environments_are_shown_whole(procd: MakeClient, tmp_path: Path) -> None:
    """As long as can be, and of some that can't start yet."""
    client = await procd(process={"shell": program(tmp_path, "read x")})
    envs = {"A": "x" * ((128 << 10) - len("A=\0")), "B": "", "C" * 5000: "\x01\n", "TERM": "vt100"}
    cwd = "/" + "tmp/../" * 580
    for number in range(4):
        await create(client, f"t{number}", envs=envs, cwd=cwd, lazyStart=True)
        await create(client, f"u{number}")
    async with client.get("/process/pty") as reply:
        sessions = (await reply.json())["sessions"]
    assert [each["id"] for each in sessions] == ["t0", "u0", "t1", "u1", "t2", "u2", "t3", "u3"]
    for session in sessions[::2]:
        assert (session["envs"], session["cwd"]) == (envs, cwd)
        async with client.get(f"/process/pty/{session['id']}") as reply:
            assert await reply.json() == session
    terminal = await connect(client, "t0")
    await terminal.type(b"\n")
    await terminal.to_end()
    assert terminal.ending["exitCode"] == 0
