"""What procd tells about itself and its machine: contract, section 12."""

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.aliases import Client, MakeClient
from tests.api.clients import (
    connect,
    create,
    descriptors_exhausted,
    each,
    execute,
    program,
    refused,
)


async def read(client: Client, path: str) -> dict[str, Any]:
    """The body of a GET that is answered with 200."""
    async with client.get(path) as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
        body: dict[str, Any] = await reply.json()
        return body


async def change(client: Client, document: object) -> None:
    async with client.post("/env", json=document) as reply:
        body = await reply.json()
        assert reply.status == 200, body
        assert all(isinstance(value, str) for value in body.values())


async def test_version(procd: MakeClient) -> None:
    body = await read(await procd(), "/version")
    assert body.keys() == {"version"}
    assert body["version"].startswith("v")


async def test_directories(procd: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/usr")
    client = await procd(process={"work_dir": "/etc"})
    assert await read(client, "/work-dir") == {"dir": "/etc"}
    assert await read(client, "/user-home-dir") == {"dir": "/usr"}
    assert await read(client, "/project-dir") == {"dir": "/usr"}


async def test_work_dir_is_where_procd_was_started(procd: MakeClient) -> None:
    assert await read(await procd(), "/work-dir") == {"dir": os.getcwd()}


async def test_directories_whose_names_are_not_utf8(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xc3\xbc\xff"))
    place.mkdir()
    shown = f"{tmp_path}/ü\N{REPLACEMENT CHARACTER}"
    monkeypatch.setenv("HOME", str(place))
    client = await procd(process={"work_dir": str(place)})
    for path in "/work-dir", "/user-home-dir", "/project-dir":
        assert await read(client, path) == {"dir": shown}
    async with client.post("/process/interpreter/context", json={}) as reply:
        context = await reply.json()
        assert (reply.status, context["cwd"]) == (200, shown)
    assert await read(client, "/process/interpreter/context") == {"contexts": [context]}
    await create(client, "p")
    pty = await read(client, "/process/pty/p")
    assert pty["cwd"] == shown
    assert await read(client, "/process/pty") == {"sessions": [pty]}
    assert (await execute(client, "pwd"))["result"] == f"{shown}\n"


async def test_home_as_work_dir(procd: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/usr")
    monkeypatch.setenv("DAYTONA_USER_HOME_AS_WORKDIR", "true")
    client = await procd()
    assert await read(client, "/work-dir") == {"dir": "/usr"}
    assert (await execute(client, "pwd"))["result"] == "/usr\n"


@each("document", [{"token": "s3cret"}, {}, {"token": None}])
async def test_init(
    procd: MakeClient, document: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    client = await procd()
    async with client.post("/init", json=document) as reply:
        assert reply.status == 200
        message = "Auth token set and telemetry initialized successfully"
        assert await reply.json() == {"message": message}
    assert "s3cret" not in caplog.text


@each("body", [b"", b"token", b'{"token": 1}', b"[]"])
@each("path", ["/init", "/env"])
async def test_bad_body(procd: MakeClient, path: str, body: bytes) -> None:
    client = await procd()
    if (path, body) == ("/env", b'{"token": 1}'):
        body = b'{"set": {"A": 1}}'
    async with client.post(path, data=body) as reply:
        await refused(reply, 400, "INVALID_REQUEST_BODY")


async def test_env(procd: MakeClient) -> None:
    client = await procd()
    shows = 'echo "$A|$B|$C|$D"'
    assert (await execute(client, shows))["result"] == "|||\n"
    await change(client, {"set": {"A": "s:1", "B": "s:2", "C": "3", "D": "ü 4"}})
    assert (await execute(client, shows))["result"] == "s:1|s:2|3|ü 4\n"
    assert (await execute(client, shows, envs={"C": "own"}))["result"] == "s:1|s:2|own|ü 4\n"
    await change(client, {"unset": ["D", "NEVER_SET"], "unsetValuePrefix": "s:"})
    assert (await execute(client, shows))["result"] == "||3|\n"


async def test_env_sets_last(procd: MakeClient) -> None:
    client = await procd()
    await change(client, {"set": {"A": "s:1", "B": "s:2"}})
    await change(client, {"set": {"A": "s:new"}, "unset": ["A", "C"], "unsetValuePrefix": "s:"})
    assert (await execute(client, 'echo "$A|$B"'))["result"] == "s:new|\n"


@each(
    ("document", "code"),
    [
        ({"set": {"A": "new", "B-C": "x"}}, "BAD_REQUEST"),
        ({"set": {"A": "new", "B": "\0"}}, "INVALID_REQUEST_BODY"),
        ({"set": {"A": "new"}, "unset": "A"}, "INVALID_REQUEST_BODY"),
        ({"set": {"A": "new"}, "unset": [1]}, "INVALID_REQUEST_BODY"),
        ({"set": {"A": "new"}, "unsetValuePrefix": 1}, "INVALID_REQUEST_BODY"),
    ],
)
async def test_bad_env_changes_nothing(
    procd: MakeClient, document: dict[str, object], code: str
) -> None:
    client = await procd()
    await change(client, {"set": {"A": "old"}})
    async with client.post("/env", json=document) as reply:
        await refused(reply, 400, code)
    assert (await execute(client, "echo $A"))["result"] == "old\n"


async def test_env_that_no_program_could_start_with(procd: MakeClient) -> None:
    """Nothing is added to what there is already, either."""
    client = await procd()
    statuses = []
    for name in "ABCDEFGH":
        much = {f"{name}{number}": "x" * 100_000 for number in range(9)}
        async with client.post("/env", json={"set": much}) as reply:
            statuses.append(reply.status)
    assert statuses[0] == 200
    assert statuses[-1] == 400
    assert (await execute(client, "echo ${#A1} ${#H1}"))["result"] == "100000 0\n"


async def test_env_reaches_sessions_to_come(procd: MakeClient, tmp_path: Any) -> None:
    shell = program(tmp_path, 'echo "<$A>"; read x; echo "<$A>"; read x')
    client = await procd(process={"shell": shell})
    await create(client, "before")
    await change(client, {"set": {"A": "new"}})
    await create(client, "after")
    before, after = await connect(client, "before"), await connect(client, "after")
    await after.until(b"<new>")
    await before.type(b"\n")
    await before.until(lambda output: output.count(b"<>") == 2)


async def test_metrics_without_the_work_dir(procd: MakeClient, tmp_path: Path) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    client = await procd(process={"work_dir": str(place)})
    place.rmdir()
    assert (await read(client, "/system/metrics"))["diskTotal"] > 0


async def test_metrics_without_a_descriptor(procd: MakeClient) -> None:
    client = await procd()
    await read(client, "/system/metrics")  # the connection has one by now
    with descriptors_exhausted():
        async with client.get("/system/metrics") as reply:
            body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    assert body["message"] == "the machine can't be looked at: Too many open files"


async def test_metrics(procd: MakeClient) -> None:
    body = await read(await procd(), "/system/metrics")
    whole = {"cpuCount", "diskFree", "diskTotal", "diskUsed", "memCache", "memTotal", "memUsed"}
    assert body.keys() == whole | {"cpuUsedPct", "timestamp", "timestampUnix"}
    assert all(type(body[name]) is int and body[name] >= 0 for name in whole | {"timestampUnix"})
    assert body["cpuCount"] >= 1
    assert 0 <= body["cpuUsedPct"] <= 100
    assert 0 < body["memUsed"] <= body["memTotal"]
    assert 0 < body["diskUsed"] <= body["diskTotal"]
    moment = datetime.fromisoformat(body["timestamp"])
    assert int(moment.timestamp()) == body["timestampUnix"]
