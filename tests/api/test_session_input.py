"""Input of commands: contract, section 8.6."""

import asyncio
import os
import signal

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


async def one_waits(client: Client, command_id: str) -> None:
    """Wait until the server has a request for input that it does not answer yet."""
    command = client.app[SESSIONS].get("s").history.get(command_id)

    async def waits() -> bool:
        assert "exitCode" not in await get(client, path_of(command_id))
        assert command._writer is not None
        return len(command._writer._waiters) == 1

    await until(waits)


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


async def test_echo_can_be_suppressed(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, "read x; echo got $x", suppressInputEcho=True)
    assert (await type_in(client, command_id, "secret\n")).status == 204
    await ended(client, command_id)
    assert (await logs(client, command_id))["output"] == "got secret\n"


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
async def test_end_of_input(procd: MakeClient, together: bool) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, "echo ready; sort", suppressInputEcho=True)
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    await type_in(client, command_id, "b")
    if together:
        assert (await type_in(client, command_id, "a", eof=True)).status == 204
    else:
        assert (await type_in(client, command_id, "a")).status == 204
        assert (await type_in(client, command_id, eof=True)).status == 204
    assert await listener.to_end() == b"ready\na\nb\n"
    assert (await run(client, "echo next"))["output"] == "next\n"


async def test_end_of_input_before_the_shell_opens_it(procd: MakeClient) -> None:
    """It takes its time, in a trap for instance, while others open what they need."""
    client = await procd()
    await create(client)
    await create(client, "other")
    await run(client, "echo ready")
    shell = client.app[SESSIONS].get("s").pid
    os.kill(shell, signal.SIGSTOP)
    command_id = await start(client, "cat; echo end", suppressInputEcho=True)
    assert (await type_in(client, command_id, "mine", eof=True)).status == 204

    async def given_up() -> bool:
        await get(client, path_of(command_id))
        return all(not task.get_name().startswith("end of input") for task in asyncio.all_tasks())

    await until(given_up)
    others = [
        await start(client, "read x; echo $x", "other", suppressInputEcho=True) for _ in range(4)
    ]
    for other in others[1:]:
        assert (await type_in(client, other, "theirs", "other")).status == 204
    os.kill(shell, signal.SIGCONT)
    assert (await ended(client, command_id))["exitCode"] == 0
    assert (await logs(client, command_id))["output"] == "mine\nend\n"
    for other in others[1:]:
        assert "exitCode" not in await get(client, path_of(other, "other"))
    await type_in(client, others[0], "first", "other")
    for other in others:
        await ended(client, other, "other")


async def test_end_of_input_of_one_who_has_moved_it(procd: MakeClient) -> None:
    """The shell's descriptor is another by then, and a child has it."""
    client = await procd()
    await create(client)
    script = "exec 3<&0 </dev/null; echo ready; cat <&3; exec 3<&-"
    command_id = await start(client, script, suppressInputEcho=True)
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    assert (await type_in(client, command_id, "a", eof=True)).status == 204
    assert await listener.to_end() == b"ready\na\n"


async def test_end_of_input_before_its_turn(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    first = await start(client, f"read x <{gate}")
    command_id = await start(client, "cat", suppressInputEcho=True)
    assert (await type_in(client, command_id, "early", eof=True)).status == 204
    gate.open()
    await ended(client, first)
    await ended(client, command_id)
    assert (await logs(client, command_id))["output"] == "early\n"


async def test_the_end_of_much_input_comes_after_all_of_it(procd: MakeClient, gate: Gate) -> None:
    """Of which a pipe holds no more than the first part."""
    client = await procd()
    await create(client)
    command_id = await start(client, f"read x <{gate}; wc -c", suppressInputEcho=True)
    assert (await type_in(client, command_id, "x" * 299_999, eof=True)).status == 204
    gate.open()
    assert (await ended(client, command_id))["exitCode"] == 0
    assert (await logs(client, command_id))["output"].strip() == "300000"


async def test_input_after_its_end_is_refused(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"echo ready; cat; read x <{gate}")
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    assert (await type_in(client, command_id, eof=True)).status == 204
    await refused(await type_in(client, command_id, "x"), 400, "BAD_REQUEST")
    gate.open()
    await listener.to_end()


BAD_INPUTS = [b"", b"{}", b'{"data": ""}', b'{"data": 1}', b'{"data": null}', b'{"eof": false}',
 b'{"data": "x", "eof": 1}', b"[]"]  # fmt: skip


async def test_bad_input(procd: MakeClient) -> None:
    client = await procd(sessions={"grace_s": 0.2})
    await create(client)
    command_id = await start(client, "cat")
    for body in BAD_INPUTS:
        async with client.post(path_of(command_id) + "/input", data=body) as reply:
            await refused(reply, 400, "INVALID_REQUEST_BODY")


async def test_command_that_takes_no_input(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(post_exec(client, f"read x <{gate}"))
        async with asyncio.timeout(20):
            while not (commands := (await get(client, "/process/session/s"))["commands"]):
                pass
        await refused(await type_in(client, commands[0]["id"], "x"), 400, "BAD_REQUEST")
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


async def test_queued_command_gets_what_was_typed_ahead(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    await start(client, f"read x <{gate}")
    queued = await start(client, "read a; read b; echo $b $a")
    assert (await type_in(client, queued, "one")).status == 204
    assert (await type_in(client, queued, "two")).status == 204
    gate.open()
    await ended(client, queued)
    assert (await logs(client, queued))["output"] == "one\ntwo\ntwo one\n"


async def test_input_is_of_its_command_only(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, "read x", suppressInputEcho=True)
    await type_in(client, command_id, "1\necho not a command\necho nor this")
    await ended(client, command_id)
    follower = await start(client, "echo ready; read x; echo got $x", suppressInputEcho=True)
    listener = await follow(client, follower)
    await listener.until(b"ready\n")
    await type_in(client, follower, "mine")
    assert await listener.to_end() == b"ready\ngot mine\n"
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_who_types_too_much_waits_until_it_is_read(procd: MakeClient, gate: Gate) -> None:
    client = await procd(sessions={"input_queue_bytes": 1024})
    await create(client)
    command_id = await start(
        client, f"read x <{gate}; head -c 3000002 | wc -c", suppressInputEcho=True
    )
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(type_in(client, command_id, "x" * 3_000_001))
        await one_waits(client, command_id)
        gate.open()
    assert waiting.result().status == 204
    assert (await ended(client, command_id))["exitCode"] == 0
    assert (await logs(client, command_id))["output"].strip() == "3000002"


@pytest.mark.parametrize("how", ["end", "delete"])
async def test_who_waits_is_freed_by_the_end(procd: MakeClient, gate: Gate, how: str) -> None:
    client = await procd(sessions={"input_queue_bytes": 1024, "grace_s": 0.2})
    await create(client)
    command_id = await start(client, f"read x <{gate}", suppressInputEcho=True)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(type_in(client, command_id, "x" * 10_000_000))
        await one_waits(client, command_id)
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
    path = f"{path_of(command_id)}/input"
    for body in ({"dataBase64": "/wAB"}, {"dataBase64": "Yg==", "eof": True}):
        async with client.post(path, json=body) as reply:
            assert reply.status == 204, await reply.text()
    assert (await ended(client, command_id))["exitCode"] == 0
    assert (await logs(client, command_id))["stdout"] == " ff 00 01 62\n"


@pytest.mark.parametrize(
    "body",
    [
        {"dataBase64": "?"},
        {"dataBase64": "/wA"},
        {"dataBase64": "é"},
        {"dataBase64": ""},
        {"dataBase64": 1},
        {"dataBase64": "YQ==", "data": "a"},
    ],
)
async def test_bytes_that_are_none(procd: MakeClient, body: dict[str, object]) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, "read x")
    async with client.post(f"{path_of(command_id)}/input", json=body) as reply:
        assert reply.status == 400
        assert (await reply.json())["code"] == "INVALID_REQUEST_BODY"


async def test_a_request_that_is_repeated_is_done_once(procd: MakeClient, gate: Gate) -> None:
    client = await procd(sessions={"input_queue_bytes": 1024})
    await create(client)
    command_id = await start(client, f"read x <{gate}; cat; wc -c", suppressInputEcho=True)
    path = f"{path_of(command_id)}/input"
    big: dict[str, object] = {"data": "x" * 900_000, "idempotencyKey": "big"}
    end: dict[str, object] = {"data": "end", "idempotencyKey": "end", "eof": True}
    statuses = []

    async def post(body: dict[str, object]) -> None:
        async with client.post(path, json=body) as reply:
            statuses.append(reply.status)

    async with asyncio.TaskGroup() as group:
        first = group.create_task(post(big))
        await one_waits(client, command_id)
        first.cancel()  # its connection broke
        await post(big)
        again = [group.create_task(post(end)) for _ in range(2)]
        gate.open()
    assert all(task.done() for task in again)
    await post(end)  # the command has ended, as was asked
    assert statuses == [204] * 4
    await ended(client, command_id)
    assert (await logs(client, command_id))["stdout"] == "x" * 900_000 + "\nend\n0\n"


async def test_a_key_that_is_too_long(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, "read x")
    body = {"data": "x", "idempotencyKey": "k" * 65}
    async with client.post(f"{path_of(command_id)}/input", json=body) as reply:
        await refused(reply, 400, "INVALID_REQUEST_BODY")
