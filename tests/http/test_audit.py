"""The audit record: who did what, when, how it ended; not what was typed, run or printed."""

import json
import os
import resource
import stat
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError

from procd.app import reload
from procd.config import ConfigError
from procd.config_file import from_mapping
from procd.http.audit import AuditFile
from procd.services.tokens import new_secret
from tests.aliases import Client, MakeClient
from tests.api.access import Secrets, bearer, guarded
from tests.api.clients import (
    Gate,
    Terminal,
    attach,
    create,
    delete,
    each,
    execute,
    program,
    raw,
    until,
)

ORDER = ["opened", "ended", "closed"]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def audited(
    procd: MakeClient, secrets: Secrets, path: Path, **sections: dict[str, object]
) -> Client:
    return await guarded(procd, secrets, audit={"file": str(path)}, **sections)


async def test_a_command(procd: MakeClient, secrets: Secrets, tmp_path: Path) -> None:
    path = tmp_path / "audit"
    client = await audited(procd, secrets, path)
    body = {"command": "echo printed; exit 3", "envs": {"X": "hidden"}}
    headers = bearer(secrets.write)
    async with client.post("/process/execute?q=hidden", json=body, headers=headers) as reply:
        assert reply.status == 200
    (record,) = records(path)
    assert record.pop("time").endswith("Z")
    assert record.pop("durationMs") >= 0
    assert record == {
        "event": "request",
        "token": "writer",
        "peer": "127.0.0.1",
        "method": "POST",
        "route": "/process/execute",
        "status": 200,
        "exitCode": 3,
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_session(procd: MakeClient, secrets: Secrets, tmp_path: Path) -> None:
    path = tmp_path / "audit"
    client = await audited(procd, secrets, path)
    headers = bearer(secrets.admin)
    url = "/process/session"
    async with client.post(url, json={"sessionId": "s1"}, headers=headers) as reply:
        assert reply.status == 201
    body = {"command": "echo printed; (exit 4)"}
    prefixed = f"/toolbox/sb1{url}/s1/exec/"
    async with client.post(prefixed, json=body, headers=headers) as reply:
        command = (await reply.json())["cmdId"]
    async with client.get(f"{url}/s1/command/nope/logs", headers=headers) as reply:
        assert reply.status == 404
    made, ran, asked = records(path)
    assert (made["route"], made["status"], made["session_id"]) == (url, 201, "s1")
    assert ran["route"] == f"{url}/{{session_id}}/exec"
    assert (ran["session_id"], ran["command_id"], ran["exitCode"]) == ("s1", command, 4)
    assert ran["sandbox_id"] == "sb1"
    assert (asked["status"], asked["command_id"]) == (404, "nope")


async def test_a_terminal(procd: MakeClient, secrets: Secrets, tmp_path: Path) -> None:
    path = tmp_path / "audit"
    shell = program(tmp_path, "read line; echo printed; exit 5")
    client = await audited(procd, secrets, path, process={"shell": shell})
    key = f"DAYTONA_SANDBOX_AUTH_KEY={secrets.write}"
    ws = await client.ws_connect(f"/process/pty/create-connect?id=t1&cwd=%2Ftmp&{key}")
    terminal = Terminal(ws)
    await terminal.type(b"typed\n")
    await terminal.until(b"printed")
    await terminal.to_end()
    await ws.close()
    await client.close()
    opened, ended, closed = sorted(records(path), key=lambda each: ORDER.index(each["event"]))
    for record in (opened, ended, closed):
        assert (record["token"], record["id"]) == ("writer", "t1")
        assert record["route"] == "/process/pty/create-connect"
    assert closed["exitCode"] == ended["exitCode"] == 5
    text = path.read_text()
    for secret in ("typed", "printed", "/tmp", secrets.write, "DAYTONA"):
        assert secret not in text


async def test_what_goes_on_without_its_request(
    procd: MakeClient, secrets: Secrets, tmp_path: Path, gate: Gate
) -> None:
    """Its end is recorded when it comes, under the name of who has started it."""
    path = tmp_path / "audit"
    text = f'case $1 in -i) read x <{gate}; exit 5;; esac; exec /bin/sh "$@"'
    client = await audited(procd, secrets, path, process={"shell": program(tmp_path, text)})
    headers = bearer(secrets.write)
    url = "/process/session"
    async with client.post(url, json={"sessionId": "s1"}, headers=headers) as reply:
        assert reply.status == 201
    body = {"command": f"read x <{gate}; (exit 4)", "runAsync": True}
    async with client.post(f"{url}/s1/exec", json=body, headers=headers) as reply:
        command = (await reply.json())["cmdId"]
    async with client.post("/process/pty", json={"id": "t1"}, headers=headers) as reply:
        assert reply.status == 201
    assert {record["event"] for record in records(path)} == {"request"}
    gate.open(2)

    async def over() -> bool:
        async with client.get("/healthz"):
            return len(ends()) == 2

    def ends() -> dict[str, dict[str, Any]]:
        return {each["route"]: each for each in records(path) if each["event"] == "ended"}

    await until(over)
    ran, typed = ends()[f"{url}/{{session_id}}/exec"], ends()["/process/pty"]
    assert (ran["session_id"], ran["command_id"], ran["exitCode"]) == ("s1", command, 4)
    assert (typed["id"], typed["exitCode"]) == ("t1", 5)
    assert ran["token"] == typed["token"] == "writer"


@each(
    ("code", "timeout", "outcome"),
    [("1", 0, "completed"), ("1/0", 0, "failed"), ("while True: pass", 1, "timed_out")],
)
async def test_a_context(
    procd: MakeClient, secrets: Secrets, tmp_path: Path, code: str, timeout: int, outcome: str
) -> None:
    path = tmp_path / "audit"
    client = await audited(procd, secrets, path)
    headers = bearer(secrets.write)
    async with client.post("/process/interpreter/context", json={}, headers=headers) as reply:
        context = (await reply.json())["id"]
    async with client.ws_connect("/process/interpreter/execute", headers=headers) as ws:
        await ws.send_json({"code": code, "contextId": context, "timeout": timeout or None})
        while (await ws.receive()).type is not WSMsgType.CLOSE:
            continue
    await client.close()
    made, opened, closed = records(path)
    path.unlink()
    assert (made["context_id"], made["status"]) == (context, 200)
    assert opened["event"] == "opened"
    assert (closed["context_id"], closed["outcome"]) == (context, outcome)


@each(
    "path",
    [
        "/process/pty/t1/connect",
        "/process/pty/nope/connect",
        "/process/pty/create-connect?id=t2",
        "/process/session/s1/command/{command}/logs?follow=true",
        "/process/interpreter/execute",
        "/terminal/ptys",
    ],
)
@each("resets", [False, True])
async def test_a_client_that_goes_without_a_close(
    procd: MakeClient, tmp_path: Path, path: str, resets: bool, gate: Gate
) -> None:
    """A WebSocket that was opened is closed, however its client goes."""
    file = tmp_path / "audit"
    client = await procd(audit={"file": str(file)}, interpreter={"warm": 0})
    await create(client, "t1")
    async with client.post("/process/session", json={"sessionId": "s1"}) as reply:
        assert reply.status == 201
    body = {"command": f"read x <{gate}", "runAsync": True}
    async with client.post("/process/session/s1/exec", json=body) as reply:
        command = (await reply.json())["cmdId"]
    before = len(records(file))
    async with raw(client) as peer:
        await peer.upgrade(path.format(command=command))
        if resets:
            peer.reset()

    async def over() -> bool:
        async with client.get("/healthz"):
            return "closed" in {each["event"] for each in records(file)}

    await until(over)
    gone = [record for record in records(file)[before:] if record["event"] != "ended"]
    assert [record["event"] for record in gone] == ["opened", "closed"]
    assert gone[1]["status"] == 101
    gate.open(1)
    file.unlink()


@each("kind", ["refused", "preflight"])
async def test_nobody_can_fill_the_disk_without_a_token(
    procd: MakeClient, secrets: Secrets, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / kind
    page = "https://app.example.com"
    client = await guarded(
        procd,
        secrets,
        audit={"file": str(path), "refused_per_s": 1},
        cors={"allowed_origins": [page]},
    )
    secret = new_secret()
    method, url, headers = "GET", f"/made/up/{secret}?{secret}", bearer(secret)
    if kind == "preflight":
        method, url = "OPTIONS", "/process/execute"
        headers = {"Origin": page, "Access-Control-Request-Method": "POST"}
    total = 0
    while len(written := records(path)) < 2:  # until the next second
        async with client.request(method, url, headers=headers):
            total += 1
    first, last = written
    assert first["token"] in (None, "anyone")
    assert last.get("unrecordedBefore", 0) == total - 2  # none if the second ended at once
    assert secret not in path.read_text()


async def test_refused_upgrades_and_health(
    procd: MakeClient, secrets: Secrets, tmp_path: Path
) -> None:
    path = tmp_path / "audit"
    client = await audited(procd, secrets, path)
    async with client.get("/healthz") as reply:
        assert reply.status == 200
    with pytest.raises(WSServerHandshakeError):
        await client.ws_connect("/process/pty/create-connect?id=a", headers=bearer(secrets.read))
    (record,) = records(path)
    assert (record["event"], record["status"], record["token"]) == ("request", 403, "reader")


async def test_it_is_opened_again(procd: MakeClient, secrets: Secrets, tmp_path: Path) -> None:
    path = tmp_path / "audit"
    client = await audited(procd, secrets, path)
    headers = bearer(secrets.read)
    async with client.get("/version", headers=headers):
        pass
    path.rename(tmp_path / "old")
    async with client.get("/version", headers=headers):
        pass
    assert len(records(tmp_path / "old")) == 2
    reload(client.app)
    async with client.get("/version", headers=headers):
        pass
    assert len(records(tmp_path / "old")) == 2
    assert len(records(path)) == 1


async def test_without_tokens(procd: MakeClient, tmp_path: Path) -> None:
    path = tmp_path / "audit"
    client = await procd(audit={"file": str(path)})
    await execute(client, "true")
    await create(client, "t1", lazyStart=True)
    await attach(client, "/process/pty/nope/connect")
    await delete(client, "t1")
    assert {record["token"] for record in records(path)} == {"anyone"}


def test_a_file_that_can_not_be_opened(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("nowhere/audit", ".", "link"):
        config = from_mapping({"audit": {"file": str(tmp_path / name)}}).audit
        with pytest.raises(ConfigError, match=r"audit\.file: "):
            AuditFile(config)


def test_a_full_disk_leaves_no_half_of_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is written when there is room again is whole, too."""
    path = tmp_path / "audit"
    file = AuditFile(from_mapping({"audit": {"file": str(path)}}).audit)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    file.write({"a": 1})
    # As a disk does: what fits is written, and then nothing.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 3, before[1]))
    try:
        for _ in range(2):
            file.write({"b": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file.write({"c": 3})
    file.close()
    file.write({"d": 4})
    assert records(path) == [{"a": 1}, {"c": 3}]
    assert [record.levelname for record in caplog.records] == ["ERROR"], "it is logged once"


def test_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    """Neither the start nor SIGHUP waits for somebody to come."""
    path = tmp_path / "audit"
    config = from_mapping({"audit": {"file": str(path)}}).audit
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"audit\.file: /.*: a pipe that nobody reads"):
        AuditFile(config)
    path.unlink()
    file = AuditFile(config)
    path.rename(tmp_path / "old")
    os.mkfifo(path)
    file.reopen()
    file.write({"a": 1})
    file.close()
    assert records(tmp_path / "old") == [{"a": 1}]
