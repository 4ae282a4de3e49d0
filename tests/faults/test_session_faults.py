"""Shell sessions when things go wrong around them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientResponse

from procd.api.session import SESSIONS
from tests.api.clients import Fifo, Gate, descriptors_exhausted, refused
from tests.api.conftest import alive, gate
from tests.api.sessions import (
    create,
    delete,
    ended,
    follow,
    get,
    logs,
    path_of,
    post_exec,
    run,
    start,
)
from tests.conftest import MakeClient

__all__ = ["alive", "gate"]

DISK_BYTES = 1 << 20
NO_DESCRIPTOR = "cannot start a command: Too many open files"


@pytest.fixture
async def small_disk(tmp_path: Path) -> AsyncIterator[Path]:
    """A file system of 1 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = await asyncio.create_subprocess_exec(
        "mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", directory, stderr=-3
    )
    if await mount.wait():
        pytest.skip("a small tmpfs can't be mounted here")
    yield directory
    umount = await asyncio.create_subprocess_exec("umount", "-l", directory)
    await umount.wait()


async def test_full_disk(small_disk: Path, procd: MakeClient) -> None:
    client = await procd(sessions={"state_dir": str(small_disk)})
    await create(client)
    await run(client, "state=kept")
    body = await run(client, "seq 1000000 1999999; echo err >&2; (exit 5)")
    assert body["exitCode"] == 5
    assert body["truncated"] is True
    first = body["firstAvailableOffset"]
    assert first > 0
    assert body["output"].endswith("1999999\nerr\n")
    assert body["stdout"].endswith("1999999\n")
    assert body["stderr"] == "err\n", "nothing is made up"
    for _ in range(3):
        body = await run(client, "echo $state; seq 300000 >&2")
        assert (body["exitCode"], body["stderr"][-7:]) == (0, "300000\n")
    await delete(client)
    await create(client)
    body = await run(client, "seq 10000")
    assert "truncated" not in body, "the space was given back"


async def test_followers_on_a_full_disk(small_disk: Path, procd: MakeClient, gate: Gate) -> None:
    client = await procd(sessions={"state_dir": str(small_disk)})
    await create(client)
    command_id = await start(client, f"read x <{gate}; seq 1000000; echo END")
    listener = await follow(client, command_id)
    gate.open()
    assert (await listener.to_end()).endswith(b"1000000\nEND\n")
    assert (await ended(client, command_id))["exitCode"] == 0


@pytest.mark.parametrize("run_async", [False, True])
async def test_no_descriptor_left_for_a_command(procd: MakeClient, run_async: bool) -> None:
    client = await procd()
    await create(client)
    await run(client, "state=kept")
    with descriptors_exhausted():
        reply = await post_exec(client, "echo never", runAsync=run_async)
        if run_async:
            body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
            assert body["message"] == NO_DESCRIPTOR
        else:
            body = await reply.json()
            assert (reply.status, body["exitCode"], body["stderr"]) == (200, -1, NO_DESCRIPTOR)
            said = await logs(client, body["cmdId"])
            assert said["stderr"] == NO_DESCRIPTOR, "the log can be read at once"
    assert (await run(client, "echo $state"))["output"] == "kept\n"


async def test_no_descriptor_left_for_queued_commands(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    first = await start(client, f"read x <{gate}; seq 10")
    queued = [await start(client, "true", suppressInputEcho=True) for _ in range(3)]
    with descriptors_exhausted():
        gate.open()
        await ended(client, first)
        outcomes = [await ended(client, command_id) for command_id in queued]
        said = [await logs(client, command_id) for command_id in queued]
    # What the one before had gave the next one what it took, or the log says why not.
    for outcome, log in zip(outcomes, said, strict=True):
        expected = {0: "", -1: NO_DESCRIPTOR}[outcome["exitCode"]]
        assert log["stderr"] == expected
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_no_descriptor_left_for_a_session(procd: MakeClient) -> None:
    client = await procd()
    await get(client, "/process/session")  # so that it is connected
    with descriptors_exhausted():
        async with client.post("/process/session", json={"sessionId": "s"}) as reply:
            await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    await create(client)
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_shell_killed_in_mid_command(procd: MakeClient, alive: Fifo, gate: Gate) -> None:
    client = await procd(sessions={"grace_s": 0.1})
    await create(client)
    command_id = await start(client, f"echo said; (echo $$ >{alive}; read x <{gate}; echo late)")
    pid = int(await alive.line())
    listener = await follow(client, command_id)
    await listener.until(b"said\n")
    os.kill(pid, signal.SIGKILL)
    assert (await ended(client, command_id))["exitCode"] == 137
    await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")
    assert await listener.to_end() == b"said\n", "nobody waits for what the shell has left behind"
    gate.open()
    assert (await logs(client, command_id))["output"] == "said\n"
    await delete(client)


async def test_many_commands_in_many_sessions(procd: MakeClient) -> None:
    client = await procd(sessions={"grace_s": 1.0})
    names = [f"session {number}" for number in range(50)]
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(create(client, name))
    started: dict[tuple[str, int], asyncio.Task[str]] = {}
    async with asyncio.TaskGroup() as group:
        for name in names:
            for number in range(4):
                started[name, number] = group.create_task(
                    start(client, f"echo '{name}' {number}; seq 1000; (exit {number})", name)
                )
    numbers = "".join(f"{number}\n" for number in range(1, 1001))
    for (name, number), task in started.items():
        assert (await ended(client, task.result(), name))["exitCode"] == number
        assert (await logs(client, task.result(), name))["output"] == f"{name} {number}\n{numbers}"
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(delete(client, name))
    assert client.app[SESSIONS].list() == []


async def test_delete_races_with_exec(procd: MakeClient) -> None:
    client = await procd(sessions={"grace_s": 1.0})
    statuses = set()
    for _ in range(20):
        await create(client)
        tasks: list[asyncio.Task[ClientResponse]] = []
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(post_exec(client, "echo said")) for _ in range(3)]
            deleting = group.create_task(delete(client))
            tasks += [group.create_task(post_exec(client, "echo said")) for _ in range(3)]
        deleting.result()
        for task in tasks:
            reply = task.result()
            statuses.add(reply.status)
            body = await reply.json()
            if reply.status == 200:
                assert (body["exitCode"], body["output"]) == (0, "said\n")
            else:
                code = {404: "PROCESS_NOT_FOUND", 410: "SESSION_ENDED"}[reply.status]
                await refused(reply, reply.status, code)
        async with client.get(path_of("x")) as reply:
            await refused(reply, 404, "PROCESS_NOT_FOUND")
    assert statuses <= {200, 404, 410}
