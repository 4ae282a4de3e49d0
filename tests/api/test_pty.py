"""PTY sessions over REST: contract, sections 10.1, 10.2, 10.4, 10.6 and 10.7."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.aliases import Client, MakeClient
from tests.api.clients import (
    EXIT_TOKEN,
    Fifo,
    connect,
    create,
    delete,
    describe,
    each,
    listed,
    program,
    raw,
    refused,
)


async def resize(client: Client, session_id: str, cols: int, rows: int) -> dict[str, Any]:
    size = {"cols": cols, "rows": rows}
    async with client.post(f"/process/pty/{session_id}/resize", json=size) as reply:
        body: dict[str, Any] = await reply.json()
        assert reply.status == 200, body
        return body


async def refused_create(
    client: Client, document: dict[str, object], status: int, code: str
) -> str:
    """Try to create a session, and return why it was refused."""
    async with client.post("/process/pty", json=document) as reply:
        message: str = (await refused(reply, status, code))["message"]
        return message


async def test_a_session_as_it_is_shown(procd: MakeClient) -> None:
    client = await procd(process={"work_dir": "/usr"})
    before = datetime.now(UTC)
    await create(client, "t1")
    shown = await describe(client, "t1")
    assert before <= datetime.fromisoformat(shown.pop("createdAt")) <= datetime.now(UTC)
    assert shown == {
        "id": "t1",
        "cwd": "/usr",
        "envs": {"TERM": "xterm-256color"},
        "cols": 80,
        "rows": 24,
        "active": True,
        "lazyStart": False,
    }


async def test_list_is_in_order_of_creation(procd: MakeClient) -> None:
    client = await procd()
    assert await listed(client) == []
    for session_id in ("z", "a", "m"):
        await create(client, session_id, lazyStart=session_id != "a")
    async with client.get("/process/pty") as reply:
        sessions = (await reply.json())["sessions"]
    assert [session["id"] for session in sessions] == ["z", "a", "m"]
    assert [session["active"] for session in sessions] == [False, True, False]
    assert sessions[1] == await describe(client, "a")


async def test_duplicate(procd: MakeClient) -> None:
    client = await procd()
    await create(client, "t1", cols=100, lazyStart=True)
    message = await refused_create(client, {"id": "t1"}, 409, "CONFLICT")
    assert message == "PTY session with ID 't1' already exists"
    assert (await describe(client, "t1"))["cols"] == 100


@each(
    "bad",
    [
        "a/b",
        "/",
        "..",
        ".",
        "create-connect",
        "a\nb",
        "a\0b",
        "a\x7f",
        "\x1b[m",
        "a\u0085",
        "a\u2028",
        "x" * 256,
    ],
)
async def test_ids_that_cannot_be(procd: MakeClient, bad: str) -> None:
    client = await procd()
    await refused_create(client, {"id": bad}, 400, "BAD_REQUEST")
    assert await listed(client) == []


async def test_ids_that_can_be(procd: MakeClient) -> None:
    client = await procd()
    names = ("my-session-1", "a b", "A.b_c~d:e@f", "ü€😀", "%2e", "a?b#c", "x" * 255, "...")
    for good in (*names, "{x}", "}{", "a\u00a0b", "\U0001f469\u200d\U0001f680"):
        await create(client, good, lazyStart=True)
        async with client.get("/process/pty") as reply:
            assert (await reply.json())["sessions"][0]["id"] == good
        url = client.make_url("/process/pty") / good
        async with client.session.get(url) as reply:
            assert (await reply.json())["id"] == good
        async with client.session.ws_connect(url / "connect") as ws:
            assert (await ws.receive_json())["status"] == "connected"
        async with client.session.delete(url) as reply:
            assert reply.status == 200


@each("side", ["cols", "rows"])
async def test_size_limits(procd: MakeClient, side: str) -> None:
    client = await procd()
    await create(client, "t1", lazyStart=True)
    for cells in (0, 1001, 65_535):
        message = await refused_create(client, {"id": "t2", side: cells}, 400, "BAD_REQUEST")
        assert side in message
        size = {"cols": 80, "rows": 24} | {side: cells}
        async with client.post("/process/pty/t1/resize", json=size) as reply:
            assert side in (await refused(reply, 400, "BAD_REQUEST"))["message"]
        async with client.post("/process/pty/unknown/resize", json=size) as reply:
            await refused(reply, 400, "BAD_REQUEST")
    assert await listed(client) == ["t1"]
    assert (await describe(client, "t1"))[side] == {"cols": 80, "rows": 24}[side]


@each("name", ["A-B", "1A", "", "A=B"])
async def test_bad_environment_name(procd: MakeClient, name: str) -> None:
    client = await procd()
    message = await refused_create(client, {"id": "t1", "envs": {name: "x"}}, 400, "BAD_REQUEST")
    assert message == f"invalid environment variable name: '{name}'"
    assert await listed(client) == []


async def test_shell_that_cannot_start(procd: MakeClient) -> None:
    client = await procd()
    message = await refused_create(
        client, {"id": "t1", "cwd": "/nowhere"}, 500, "INTERNAL_SERVER_ERROR"
    )
    assert message.startswith("failed to start PTY session")
    assert "/nowhere" in message
    assert await listed(client) == []
    await create(client, "t1")


async def test_login_shell_that_is_interactive_with_job_control(
    procd: MakeClient, tmp_path: Path
) -> None:
    client = await procd(process={"shell": "/bin/bash"})
    await create(client, "t1", envs={"HOME": str(tmp_path)})
    terminal = await connect(client, "t1")
    await terminal.type(b"PS1='<pro''mpt>'\n")
    await terminal.until(b"<prompt>")
    await terminal.type(
        b"shopt -q login_shell && echo log''in; case $- in *i*m*) echo j''obs; esac\n"
    )
    await terminal.until(b"login\r\njobs\r\n")
    # The interrupt ends what runs in the foreground, and not the shell.
    await terminal.type(b"sh -c 'echo wait\"\"ing; exec sleep 3600'\n")
    await terminal.until(b"waiting\r\n")
    prompts = terminal.output.count(b"<prompt>")
    await terminal.type(b"\x03")
    await terminal.until(lambda output: output.count(b"<prompt>") > prompts)
    await terminal.type(b"echo still he''re $?\n")
    await terminal.until(b"still here 130")


async def test_terminal_of_the_shell(procd: MakeClient, tmp_path: Path) -> None:
    shell = program(tmp_path, 'stty size; tty; echo "$TERM|$A|$PWD|$*"; cat /dev/tty')
    client = await procd(process={"shell": shell})
    await create(client, "t1", cols=132, rows=43, envs={"A": "ü 1"}, cwd="/usr")
    terminal = await connect(client, "t1")
    await terminal.until(b"43 132\r\n/dev/pts/")
    await terminal.until("xterm-256color|ü 1|/usr|-i -l\r\n".encode())


async def test_resize(procd: MakeClient, tmp_path: Path) -> None:
    text = "trap 'stty size; n=$((n + 1))' WINCH; echo ready; while :; do read x; done"
    client = await procd(process={"shell": program(tmp_path, text)})
    await create(client, "t1")
    terminal = await connect(client, "t1")
    await terminal.until(b"ready")
    shown = await resize(client, "t1", 100, 30)
    assert (shown["cols"], shown["rows"]) == (100, 30)
    assert shown == await describe(client, "t1")
    await terminal.type(b"\n")  # a shell that reads runs its trap after the read
    await terminal.until(b"30 100")
    await resize(client, "t1", 1, 1000)
    await terminal.type(b"\n")
    await terminal.until(b"1000 1\r\n")


async def test_lazy_session_starts_with_the_first_client(procd: MakeClient, tmp_path: Path) -> None:
    shell = program(tmp_path, f"echo started >>{tmp_path}/log; stty size; read x")
    client = await procd(process={"shell": shell})
    await create(client, "t1", lazyStart=True)
    assert (await resize(client, "t1", 91, 17))["active"] is False
    assert not (tmp_path / "log").exists()
    first = await connect(client, "t1")
    await first.until(b"17 91")
    shown = await describe(client, "t1")
    assert (shown["active"], shown["lazyStart"]) == (True, True)
    second = await connect(client, "t1")
    await second.until(b"17 91")
    assert (tmp_path / "log").read_text() == "started\n"


async def test_delete(procd: MakeClient, tmp_path: Path, alive: Fifo) -> None:
    text = (
        f"exec 9>{alive}; trap '' HUP TERM; sleep 3600 & (setsid sleep 3600 &); "
        "setsid sh -c 'trap \"\" HUP; sleep 3600; sleep 3600' & echo begun >&9; wait; sleep 3600"
    )
    client = await procd(process={"shell": program(tmp_path, text)})
    await create(client, "t1")
    assert await alive.line() == "begun"
    await delete(client, "t1")
    await alive.ended()
    assert await listed(client) == []
    async with client.get("/process/pty/t1") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")
    async with client.delete("/process/pty/t1") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")
    async with client.post("/process/pty/t1/resize", json={"cols": 1, "rows": 1}) as reply:
        await refused(reply, 410, "SESSION_ENDED")


async def test_id_is_free_while_the_old_session_is_being_deleted(
    procd: MakeClient, tmp_path: Path, alive: Fifo
) -> None:
    text = f"trap '' HUP; echo begun >{alive}; while :; do read x || sleep 3600; done"
    client = await procd(process={"shell": program(tmp_path, text)}, pty={"hangup_s": 3.0})
    await create(client, "t1", envs={"N": "old"})
    assert await alive.line() == "begun"
    async with asyncio.TaskGroup() as group:
        deleting = group.create_task(delete(client, "t1"))
        while "t1" in await listed(client):
            pass
        await create(client, "t1", envs={"N": "new"})
        assert not deleting.done()
    assert (await describe(client, "t1"))["envs"]["N"] == "new"
    assert await alive.line() == "begun"
    await delete(client, "t1")


async def test_deleting_goes_on_when_its_client_leaves(
    procd: MakeClient, tmp_path: Path, alive: Fifo
) -> None:
    text = f"exec 9>{alive}; trap 'echo hung up >&9' HUP; echo begun >&9; while :; do read x; done"
    client = await procd(process={"shell": program(tmp_path, text)}, pty={"hangup_s": 0.5})
    await create(client, "t1")
    terminal = await connect(client, "t1")
    assert await alive.line() == "begun"
    async with raw(client) as impatient:
        await impatient.request("DELETE /process/pty/t1 HTTP/1.1")
        assert await alive.line() == "hung up"
        await impatient.leave()
        await alive.ended()
    assert (await terminal.to_end())[0] == 1011
    assert terminal.ending["exitCode"] == 137
    assert await listed(client) == []


@each("tokens", [(), (EXIT_TOKEN,)])
async def test_clients_of_a_deleted_session(
    procd: MakeClient, tmp_path: Path, tokens: tuple[str, ...]
) -> None:
    # The shell leaves in order when it is hung up, and is reported as killed all the same.
    text = "trap 'echo bye; exit 0' HUP; echo ready; while :; do read x; done"
    client = await procd(process={"shell": program(tmp_path, text)})
    await create(client, "t1")
    terminals = [await connect(client, "t1", "", *tokens) for _ in range(3)]
    for terminal in terminals:
        await terminal.until(b"ready")
    async with asyncio.TaskGroup() as group:
        ends = [group.create_task(terminal.to_end()) for terminal in terminals]
        await delete(client, "t1")
    for terminal, end in zip(terminals, ends, strict=True):
        assert end.result()[0] == 1011
        assert terminal.ending == {"exitCode": 137, "exitReason": "SIGKILL"}
        exited = {"type": "control", "status": "exited", **terminal.ending}
        assert terminal.controls[1:] == ([exited] if tokens else [])


async def test_environment_values_are_never_logged(
    procd: MakeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    client = await procd(process={"shell": program(tmp_path, "exit 3")})
    secret = "s3cret" * 3
    await create(client, "t1", envs={"A": secret})
    await (await connect(client, "t1", "?offset=0")).to_end()
    for document in (
        {"id": "t2", "envs": {"A": secret, "B-C": "x"}},
        {"id": "t2", "envs": {"A": secret, "B": 1}},
        {"id": "t2", "envs": {"A": secret}, "cwd": "/nowhere"},
    ):
        async with client.post("/process/pty", json=document) as reply:
            assert reply.status >= 400
            assert secret not in await reply.text()
    assert "pty ended" in caplog.text, "there is a log"
    for record in caplog.records:
        assert secret not in record.getMessage()
        assert secret not in str(record.__dict__)
