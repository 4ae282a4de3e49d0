"""Shell sessions when things go wrong around them."""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest
from aiohttp import ClientResponse

from procd.api.sessions import SESSIONS
from procd.app import PROCESSES
from procd.services.shell.command import Command
from procd.services.shell.driver import Dialogue
from procd.unix.procfs import own_children
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
from tests.shortage import CALLS, no_memory_for
from tests.waiting import until

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


async def test_a_deleted_log_on_a_full_disk(small_disk: Path, procd: MakeClient) -> None:
    client = await procd(sessions={"state_dir": str(small_disk)})
    await create(client)
    full = f"find {small_disk} -name '*.log' -delete; cat /dev/zero >{small_disk}/fill"
    body = await run(client, f"head -c 500000 /dev/zero; {full}; (exit 3)")
    assert body["exitCode"] == 3
    assert body["truncated"] is True
    (small_disk / "fill").unlink()
    assert (await run(client, "echo on"))["output"] == "on\n"


@pytest.mark.parametrize("left", [0, 3])
async def test_a_log_that_somebody_cuts(tmp_path: Path, procd: MakeClient, left: int) -> None:
    client = await procd(sessions={"state_dir": str(tmp_path)})
    await create(client)
    said = [(await run(client, "echo said; echo err >&2"))["cmdId"] for _ in range(2)]
    await run(client, f"find {tmp_path} -name '*.log' -exec truncate -s {left} {{}} +")
    listener = await follow(client, said[0])
    assert await listener.to_end() == b""
    for command_id in said:
        body = await logs(client, command_id)
        assert body == {
            "output": "",
            "stdout": "",
            "stderr": "",
            "truncated": True,
            "firstAvailableOffset": 9,
        }
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_a_log_that_is_cut_while_it_grows(
    tmp_path: Path, procd: MakeClient, gate: Gate
) -> None:
    client = await procd(sessions={"state_dir": str(tmp_path)})
    await create(client)
    command_id = await start(client, f"echo said; read x <{gate}; echo more")
    listener = await follow(client, command_id)
    await listener.until(b"said\n")
    (log,) = tmp_path.glob("procd-*/*/*.log")
    os.truncate(log, 0)
    gate.open()
    assert await listener.to_end() == b"said\nmore\n"
    body = await logs(client, command_id)
    assert (body["output"], body["firstAvailableOffset"]) == ("more\n", 5)


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
            body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    assert body["message"].endswith("Too many open files")
    await create(client)
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_queued_commands_keep_no_descriptor_when_their_shell_has_ended(
    procd: MakeClient, gate: Gate
) -> None:
    """Though their session is still there, and each had an input."""
    client = await procd()
    await get(client, "/version")  # the connection is one of those that there are
    before = len(os.listdir("/proc/self/fd"))
    await create(client)
    first = await start(client, f"read x <{gate}; exit 3")
    for _ in range(3):
        await start(client, "cat")
    gate.open()
    assert (await ended(client, first))["exitCode"] == 3
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    await delete(client)


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
    await delete(client)


async def test_news_of_the_end_of_a_shell_that_was_forgotten(procd: MakeClient) -> None:
    """As when procd is stopped in that moment."""
    client = await procd()
    await create(client)
    await start(client, "read x")
    session = client.app[SESSIONS].get("s")
    loop = asyncio.get_running_loop()
    failures: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    told = loop.create_future()

    def forgotten() -> None:
        session.close()
        loop.call_soon(told.set_result, None)

    session._process.on_done = forgotten
    os.kill(session.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        await told
    assert not failures


async def test_followers_when_there_is_no_memory_for_a_moment(
    procd: MakeClient, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"read x <{gate}; echo said")
    followers = [await follow(client, command_id) for _ in range(2)]
    failures = 6

    def short(
        number: int, size: int, offset: int, read: Callable[[int, int, int], bytes] = os.pread
    ) -> bytes:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise MemoryError
        return read(number, size, offset)

    monkeypatch.setattr("os.pread", short)
    gate.open()
    for listener in followers:
        assert await listener.to_end() == b"said\n"
    assert failures < 0
    assert (await ended(client, command_id))["exitCode"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without permission")
@needs_to_see_all  # the shell, of procd, which is nobody then
async def test_a_log_that_may_not_be_read(procd: MakeClient, gate: Gate) -> None:
    """403, as the contract has it; and who has waited for the command learns how it ended."""
    client = await procd()
    await create(client)
    command_id = await start(client, "echo said")
    await ended(client, command_id)
    waiting = asyncio.create_task(post_exec(client, f"echo more; read x <{gate}; (exit 5)"))
    message = "log can't be read: Permission denied"
    commands = client.app[SESSIONS].get("s").history.commands
    await until(lambda: len(commands) == 2)
    (_, command) = commands.values()
    await until(lambda: command.log.store.end > 0)
    with as_nobody():
        gate.open()
        body = await refused(await waiting, 403, "FORBIDDEN")
        assert (body["message"], body["exitCode"]) == (message, 5)
        for path in command_id, body["cmdId"]:
            for version in MODERN, {VERSION: "0.20.0"}:
                async with client.get(f"{path_of(path)}/logs", headers=version) as reply:
                    assert (await refused(reply, 403, "FORBIDDEN"))["message"] == message
    assert (await logs(client, body["cmdId"]))["output"] == "more\n"


async def test_a_log_on_a_disk_that_fails(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (
            OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
            "cannot create a session: Cannot allocate memory",
        ),
        (MemoryError(), "internal server error"),
    ],
)
async def test_a_shell_that_cannot_be_spoken_to(
    procd: MakeClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    told: str,
) -> None:
    """No session is made, and no descriptor and no process left, which may be no shell by then."""
    client = await procd(process={"shell": SHELLS["bash"]})
    start_up = tmp_path / "start-up"
    start_up.write_text("exec sleep 1000")
    body = {"sessionId": "s", "envs": {"BASH_ENV": str(start_up)}}
    await get(client, "/version")  # the connection is one of those that there are
    before, children = len(os.listdir("/proc/self/fd")), own_children()

    def short(number: int, data: bytes, write: Callable[[int, bytes], int] = os.write) -> int:
        if b" trap " in data:
            raise failure
        return write(number, data)

    with monkeypatch.context() as failing:
        failing.setattr("os.write", short)
        for _ in range(3):
            async with client.post("/process/session", json=body) as reply:
                refusal = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
                assert refusal["message"] == told
    await until(lambda: own_children() == children)
    await create(client)
    await delete(client)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_command_that_there_is_no_memory_to_start(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, leaves no descriptor open, and the next one runs."""
    client = await procd()
    await create(client)
    assert (await run(client, "echo before"))["output"] == "before\n"
    before = len(os.listdir("/proc/self/fd"))

    def short(path: str, readlink: Callable[[str], str] = os.readlink) -> str:
        name = readlink(path)
        if name.startswith("pipe:"):
            raise MemoryError
        return name

    with monkeypatch.context() as failing:
        failing.setattr("os.readlink", short)
        body = await run(client, "echo x")
    assert (body["exitCode"], body["output"]) == (
        -1,
        "cannot start a command: Cannot allocate memory",
    )
    assert len(os.listdir("/proc/self/fd")) == before
    assert (await run(client, "echo after"))["output"] == "after\n"


def times(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, count: int) -> list[MemoryError]:
    """Have a method find no memory the first times; empty once it hasn't."""
    method = getattr(owner, name)
    failures = [MemoryError() for _ in range(count)]

    def short(*arguments: object) -> object:
        if failures:
            raise failures.pop()
        result: object = method(*arguments)
        return result

    monkeypatch.setattr(owner, name, short)
    return failures


async def test_no_memory_to_tell_a_shell_of_a_command(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and the next one runs."""
    client = await procd()
    await create(client)
    failures = times(monkeypatch, Dialogue, "run", 1)
    body = await run(client, "echo x")
    assert (body["exitCode"], body["output"]) == (-1, "cannot start a command: no memory")
    assert (await run(client, "echo after"))["output"] == "after\n"
    assert not failures


@pytest.mark.parametrize(("name", "count"), [("complete", 4), ("take_pending", 2)])
async def test_no_memory_to_end_a_command(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    """It ends as it does, and so do those after it, however often there is none."""
    client = await procd()
    await create(client)
    failures = times(monkeypatch, Command, name, count)
    commands = [await start(client, f"echo {code}; exec 3>&1; (exit {code})") for code in (3, 4)]
    for code, command_id in zip((3, 4), commands, strict=True):
        assert (await ended(client, command_id))["exitCode"] == code
        assert (await logs(client, command_id))["stdout"] == f"{code}\n"
    assert not failures


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_a_session_that_there_is_no_memory_to_delete(
    procd: MakeClient, alive: Fifo, monkeypatch: pytest.MonkeyPatch, call: str, failing: int
) -> None:
    """What runs in it is ended all the same."""
    client = await procd(sessions={"grace_s": 0.1})
    await create(client)
    command_id = await start(client, f"exec 9>{alive}; (setsid sleep 1000 &); echo up; sleep 1000")
    await (await follow(client, command_id)).until(b"up\n")
    with monkeypatch.context() as failure:
        no_memory_for(failure, call, failing)
        await delete(client)
    await alive.ended()


async def test_a_session_that_there_is_no_memory_to_wait_for(
    procd: MakeClient, alive: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"exec 9>{alive}; echo up; sleep 1000")
    await (await follow(client, command_id)).until(b"up\n")

    async def short() -> None:
        monkeypatch.undo()
        raise MemoryError

    assert client.app is not None
    monkeypatch.setattr(client.app[PROCESSES].trees.turns, "take", short)
    async with client.delete("/process/session/s") as reply:
        await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    await alive.ended()


@pytest.mark.parametrize("call", ["os.open", "os.read", "os.pidfd_open"])
async def test_a_timeout_that_there_is_no_memory_for(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The command ends, whoever waits is told, and the next one runs."""
    client = await procd()
    await create(client)
    looks = no_memory_for(monkeypatch, call)
    body = {"command": "(setsid sleep 1000 &); sleep 1000", "timeout": 1}
    async with client.post("/process/session/s/exec", json=body) as reply:
        await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
    assert next(looks) > 0
    assert (await run(client, "echo next"))["output"] == "next\n"


async def test_a_signal_that_there_is_no_memory_for(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked is told, and can ask again."""
    client = await procd(process={"shell": "/bin/bash"})
    await create(client)
    command_id = await start(client, "sh -c 'echo up; exec sleep 1000'")
    await (await follow(client, command_id)).until(b"up\n")
    path = path_of(command_id) + "/signal"
    with monkeypatch.context() as failure:
        no_memory_for(failure, "os.read")
        async with client.post(path, json={"signal": "TERM"}) as reply:
            body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    assert body["message"] == "the processes can't be looked for: no memory"
    async with client.post(path, json={"signal": "TERM"}) as reply:
        assert reply.status == 204
    assert (await ended(client, command_id))["exitCode"] == 143


async def test_input_that_could_not_be_written_is_sent_again(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same key: the first request has done nothing."""
    client = await procd()
    await create(client)
    command_id = await start(client, "read x; echo got $x", suppressInputEcho=True)
    failures = 1

    def short(number: int, data: bytes, write: Callable[[int, bytes], int] = os.write) -> int:
        nonlocal failures
        if data == b"typed\n" and failures:
            failures -= 1
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return write(number, data)

    monkeypatch.setattr("os.write", short)
    reply = await type_in(client, command_id, "typed\n", idempotencyKey="once")
    await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    reply = await type_in(client, command_id, "typed\n", idempotencyKey="once")
    assert reply.status == 204
    await ended(client, command_id)
    assert (await logs(client, command_id))["output"] == "got typed\n"


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


async def mounting(*argv: str | Path) -> int:
    """Its exit code."""
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
        assert (await execute(client, "echo on"))["stdout"] == "on\n"
    finally:
        await mounting("umount", "-l", small_disk)


def fails() -> None:
    """What a reader of a log is told by, that can't hear it."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_a_session_whose_end_fails_keeps_none_from_it(procd: MakeClient) -> None:
    """The others let go of what they have all the same: the test's fixture looks."""
    client = await procd()
    sessions = client.app[SESSIONS]
    for name in ("first", "broken", "last"):
        await create(client, name)
    broken = sessions.get("broken").history.get(await start(client, "read x", "broken"))
    with closing(broken.log.attach(0, fails)), pytest.raises(OSError, match="Input/output"):
        await sessions.aclose()
    assert len(sessions) == 0


async def test_a_command_whose_last_words_cannot_be_kept(procd: MakeClient, gate: Gate) -> None:
    """It ends all the same, and the next has its turn."""
    client = await procd()
    await create(client)
    session = client.app[SESSIONS].get("s")
    command = session.history.get(await start(client, f"read x <{gate}; echo said; (exit 3)"))
    queued = await start(client, "echo on")

    def end() -> None:
        while not command.done.done():  # the loop, which would read what it says before, waits
            session._dialogue.hear()

    with closing(command.log.attach(0, fails)):
        gate.open()
        with pytest.raises(OSError, match="Input/output"):
            end()
    assert (await ended(client, command.record.id))["exitCode"] == 3
    assert (await ended(client, queued))["exitCode"] == 0


async def test_a_status_of_another_command(procd: MakeClient, gate: Gate) -> None:
    """It isn't that of the one which runs."""
    client = await procd()
    await create(client)
    command_id = await start(client, f"read x <{gate}; (exit 3)")
    dialogue = client.app[SESSIONS].get("s")._dialogue
    os.write(dialogue._control.fd.number, b"0 5\n2 5\n")
    dialogue.hear()
    gate.open()
    assert (await ended(client, command_id))["exitCode"] == 3


async def test_a_status_that_comes_in_pieces(procd: MakeClient, alive: Fifo, gate: Gate) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"echo begun >{alive}; read x <{gate}")
    assert await alive.line() == "begun"
    dialogue = client.app[SESSIONS].get("s")._dialogue
    for piece in b"1 ", b"3\n":
        os.write(dialogue._control.fd.number, piece)
        dialogue.hear()
    assert (await ended(client, command_id))["exitCode"] == 3
    gate.open()


async def test_a_flood_on_the_pipe_of_statuses(
    procd: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, however often it comes, and changes nothing."""
    client = await procd(log={"level": "info"})
    await create(client)
    pipe = client.app[SESSIONS].get("s")._dialogue._control.fd.number
    with caplog.at_level("INFO", logger="procd.services.shell.driver"):
        for flood in (b"\n" * 4095, b"1 " + b"9" * 4096, b"7 0\nx\n\n"):
            os.write(pipe, flood + b"\n")
            body = await run(client, "(exit 3)")
            assert body["exitCode"] == 3
    told = [line for line in caplog.messages if line.startswith("shell says ")]
    assert [line.rpartition(" ")[2] for line in told] == ["4096"]
