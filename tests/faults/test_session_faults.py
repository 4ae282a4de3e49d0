"""Shell sessions when things go wrong around them."""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientResponse

from procd.api.sessions import SESSIONS
from procd.app import PROCESSES
from procd.unix.fd import RESERVED
from tests.aliases import MakeClient
from tests.api.clients import WAIT_S, Fifo, Gate, descriptors_exhausted, execute, refused
from tests.api.sessions import (
    MODERN,
    SHELLS,
    VERSION,
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
    type_in,
)
from tests.capabilities import needs_to_see_all
from tests.nobody import as_nobody
from tests.passable import let_pass
from tests.waiting import until

DISK_BYTES = 1 << 20
NO_DESCRIPTOR = "cannot start a command: Too many open files"


@pytest.fixture
async def small_disk(tmp_path: Path) -> AsyncIterator[Path]:
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
    assert body["firstAvailableOffset"] > 0
    assert body["stdout"].endswith("1999999\n")
    assert body["stderr"] == "err\n", "nothing is made up"
    for _ in range(3):
        body = await run(client, "echo $state; seq 300000 >&2")
        assert (body["exitCode"], body["stderr"][-7:]) == (0, "300000\n")
    await delete(client)
    await create(client)
    assert "truncated" not in await run(client, "seq 10000"), "the space was given back"


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
    """Those that are reserved do to say so, and for its log."""
    client = await procd()
    await create(client)
    await run(client, "state=kept")
    with descriptors_exhausted(but=RESERVED):
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
    with descriptors_exhausted(but=RESERVED):
        gate.open()
        await ended(client, first)
        outcomes = [await ended(client, command_id) for command_id in queued]
        said = [await logs(client, command_id) for command_id in queued]
    # The descriptors of the one before do for the next one, or the log says why not.
    for outcome, log in zip(outcomes, said, strict=True):
        assert log["stderr"] == {0: "", -1: NO_DESCRIPTOR}[outcome["exitCode"]]
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_no_descriptor_left_for_a_session(procd: MakeClient) -> None:
    client = await procd()
    await get(client, "/process/session")  # so that it is connected
    with descriptors_exhausted():
        async with client.post("/process/session", json={"sessionId": "s"}) as reply:
            body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    assert body["message"].endswith("Too many open files")
    await create(client)
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_ended_commands_keep_no_descriptor(procd: MakeClient, gate: Gate) -> None:
    """Neither those that ran nor those whose shell ended before their turn."""
    client = await procd()
    await create(client, "other")
    await run(client, "echo said", "other")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await ended(client, await start(client, "echo said", "other"), "other")
    await create(client)
    first = await start(client, f"read x <{gate}; exit 3")
    for _ in range(3):
        await start(client, "cat")
    gate.open()
    assert (await ended(client, first))["exitCode"] == 3
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_what_an_idle_shell_leaves_with_its_own_streams(procd: MakeClient) -> None:
    """Nobody reads them any more: it is none of the processes that there may be."""
    client = await procd(process={"shell": SHELLS["bash"]}, sessions={"grace_s": 0.1})
    await create(client)
    pid = int((await run(client, "trap 'sleep 1000 & exit 3' USR1; echo $$"))["output"])
    os.kill(pid, signal.SIGUSR1)
    await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")
    await until(lambda: not client.app[PROCESSES].supervised)
    await delete(client)


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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without permission")
@needs_to_see_all  # the shell, of procd, which is nobody then
async def test_a_log_that_may_not_be_read(procd: MakeClient) -> None:
    """403, as the contract has it; whatever form the client knows."""
    client = await procd()
    await create(client)
    command_id = (await run(client, "echo said"))["cmdId"]
    with as_nobody():
        for version in MODERN, {VERSION: "0.20.0"}:
            async with client.get(f"{path_of(command_id)}/logs", headers=version) as reply:
                body = await refused(reply, 403, "FORBIDDEN")
                assert body["message"] == "log can't be read: Permission denied"
    assert (await logs(client, command_id))["output"] == "said\n"


async def test_a_log_on_a_disk_that_fails(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that waits for a command learns how it ended."""
    client = await procd()
    await create(client)
    command_id = (await run(client, "echo said"))["cmdId"]

    def broken(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr("os.pread", broken)
        async with client.get(f"{path_of(command_id)}/logs", headers=MODERN) as reply:
            body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
        assert body["message"] == "log can't be read: Input/output error"
        listener = await follow(client, command_id)
        async with asyncio.timeout(WAIT_S):
            assert not await listener.step()
        assert listener.close == (1011, body["message"])
        body = await refused(
            await post_exec(client, "echo more; (exit 5)"), 500, "INTERNAL_SERVER_ERROR"
        )
        assert (body["message"], body["exitCode"]) == ("log can't be read: Input/output error", 5)
    assert (await logs(client, body["cmdId"]))["output"] == "more\n"


async def test_a_log_that_somebody_cuts(tmp_path: Path, procd: MakeClient) -> None:
    client = await procd(sessions={"state_dir": str(tmp_path)})
    await create(client)
    command_id = (await run(client, "echo said"))["cmdId"]
    (log,) = tmp_path.glob("procd-*/*/*.log")
    os.truncate(log, 3)
    async with client.get(f"{path_of(command_id)}/logs", headers=MODERN) as reply:
        body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    assert body["message"] == "log can't be read: its file was shortened"
    assert (await run(client, "echo on"))["output"] == "on\n"


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
            body = await reply.json()
            if reply.status == 200:
                assert (body["exitCode"], body["output"]) == (0, "said\n")
            else:
                code = {404: "PROCESS_NOT_FOUND", 410: "SESSION_ENDED"}[reply.status]
                await refused(reply, reply.status, code)


async def mounting(*argv: str | Path) -> int:
    return await (await asyncio.create_subprocess_exec(*argv, stderr=-3)).wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_files_that_can_no_longer_be_removed(
    small_disk: Path, procd: MakeClient, gate: Gate
) -> None:
    """All that a session for another user has is on a disk that turns read-only."""
    small_disk.chmod(0o711)
    let_pass(small_disk)
    os.chmod(str(gate), 0o666)
    client = await procd(
        process={"user": "54321", "work_dir": "/"},
        sessions={"state_dir": str(small_disk), "grace_s": 0.2},
    )
    await create(client)
    command_id = await start(client, f"read x <{gate}; echo said; (exit 3)")
    await start(client, "echo never", suppressInputEcho=True)
    assert await mounting("mount", "--bind", small_disk, small_disk) == 0
    try:
        assert await mounting("mount", "-o", "remount,bind,ro", small_disk) == 0
        gate.open()
        assert (await ended(client, command_id))["exitCode"] == 3
        last = (await get(client, "/process/session/s"))["commands"][-1]["id"]
        assert (await ended(client, last))["exitCode"] == -1, "there is no place for its pipes"
        await delete(client)
        async with client.get("/process/session/s") as reply:
            await refused(reply, 404, "PROCESS_NOT_FOUND")
        assert (await execute(client, "echo on"))["result"] == "on\n"
    finally:
        await mounting("umount", "-l", small_disk)


async def test_stalled_input_of_10_mb(procd: MakeClient, gate: Gate) -> None:
    """Nobody else waits while a command doesn't read it."""
    client = await procd(sessions={"grace_s": 0.2})
    await create(client)
    await create(client, "other")
    size = 10_000_000
    command_id = await start(
        client, f"read x <{gate}; head -c {size} | md5sum", suppressInputEcho=True
    )
    async with asyncio.TaskGroup() as group:
        typing = group.create_task(type_in(client, command_id, "x" * (size - 1)))
        assert (await run(client, "echo on", "other"))["output"] == "on\n"
        assert not typing.done()
        gate.open()
    assert (await ended(client, command_id))["exitCode"] == 0
