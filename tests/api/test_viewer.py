"""Scopes on open sockets: who may only look on, and whose token is gone."""

import asyncio
import json
import struct
from pathlib import Path

import pytest
from aiohttp import WSCloseCode

from procd.api.interpreter import CONTEXTS
from procd.api.pty import PTYS
from procd.app import reload
from procd.services.tokens import Scope
from tests.aliases import Client, MakeClient
from tests.api.access import Secrets, bearer, guarded
from tests.api.cells import EXECUTE, Cell
from tests.api.clients import (
    BINARY,
    CLOSE,
    TEXT,
    WAIT_S,
    Terminal,
    program,
    raw,
    refused,
)
from tests.waiting import until

ECHO = "stty raw -echo; echo ready; cat"


async def served(
    procd: MakeClient, secrets: Secrets, tmp_path: Path, text: str = ECHO, **fields: object
) -> Client:
    """A server with a session t1 that does `text`."""
    client = await guarded(procd, secrets, process={"shell": program(tmp_path, text)})
    body = {"id": "t1", **fields}
    async with client.post("/process/pty", json=body, headers=bearer(secrets.write)) as reply:
        assert reply.status == 201
    return client


async def connect(client: Client, secret: str) -> Terminal:
    ws = await client.ws_connect("/process/pty/t1/connect", headers=bearer(secret))
    terminal = Terminal(ws)
    async with asyncio.timeout(WAIT_S):
        await terminal.step()
    return terminal


async def test_a_viewer_s_input_is_discarded(
    procd: MakeClient, secrets: Secrets, tmp_path: Path
) -> None:
    client = await served(procd, secrets, tmp_path)
    viewer, typist = await connect(client, secrets.read), await connect(client, secrets.write)
    await viewer.until(b"ready")
    for _ in range(3):
        await viewer.type(b"never")
    async with asyncio.timeout(WAIT_S):
        while len(viewer.controls) < 2:
            assert await viewer.step()
    notice = viewer.controls[1]
    assert (notice["type"], notice["status"]) == ("control", "read-only")
    assert "write" in notice["message"]
    await typist.type(b"typed")
    await viewer.until(b"typed")
    await typist.until(b"typed")
    assert b"never" not in typist.output
    assert len(viewer.controls) == 2, "it is told once"


async def test_a_viewer_s_long_message_is_refused(
    procd: MakeClient, secrets: Secrets, tmp_path: Path
) -> None:
    client = await served(procd, secrets, tmp_path)
    authorization = f"Authorization: Bearer {secrets.read}"
    async with raw(client) as viewer:
        await viewer.upgrade("/process/pty/t1/connect", authorization)
        await viewer.send(struct.pack("!BBQI", 0x80 | BINARY, 0x80 | 127, 16 << 20, 0))
        await viewer.send(bytes(1 << 20))
        while (frame := await viewer.frame())[0] != CLOSE:
            continue
        assert int.from_bytes(frame[1][:2], "big") == WSCloseCode.MESSAGE_TOO_BIG
        await viewer.send_frame(CLOSE, frame[1])


async def test_a_viewer_starts_nothing(procd: MakeClient, secrets: Secrets, tmp_path: Path) -> None:
    client = await served(procd, secrets, tmp_path, lazyStart=True)
    viewer = await connect(client, secrets.read)
    assert viewer.connected["status"] == "error"
    assert "not started yet" in viewer.connected["error"]
    assert (await viewer.to_end())[0] == WSCloseCode.INTERNAL_ERROR
    async with client.get("/process/pty/t1", headers=bearer(secrets.read)) as reply:
        assert (await reply.json())["active"] is False
    assert (await connect(client, secrets.write)).connected["status"] == "connected"
    assert (await connect(client, secrets.read)).connected["status"] == "connected"


async def test_what_a_token_that_is_gone_still_sends(
    procd: MakeClient, secrets: Secrets, tmp_path: Path
) -> None:
    """A client that doesn't answer the Close can't type any more."""
    client = await served(procd, secrets, tmp_path)
    kept = await connect(client, secrets.admin)
    await kept.until(b"ready")
    async with raw(client) as bare:
        await bare.upgrade("/process/pty/t1/connect", f"Authorization: Bearer {secrets.write}")
        await bare.next(TEXT)
        secrets.remove("writer")
        reload(client.app)
        await bare.send_frame(2, b"never")
        await bare.output(None)
        await kept.type(b"after")
        await kept.until(b"after")
        assert b"never" not in kept.output


async def test_a_token_that_goes_during_its_handshake(
    procd: MakeClient, secrets: Secrets, tmp_path: Path
) -> None:
    """The socket is closed as one that was open before; nothing is shown on it, nothing typed."""
    size = 4 << 20
    text = f"stty raw -echo; head -c {size} /dev/zero; exec cat"
    client = await served(procd, secrets, tmp_path, text)
    log = client.app[PTYS].get("t1").log
    await until(lambda: log.store.end == size)
    async with raw(client) as bare:
        path = f"/process/pty/t1/connect?replay={size}"
        await bare.ask_upgrade(path, f"Authorization: Bearer {secrets.write}")
        await until(lambda: log.readers == 1)  # the replay is being made
        secrets.remove("writer")
        reload(client.app)
        assert (await bare.head())[0] == 101
        opcode, payload = await bare.frame()
        assert (opcode, payload[:2]) == (CLOSE, WSCloseCode.POLICY_VIOLATION.to_bytes(2, "big"))
        assert await bare.rest() == b""
    assert not log.readers


async def test_an_execution_of_a_token_that_is_gone(procd: MakeClient, secrets: Secrets) -> None:
    """It is interrupted, though its client doesn't answer the Close, and others have their turn."""
    client = await guarded(procd, secrets)
    async with raw(client) as bare:
        await bare.upgrade(EXECUTE, f"Authorization: Bearer {secrets.write}")
        code = "x = 5; import time; print('in'); time.sleep(3600)"
        await bare.send_frame(TEXT, json.dumps({"code": code}).encode())
        assert b"in" in await bare.next(TEXT)
        execution = client.app[CONTEXTS].get("default").current
        assert execution is not None
        secrets.remove("writer")
        reload(client.app)
        assert execution.abandoned.done()
        ws = await client.ws_connect(EXECUTE, headers=bearer(secrets.admin))
        await ws.send_json({"code": "print(x)"})
        assert (await Cell(ws).to_end()).stdout == "5\n"
        assert (await bare.frame())[0] == CLOSE


async def test_a_scope_that_was_lowered_drops_sockets_too(
    procd: MakeClient, secrets: Secrets, tmp_path: Path
) -> None:
    client = await served(procd, secrets, tmp_path)
    terminal = await connect(client, secrets.write)
    secrets.path.write_text(secrets.path.read_text().replace("writer write", "writer read"))
    reload(client.app)
    assert (await terminal.to_end())[0] == WSCloseCode.POLICY_VIOLATION
    assert (await connect(client, secrets.write)).connected["status"] == "connected"


async def test_a_file_that_can_not_be_read_changes_nothing(
    procd: MakeClient, secrets: Secrets, tmp_path: Path
) -> None:
    client = await served(procd, secrets, tmp_path)
    terminal = await connect(client, secrets.write)
    secrets.remove("writer")
    secrets.path.chmod(0o666)
    reload(client.app)
    await terminal.type(b"still")
    await terminal.until(b"still")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["nonsense"],
        [f"chief read sha256:{'0' * 64}"],
        [f"n{number} read sha256:{number:064}" for number in range(100)],
    ],
    ids=["nothing", "a wrong line", "a second name", "too many"],
)
async def test_a_token_that_is_gone_is_out_of_force_whatever_else_is_wrong(
    procd: MakeClient, secrets: Secrets, tmp_path: Path, lines: list[str]
) -> None:
    """And so is what is new, if anything is."""
    client = await served(procd, secrets, tmp_path)
    gone, kept = await connect(client, secrets.write), await connect(client, secrets.admin)
    await gone.until(b"ready")
    secrets.remove("writer")
    new = secrets.made("new", Scope.ADMIN)
    secrets.path.write_text("\n".join([*lines, secrets.path.read_text()]))
    reload(client.app)
    assert (await gone.to_end())[0] == WSCloseCode.POLICY_VIOLATION
    await kept.type(b"still")
    await kept.until(b"still")
    for secret, status in (
        (secrets.write, 401),
        (new, 401 if lines else 200),
        (secrets.admin, 200),
    ):
        async with client.get("/version", headers=bearer(secret)) as reply:
            assert reply.status == status


async def test_without_any_token_nobody_is_let_in(procd: MakeClient, secrets: Secrets) -> None:
    """What was guarded never becomes open."""
    client = await guarded(procd, secrets)
    secrets.path.write_text("")
    reload(client.app)
    for headers in ({}, bearer(secrets.admin)):
        async with client.get("/version", headers=headers) as reply:
            await refused(reply, 401, "UNAUTHORIZED")
