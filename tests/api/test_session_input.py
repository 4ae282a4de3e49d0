"""Input of commands: contract, section 8.6."""

import asyncio
import os
import signal
from typing import Any

import pytest

from procd.api.sessions import SESSIONS
from tests.aliases import Client, MakeClient
from tests.api.clients import Gate, refused, until
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
    type_in,
)


async def echoed(client: Client, command_id: str, size: int) -> None:
    """Wait until so many bytes of input are in a command's log."""

    async def arrived() -> bool:
        return (await get(client, path_of(command_id))).get("outputBytes") == size

    await until(arrived)


async def test_input_is_echoed_before_the_answer(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, "printf 'name? '; read x; echo hello $x")
    listener = await follow(client, command_id)
    await listener.until(b"name? ")
    reply = await type_in(client, command_id, "you")
    assert (reply.status, await reply.read()) == (204, b"")
    assert await listener.to_end() == b"name? you\nhello you\n"
    assert (await logs(client, command_id))["stdout"] == "name? you\nhello you\n"


@pytest.mark.parametrize(
    ("data", "seen"),
    [("a", "a\n"), ("a\n", "a\n"), ("\n", "\n"), ("a\nb", "a\nb\n"), ("é\0x", "é\0x\n")],
)
async def test_newline_is_appended_when_there_is_none(
    procd: MakeClient, data: str, seen: str
) -> None:
    client = await procd()
    await create(client)
    size = len(seen.encode())
    command_id = await start(client, f"head -c {size}", suppressInputEcho=True)
    assert (await type_in(client, command_id, data)).status == 204
    assert (await ended(client, command_id))["exitCode"] == 0
    assert (await logs(client, command_id))["output"] == seen


@pytest.mark.parametrize("together", [True, False])
async def test_end_of_input(procd: MakeClient, gate: Gate, together: bool) -> None:
    client = await procd()
    await create(client)
    script = f"echo ready; sort; read x <{gate}"
    command_id = await start(client, script, suppressInputEcho=True)
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    await type_in(client, command_id, "b")
    assert (await type_in(client, command_id, "a", eof=together)).status == 204
    if not together:
        assert (await type_in(client, command_id, eof=True)).status == 204
    await refused(await type_in(client, command_id, "x"), 400, "BAD_REQUEST")
    gate.open()
    assert await listener.to_end() == b"ready\na\nb\n"
    assert (await run(client, "echo next"))["output"] == "next\n"


async def test_end_of_input_before_the_shell_opens_it(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    shell = client.app[SESSIONS].get("s").driver.pid
    os.kill(shell, signal.SIGSTOP)
    command_id = await start(client, "cat; echo end", suppressInputEcho=True)
    assert (await type_in(client, command_id, "mine", eof=True)).status == 204
    os.kill(shell, signal.SIGCONT)
    assert (await ended(client, command_id))["exitCode"] == 0
    assert (await logs(client, command_id))["output"] == "mine\nend\n"


async def test_end_of_input_that_the_script_has_moved(procd: MakeClient) -> None:
    """The shell's descriptor is another by then, and a child has it."""
    client = await procd()
    await create(client)
    script = "exec 3<&0 </dev/null; echo ready; cat <&3; exec 3<&-"
    command_id = await start(client, script, suppressInputEcho=True)
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    assert (await type_in(client, command_id, "a", eof=True)).status == 204
    assert await listener.to_end() == b"ready\na\n"


@pytest.mark.parametrize("size", [6, 300_000])
async def test_input_before_its_turn(procd: MakeClient, gate: Gate, size: int) -> None:
    """With its end; a pipe holds no more than the first part of so much."""
    client = await procd()
    await create(client)
    await start(client, f"read x <{gate}")
    command_id = await start(client, "wc -c", suppressInputEcho=True)
    assert (await type_in(client, command_id, "x" * (size - 1), eof=True)).status == 204
    gate.open()
    assert (await ended(client, command_id))["exitCode"] == 0
    assert (await logs(client, command_id))["output"].strip() == str(size)


BAD_INPUTS: list[Any] = [
    None,
    [],
    {},
    {"data": ""},
    {"data": 1},
    {"data": None},
    {"eof": False},
    {"data": "x", "eof": 1},
    {"data": "x", "idempotencyKey": "k" * 65},
    {"dataBase64": "?"},
    {"dataBase64": "/wA"},
    {"dataBase64": "é"},
    {"dataBase64": ""},
    {"dataBase64": 1},
    {"dataBase64": "YQ==", "data": "a"},
]


async def test_bad_input(procd: MakeClient) -> None:
    client = await procd(sessions={"grace_s": 0.2})
    await create(client)
    command_id = await start(client, "cat")
    for body in BAD_INPUTS:
        async with client.post(path_of(command_id) + "/input", json=body) as reply:
            await refused(reply, 400, "INVALID_REQUEST_BODY")


async def test_command_that_takes_no_input(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(post_exec(client, f"read x <{gate}"))

        async def registered() -> bool:
            return bool((await get(client, "/process/session/s"))["commands"])

        await until(registered)
        (command,) = (await get(client, "/process/session/s"))["commands"]
        await refused(await type_in(client, command["id"], "x"), 400, "BAD_REQUEST")
        gate.open()
    assert task.result().status == 200


async def test_ended_command(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, "(exit 5)")
    await ended(client, command_id)
    sync = (await run(client, "true"))["cmdId"]
    for ended_id, code in ((command_id, 5), (sync, 0)):
        body = await refused(await type_in(client, ended_id, "x"), 410, "COMMAND_ALREADY_COMPLETED")
        assert body["message"] == f"command has already completed with exit code {code}"
    running = await start(client, "kill -KILL $$")
    await ended(client, running)
    await refused(await type_in(client, running, "x"), 410, "COMMAND_ALREADY_COMPLETED")


async def test_input_is_of_its_command_only(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"read x <{gate}; read x", suppressInputEcho=True)
    queued = await start(client, "read a; read b; echo $b $a", suppressInputEcho=True)
    await type_in(client, command_id, "1\necho not a command\necho nor this")
    assert (await type_in(client, queued, "one")).status == 204
    assert (await type_in(client, queued, "two")).status == 204
    gate.open()
    await ended(client, queued)
    assert (await logs(client, command_id))["output"] == ""
    assert (await logs(client, queued))["output"] == "two one\n"
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_a_request_with_much_input_waits_until_it_is_read(
    procd: MakeClient, gate: Gate
) -> None:
    client = await procd(sessions={"input_queue_bytes": 1024})
    await create(client)
    size = 3_000_000
    command_id = await start(client, f"read x <{gate}; head -c {size} | wc -c")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(type_in(client, command_id, "x" * (size - 1)))
        await echoed(client, command_id, size)
        assert not waiting.done()
        gate.open()
    assert waiting.result().status == 204
    assert (await ended(client, command_id))["exitCode"] == 0
    assert (await logs(client, command_id))["output"].split()[1] == str(size)


@pytest.mark.parametrize("how", ["end", "delete"])
async def test_a_request_that_waits_ends_with_the_command(
    procd: MakeClient, gate: Gate, how: str
) -> None:
    client = await procd(sessions={"input_queue_bytes": 1024, "grace_s": 0.2})
    await create(client)
    command_id = await start(client, f"read x <{gate}")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(type_in(client, command_id, "x" * 9_999_999))
        await echoed(client, command_id, 10_000_000)
        if how == "end":
            gate.open()
        else:
            await delete(client)
    code = "COMMAND_ALREADY_COMPLETED" if how == "end" else "SESSION_ENDED"
    await refused(waiting.result(), 410, code)


async def test_exact_bytes(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, "od -An -tx1", suppressInputEcho=True)
    for body in ({"dataBase64": "/wAB"}, {"dataBase64": "Yg==", "eof": True}):
        assert (await type_in(client, command_id, **body)).status == 204
    assert (await ended(client, command_id))["exitCode"] == 0
    assert (await logs(client, command_id))["stdout"] == " ff 00 01 62\n"


async def test_a_request_that_is_repeated_is_done_once(procd: MakeClient, gate: Gate) -> None:
    client = await procd(sessions={"input_queue_bytes": 1024})
    await create(client)
    size = 900_000
    command_id = await start(client, f"read x <{gate}; wc -c; cat")
    path = f"{path_of(command_id)}/input"
    big: dict[str, object] = {"data": "x" * (size - 1), "idempotencyKey": "big"}
    end: dict[str, object] = {"data": "end", "idempotencyKey": "end", "eof": True}
    statuses = []

    async def post(body: dict[str, object]) -> None:
        async with client.post(path, json=body) as reply:
            statuses.append(reply.status)

    async with asyncio.TaskGroup() as group:
        first = group.create_task(post(big))
        await echoed(client, command_id, size)
        first.cancel()  # its connection broke
        await post(big)
        again = [group.create_task(post(end)) for _ in range(2)]
        gate.open()
    assert all(task.done() for task in again)
    await ended(client, command_id)
    await post(end)  # the command has ended, as was asked
    assert statuses == [204] * 4
    assert (await logs(client, command_id))["stdout"].split()[-1] == str(size + len("end\n"))
