"""Every limit of the configuration, reached: what is refused, how, and that all goes on after.

| Setting | Answer | Where it is tested |
|---|---|---|
| server.max_body_bytes | 413 | test_schema |
| server.max_connections | idle ones go, or 429 | daemon/test_connections |
| server.max_strangers_bytes | those with most go | daemon/test_connections |
| server.max_body_values | 400, and Close 1002 | here |
| server.max_header_bytes | 400 | here |
| server.body_s | 400 | here |
| process.max_processes | 429 | here |
| process.max_spawns_per_s, spawn_burst | 429 | here |
| process.max_total_output_bytes | 429, and less is kept | here |
| process.memory_max_bytes | the kernel ends what has more | test_process_cgroup |
| execute.max_concurrent | 429 | test_execute |
| execute.max_output_bytes | `truncated` | test_execute |
| execute.max_timeout_s | 408 | test_execute |
| code_run.max_artifact_bytes | a picture alone, or none | test_code_run |
| pty.max_sessions | 429 | test_pty_limits |
| pty.max_clients | 1011 and a message | test_pty_limits |
| pty.max_message_bytes | 1009 | here |
| pty.backlog_bytes, max_ended, linger_s | less is kept | test_pty_attach |
| pty.replay_bytes | less is replayed | test_pty_attach |
| pty.input_queue_bytes | the client is not read | test_pty_attach |
| pty.window_bytes | less is sent ahead | test_pty_protocol |
| pty.max_recording_bytes | the recording ends | test_recordings |
| pty.max_recordings | the oldest goes | test_recordings |
| sessions.max_sessions | 429 | here |
| sessions.max_queued | 429 | here |
| sessions.max_commands | the oldest goes, or 429 | here |
| sessions.max_total_text_bytes | the oldest goes, or 429 | here |
| sessions.max_log_bytes, max_total_log_bytes | `truncated` | test_session_logs |
| sessions.input_queue_bytes | the request waits | test_session_input |
| sessions.max_wait_s | answers early | test_session_control |
| interpreter.max_contexts | 429 | test_interpreter |
| interpreter.max_queued | 429 | test_interpreter |
| interpreter.max_message_bytes | 1009 | test_interpreter |
| interpreter.buffer_bytes | the code waits | test_interpreter |
| auth.max_tokens | procd doesn't start | test_auth |
| auth.max_tickets | 429 | test_tickets |
| audit.refused_per_s | the rest is counted | test_audit |
| health.min_disk_bytes, max_loop_lag_s | 503 | test_health |
"""

import asyncio
import re
from dataclasses import fields
from pathlib import Path

import pytest
from aiohttp import WSCloseCode, WSMsgType

from procd.app import PROCESSES
from procd.config import Config
from tests.aliases import Client, MakeClient
from tests.api import sessions
from tests.api.clients import (
    Gate,
    Raw,
    connect,
    create,
    delete,
    each,
    execute,
    json_body,
    program,
    raw,
    refused,
)
from tests.waiting import until

MEGABYTE = 1 << 20


def test_every_limit_is_in_the_table_above() -> None:
    config = Config()
    table: dict[tuple[str, str], None] = {}
    for row in re.findall(r"^\| (.*?) \|", __doc__, re.MULTILINE):
        section, _, keys = row.partition(".")
        table |= dict.fromkeys((section, key) for key in keys.split(", "))
    limits = {
        (section.name, key.name)
        for section in fields(config)
        for key in fields(getattr(config, section.name))
        if re.search("max_|_bytes$|_per_s$", key.name)
    }
    assert limits <= table.keys()


async def refused_execute(client: Client, status: int, code: str, command: str = "true") -> str:
    """Have an execute refused; its message."""
    async with client.post("/process/execute", data=json_body({"command": command})) as reply:
        message: str = (await refused(reply, status, code))["message"]
        return message


@each(
    "document",
    [
        {"command": "echo ran", "envs": {f"A{number}": "," for number in range(1000)}},
        {"command": "echo ran", "ignored": [[]] * 1000},
        {"command": "echo ran", "ignored": [{"a": [1]}] * 400},
        {"ignored": {'\\"': dict.fromkeys(map(str, range(1000)))}, "command": "echo ran"},
    ],
)
async def test_body_of_many_values(procd: MakeClient, document: dict[str, object]) -> None:
    client = await procd(server={"max_body_values": 1000})
    async with client.post("/process/execute", data=json_body(document)) as reply:
        failure = await refused(reply, 400, "INVALID_REQUEST_BODY")
        assert failure["message"] == "invalid request body: more than 1000 values"


async def test_cell_of_many_values(procd: MakeClient) -> None:
    client = await procd(server={"max_body_values": 64})
    async with client.ws_connect("/process/interpreter/execute") as ws:
        await ws.send_json({"code": "pass", "ignored": list(range(65))})
        assert (await ws.receive()).type is WSMsgType.CLOSE
        assert ws.close_code == 1002


@each("length", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_body_that_stops_coming(procd: MakeClient, length: str) -> None:
    client = await procd(server={"body_s": 0.1})
    async with raw(client) as slow:
        await slow.request(f"POST /process/execute HTTP/1.1\n{length}")
        status, _ = await slow.head()
        assert status == 400
        assert b"it has stopped coming" in await slow.rest()
    assert (await execute(client, "echo on"))["result"] == "on\n"


async def test_number_of_headers(procd: MakeClient) -> None:
    client = await procd()
    for count, status in ((120, 200), (130, 400)):
        headers = {f"X-{number}": "x" for number in range(count)}
        async with client.get("/version", headers=headers) as reply:
            assert reply.status == status
            said = (await reply.json()).get("message", "")
            assert ("more than 128 header fields" in said) == (status == 400)


async def answered(client: Raw) -> int:
    """The status of the next reply, which is read."""
    status, lines = await client.head()
    (length,) = (int(line.split()[1]) for line in lines if line.startswith("Content-Length"))
    await client.exactly(length)
    return status


@each("before", [b"", b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_headers(procd: MakeClient, before: bytes) -> None:
    client = await procd(server={"max_header_bytes": 8190})
    async with raw(client) as endless:
        await endless.send(before + b"GET /version HTTP/1.1\r\nHost: localhost\r\n")
        if before:
            assert await answered(endless) == 200
        for number in range(4):
            await endless.send(b"X-%d: %s\r\n" % (number, b"x" * 8000))
        assert (await endless.head())[0] == 400
        assert b"the request line or the headers are too long" in await endless.rest()
    async with client.get("/version") as reply:
        assert reply.status == 200


async def test_heads_and_bodies_that_come_in_pieces(procd: MakeClient) -> None:
    """Neither a body counts, nor what came before."""
    client = await procd(server={"max_header_bytes": 8190})
    body = json_body({"command": f"echo on {'x' * 50_000}"}).read()
    async with raw(client) as slow:
        for _ in range(3):
            head = f"POST /process/execute HTTP/1.1\r\nHost: localhost\r\nX-Long: {'x' * 8000}\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            whole = head.encode() + body
            for begin in range(0, len(whole), 3000):
                await slow.send(whole[begin : begin + 3000])
                await asyncio.sleep(0)
            assert await answered(slow) == 200


async def test_processes(procd: MakeClient) -> None:
    client = await procd(process={"max_processes": 1}, sessions={"grace_s": 0.2})
    await sessions.create(client)
    assert "limit of 1 processes" in await refused_execute(client, 429, "LIMIT_REACHED")
    async with client.post("/process/pty", json={"id": "t"}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    async with client.post("/process/session", json={"sessionId": "other"}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    assert (await sessions.run(client, "echo on"))["output"] == "on\n"
    await sessions.delete(client)
    assert (await execute(client, "echo on"))["result"] == "on\n"


async def test_rate_of_spawns(procd: MakeClient) -> None:
    # So slow that none is added while the test runs.
    client = await procd(process={"max_spawns_per_s": 0.001, "spawn_burst": 2})
    for _ in range(2):
        assert (await execute(client, "echo on"))["result"] == "on\n"
    message = await refused_execute(client, 429, "LIMIT_REACHED")
    assert message == "limit of 0.001 new processes per second is reached"
    async with client.post("/process/pty", json={"id": "t"}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    async with client.post("/process/session", json={"sessionId": "s"}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    async with client.get("/process/session") as reply:
        assert await reply.json() == []


async def test_output_in_memory(procd: MakeClient, tmp_path: Path) -> None:
    # A terminal that fills the budget with what it would replay: it goes on, others are refused.
    text = "stty -opost; seq -w 999999; echo END; read x"
    client = await procd(
        process={"shell": program(tmp_path, text), "max_total_output_bytes": MEGABYTE},
        pty={"backlog_bytes": 8 * MEGABYTE, "replay_bytes": MEGABYTE, "max_ended": 0},
    )
    memory = client.app[PROCESSES].memory
    await create(client, "t")
    terminal = await connect(client, "t")
    await terminal.until(b"END\n")
    assert 0 < memory.used_bytes <= MEGABYTE + (64 << 10)
    body = await refused_execute(client, 429, "LIMIT_REACHED")
    assert body == f"limit of {MEGABYTE} bytes of output held in memory is reached"
    async with client.post("/process/pty", json={"id": "other"}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    await terminal.type(b"\n")
    await terminal.to_end()
    assert bytes(terminal.output).count(b"\n") >= 1_000_000, "nothing was lost to who reads"
    assert memory.used_bytes == 0
    await create(client, "other", lazyStart=True)
    await delete(client, "other")


async def test_output_in_memory_of_commands(procd: MakeClient) -> None:
    client = await procd(process={"max_total_output_bytes": MEGABYTE})
    for _ in range(3):
        body = await execute(client, "seq -w 999999")
        assert body["truncated"] is True
        assert body["exitCode"] == 0
        assert body["result"].startswith("000001\n")
        assert body["result"].endswith("999999\n")
        assert len(body["result"]) < 2 * MEGABYTE
    assert client.app[PROCESSES].memory.used_bytes == 0


async def test_requests_in_memory(procd: MakeClient, gate: Gate) -> None:
    """What waits is counted with the output until it has ended; for one more there is no room."""
    client = await procd(process={"max_total_output_bytes": MEGABYTE})
    memory = client.app[PROCESSES].memory
    long = "x" * 600_000
    envs = {f"A{number}": "x" * 100_000 for number in range(6)}
    await create(client, "t", lazyStart=True, envs=envs)
    assert memory.used_bytes > 600_000
    async with client.post("/process/pty", json={"id": "other", "envs": envs}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    await refused_execute(client, 429, "LIMIT_REACHED", f"true {long}")
    async with client.post(
        "/process/code-run", json={"code": f"# {long}", "language": "python"}
    ) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    async with client.ws_connect("/process/interpreter/execute") as cell:
        await cell.send_json({"code": f"# {long}"})
        assert (await cell.receive()).data == WSCloseCode.TRY_AGAIN_LATER
    await delete(client, "t")
    assert memory.used_bytes == 0
    running = asyncio.ensure_future(execute(client, f"read x <{gate} # {long}"))
    await until(lambda: memory.used_bytes > 600_000)
    async with client.post("/process/pty", json={"id": "other", "envs": envs}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    gate.open()
    await running
    assert memory.used_bytes == 0
    async with client.ws_connect("/process/interpreter/execute") as first:
        await first.send_json({"code": f"open({str(gate)!r}).readline() # {long}"})
        await until(lambda: memory.used_bytes > 600_000)
        async with client.ws_connect("/process/interpreter/execute") as second:
            await second.send_json({"code": f"# {long}"})
            assert (await second.receive()).data == WSCloseCode.TRY_AGAIN_LATER
        gate.open()
        assert (await first.receive_json())["text"] == "completed"
        assert memory.used_bytes == 0


async def test_terminals_that_have_ended_give_way(procd: MakeClient, tmp_path: Path) -> None:
    text = '[ "$1" = -c ] && exec sh "$@"; seq -w 299999; exit 3'
    client = await procd(
        process={"shell": program(tmp_path, text), "max_total_output_bytes": MEGABYTE},
        pty={"linger_s": 600.0},
    )
    for number in range(3):
        await create(client, f"t{number}")
        terminal = await connect(client, f"t{number}")
        await terminal.to_end()
        assert terminal.ending["exitCode"] == 3
    assert (await execute(client, "echo on"))["result"] == "on\n"


async def test_message_to_a_terminal(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(
        process={"shell": program(tmp_path, "read x")}, pty={"max_message_bytes": 1024}
    )
    await create(client, "t")
    async with client.ws_connect("/process/pty/t/connect", autoclose=False) as ws:
        assert (await ws.receive_json())["status"] == "connected"
        await ws.send_bytes(b"x" * 2000)
        while (message := await ws.receive()).type is WSMsgType.BINARY:
            pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1009)
        assert message.extra == '{"error":"the message was too long"}'
        await ws.close()
    await delete(client, "t")


async def test_sessions(procd: MakeClient) -> None:
    client = await procd(sessions={"max_sessions": 1, "grace_s": 0.2})
    await sessions.create(client)
    async with client.post("/process/session", json={"sessionId": "other"}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    await sessions.delete(client)
    await sessions.create(client)


@pytest.mark.parametrize("setting", ["max_queued", "max_commands"])
async def test_commands_of_a_session(procd: MakeClient, gate: Gate, setting: str) -> None:
    limits = {"max_queued": 1} if setting == "max_queued" else {"max_commands": 2}
    client = await procd(sessions={**limits, "grace_s": 0.2})
    await sessions.create(client)
    running = await sessions.start(client, f"read x <{gate}")
    queued = await sessions.start(client, "true")
    await refused(await sessions.post_exec(client, "true", runAsync=True), 429, "LIMIT_REACHED")
    gate.open()
    for command_id in (running, queued):
        assert (await sessions.ended(client, command_id))["exitCode"] == 0
    assert (await sessions.run(client, "echo on"))["output"] == "on\n"
    if setting == "max_commands":
        async with client.get(sessions.path_of(running)) as reply:
            await refused(reply, 404, "PROCESS_NOT_FOUND")


async def test_texts_of_commands(procd: MakeClient, gate: Gate) -> None:
    client = await procd(sessions={"max_total_text_bytes": MEGABYTE})
    long = f": {'x' * (400 << 10)}"
    await sessions.create(client)
    first, second = [(await sessions.run(client, long))["cmdId"] for _ in range(2)]
    running = await sessions.start(client, f"read x <{gate}\n{long}")
    async with client.get(sessions.path_of(first)) as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")
    await sessions.create(client, "other")
    post = sessions.post_exec(client, f"{long}\n{long}", session_id="other", runAsync=True)
    await refused(await post, 429, "LIMIT_REACHED")
    post = sessions.post_exec(client, f"{long}\n{long}\n{long}", runAsync=True)
    await refused(await post, 429, "LIMIT_REACHED")
    async with client.get(sessions.path_of(second)) as reply:
        assert reply.status == 200, "it wouldn't be enough if it went"
    gate.open()
    assert (await sessions.ended(client, running))["exitCode"] == 0
    await sessions.delete(client)
    assert (await sessions.run(client, f"{long}\n{long}\necho on", session_id="other"))[
        "output"
    ] == "on\n"
