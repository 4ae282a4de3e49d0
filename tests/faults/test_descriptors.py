"""No descriptor is left: each request is answered, nothing leaks, and it works again afterwards."""

from pathlib import Path

import pytest

from procd.unix.fd import RESERVED, SHORT_LIVED
from tests.aliases import MakeClient
from tests.api import sessions
from tests.api.clients import (
    Fifo,
    attach,
    connect,
    create,
    delete,
    descriptors_exhausted,
    execute,
    listed,
    program,
    refused,
    until,
)


async def test_execute_at_each_descriptor(procd: MakeClient) -> None:
    client = await procd()
    assert (await execute(client, "echo before"))["result"] == "before\n"
    with descriptors_exhausted():
        bodies = [await execute(client, "echo x")]
    for spare in range(12):
        with descriptors_exhausted(but=RESERVED + spare):
            bodies.append(await execute(client, "echo x"))
    codes = [body["exitCode"] for body in bodies]
    assert codes == sorted(codes)
    assert (codes[0], codes[-1]) == (-1, 0)
    for body in bodies:
        assert body["result"] == "x\n" or "Too many open files" in body["result"]


async def test_pty(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"shell": program(tmp_path, "read x; exit 3")})
    await create(client, "t1")
    await create(client, "t2", lazyStart=True)
    terminal = await connect(client, "t1")
    assert await listed(client) == ["t1", "t2"]
    with descriptors_exhausted():
        async with client.post("/process/pty", json={"id": "t3"}) as reply:
            body = await refused(reply, 429, "LIMIT_REACHED")
            assert "limit of open files is reached" in body["message"]
        assert await listed(client) == ["t1", "t2"]
        await terminal.type(b"\n")
        await terminal.to_end()
        assert terminal.ending["exitCode"] == 3
    await create(client, "t3")
    assert (await connect(client, "t2")).connected["status"] == "connected"
    for session_id in ("t2", "t3"):
        await delete(client, session_id)


async def test_pty_at_each_descriptor(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"shell": program(tmp_path, "read x")})
    assert await listed(client) == []
    statuses = []
    for spare in range(SHORT_LIVED + 10):
        with descriptors_exhausted(but=RESERVED + spare):
            async with client.post("/process/pty", json={"id": f"t{spare}"}) as reply:
                statuses.append(reply.status)
        if statuses[-1] == 201:
            await delete(client, f"t{spare}")
        assert await listed(client) == []
    assert statuses == sorted(statuses, reverse=True)
    assert (statuses[0], statuses[-1]) == (429, 201)


async def test_idle_sessions_leave_descriptors_for_their_commands(procd: MakeClient) -> None:
    client = await procd(process={"shell": "/bin/sh"})
    await sessions.create(client, "first")
    with descriptors_exhausted(but=RESERVED + SHORT_LIVED + 20):
        ids = ["first"]
        message = ""
        while not message:
            body = {"sessionId": f"s{len(ids)}"}
            async with client.post("/process/session", json=body) as reply:
                if reply.status == 201:
                    ids.append(body["sessionId"])
                else:
                    message = (await refused(reply, 429, "LIMIT_REACHED"))["message"]
        assert "limit of open files is reached" in message
        assert len(ids) > 1
        for session_id in ids:
            assert (await sessions.run(client, "echo x", session_id))["output"] == "x\n"


async def test_contexts_leave_descriptors_for_the_commands_of_sessions(procd: MakeClient) -> None:
    client = await procd(process={"shell": "/bin/sh"})
    await sessions.create(client)
    with descriptors_exhausted(but=RESERVED + SHORT_LIVED + 6):
        message = ""
        while not message:
            async with client.post("/process/interpreter/context", json={}) as reply:
                if reply.status != 200:
                    message = (await refused(reply, 429, "LIMIT_REACHED"))["message"]
        assert "limit of open files is reached" in message
        assert (await sessions.run(client, "echo x"))["output"] == "x\n"


async def test_spare_interpreters_leave_descriptors_for_commands(
    procd: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await procd(interpreter={"warm": 1})

    async def refused_one() -> bool:
        async with client.get("/version") as reply:
            assert reply.status == 200
        return "no spare interpreter: limit of open files is reached" in caplog.text

    with descriptors_exhausted(but=RESERVED + 4):
        async with client.post("/env", json={"set": {"A": "1"}}) as reply:
            assert reply.status == 200
        await until(refused_one)


async def test_delete_and_metrics_without_a_descriptor(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"shell": program(tmp_path, "read x")})
    await create(client, "t1")
    with descriptors_exhausted():
        async with client.delete("/process/pty/t1") as reply:
            deleted = reply.status
        async with client.get("/system/metrics") as reply:
            assert reply.status in (200, 500)
            if reply.status == 500:
                await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    assert deleted in (200, 500)
    assert await listed(client) == []
    terminal = await attach(client, "/process/pty/t1/connect")
    assert terminal.controls[0]["status"] == "error"


async def test_tree_of_more_processes_than_descriptors(procd: MakeClient, alive: Fifo) -> None:
    client = await procd()
    assert (await execute(client, "echo before"))["result"] == "before\n"
    with descriptors_exhausted(but=RESERVED + 20):
        crowd = f"exec >{alive}; for i in $(seq 150); do sleep 1000 & done; wait"
        body = {"command": crowd, "timeout": 3}
        async with client.post("/process/execute", json=body) as reply:
            await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
        await alive.ended()
        assert (await execute(client, "echo on"))["result"] == "on\n"


async def test_background_of_more_processes_than_descriptors(procd: MakeClient) -> None:
    """The log of a command that the shell keeps open ends with the last of many children."""
    client = await procd(process={"shell": "/bin/bash"}, sessions={"grace_s": 0.2})
    await sessions.create(client)
    with descriptors_exhausted(but=RESERVED + 30):
        crowd = "exec 3>&1; for i in $(seq 150); do sleep 1000 & done; echo said"
        body = await sessions.run(client, crowd)
        assert (body["output"], body["exitCode"]) == ("said\n", 0)
        assert (await execute(client, "echo on"))["result"] == "on\n"
        listener = await sessions.follow(client, body["cmdId"])
        await sessions.run(client, "kill $(jobs -p)")
        assert await listener.to_end() == b"said\n"


async def test_signal_to_a_command(procd: MakeClient) -> None:
    """Without a descriptor to search for its processes, none is signalled, nor is the shell."""
    client = await procd(process={"shell": "/bin/bash"})
    await sessions.create(client)
    command_id = await sessions.start(client, "sh -c 'echo ready; exec sleep 1000'")
    listener = await sessions.follow(client, command_id)
    await listener.until(b"ready\n")
    path = sessions.path_of(command_id) + "/signal"
    assert "exitCode" not in await sessions.get(client, sessions.path_of(command_id))
    with descriptors_exhausted():
        async with client.post(path, json={"signal": "TERM"}) as reply:
            body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
            assert "Too many open files" in body["message"]
    assert "exitCode" not in await sessions.get(client, sessions.path_of(command_id))
    async with client.post(path, json={"signal": "TERM"}) as reply:
        assert reply.status == 204
    assert (await sessions.ended(client, command_id))["exitCode"] == 143
    assert (await sessions.run(client, "echo kept"))["output"] == "kept\n"
