"""Recordings: what is in them, who makes them, and their limits."""

import asyncio
import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.aliases import Client, MakeClient
from tests.api.clients import WAIT_S, connect, create, delete, each, program, refused

# The name of a recording.
ODD = "20200102T030405.000006Z.cast"


async def served(procd: MakeClient, tmp_path: Path, text: str, **pty: Any) -> Client:
    """A server with sessions that do `text`, and a state directory."""
    state = tmp_path / "state"
    state.mkdir(exist_ok=True)
    return await procd(
        process={"shell": program(tmp_path, text)}, pty=pty, sessions={"state_dir": str(state)}
    )


async def listed(client: Client) -> list[dict[str, Any]]:
    async with client.get("/recordings") as reply:
        assert reply.status == 200
        found: list[dict[str, Any]] = (await reply.json())["recordings"]
        return found


async def fetched(client: Client, name: str) -> tuple[dict[str, Any], list[list[Any]]]:
    async with client.get(f"/recordings/{name}") as reply:
        assert reply.status == 200
        assert reply.content_type == "application/x-asciicast"
        lines = [json.loads(line) for line in (await reply.text()).splitlines()]
        return lines[0], lines[1:]


async def ended(client: Client) -> list[dict[str, Any]]:
    """The recordings, once none is being written."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = await listed(client)
            if not any(one["active"] for one in found):
                return found


async def test_without_a_state_directory(
    procd: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are there as long as procd is, and leave nothing."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    client = await procd(process={"shell": program(tmp_path, "echo ready")})
    await create(client, "t1", record=True)
    (recording,) = await ended(client)
    _, events = await fetched(client, recording["name"])
    assert events[0][1:] == ["o", "ready\r\n"]
    assert [*place.rglob(recording["name"])]
    await client.close()
    assert [*place.iterdir()] == []


async def test_output_sizes_and_the_end_are_recorded(procd: MakeClient, tmp_path: Path) -> None:
    """And not what is typed."""
    text = r"stty -echo; printf 'r\303\251ady\377\n'; read secret; stty size; exit 3"
    client = await served(procd, tmp_path, text)
    await create(client, "t1", record=True)
    terminal = await connect(client, "t1")
    await terminal.until("réady".encode())
    async with client.post("/process/pty/t1/resize", json={"cols": 91, "rows": 17}) as reply:
        assert reply.status == 200
    await terminal.type(b"hunter2\n")
    await terminal.to_end()
    (recording,) = await ended(client)
    assert (recording["ptyId"], recording["cols"], recording["rows"]) == ("t1", 80, 24)
    header, events = await fetched(client, recording["name"])
    assert header["version"] == 3
    assert header["term"] == {"cols": 80, "rows": 24, "type": "xterm-256color"}
    assert header["title"] == "t1"
    output = "".join(data for _, kind, data in events if kind == "o")
    assert output.encode() == bytes(terminal.output).replace(b"\xff", "\ufffd".encode())
    assert "hunter2" not in json.dumps(events)
    kinds = [(kind, data) for _, kind, data in events if kind != "o"]
    assert kinds == [("r", "91x17"), ("x", "3")]
    assert all(interval >= 0 for interval, _, _ in events)
    path = tmp_path / "state" / "recordings" / recording["name"]
    assert path.stat().st_size == recording["sizeBytes"]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_none_by_default_and_all_if_set(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(procd, tmp_path, "exec cat")
    await create(client, "t1")
    assert await listed(client) == []
    await delete(client, "t1")
    client = await served(procd, tmp_path, "exec cat", record=True)
    await create(client, "t1", lazyStart=True)
    assert await listed(client) == []
    await connect(client, "t1")
    (recording,) = await listed(client)
    assert recording["active"]
    await delete(client, "t1")
    assert [one["active"] for one in await listed(client)] == [False]


async def test_a_recording_ends_at_its_limit(procd: MakeClient, tmp_path: Path) -> None:
    """The terminal goes on, and the file says that something is missing."""
    text = "stty raw -echo; head -c 100000 /dev/zero | tr '\\0' x; echo done; exec cat"
    client = await served(procd, tmp_path, text, max_recording_bytes=4096)
    await create(client, "t1", record=True)
    terminal = await connect(client, "t1")
    await terminal.until(b"done")
    (recording,) = await ended(client)
    assert recording["sizeBytes"] <= 4096
    _, events = await fetched(client, recording["name"])
    assert events[-1][1:] == ["m", "the recording has reached its size limit"]


async def test_the_oldest_go_first(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(procd, tmp_path, "exec cat", max_recordings=2)
    for number in range(3):
        await create(client, f"t{number}", record=True)
        await delete(client, f"t{number}")
    assert [one["ptyId"] for one in await listed(client)] == ["t1", "t2"]
    await create(client, "t3", record=True)
    await create(client, "t4", record=True)
    body = {"id": "t5", "record": True}
    async with client.post("/process/pty", json=body) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    assert [one["ptyId"] for one in await listed(client)] == ["t3", "t4"]
    await create(client, "t5")


async def test_they_outlive_the_server(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(procd, tmp_path, "echo hello; exec cat")
    await create(client, "t1", record=True)
    await (await connect(client, "t1")).until(b"hello")
    await client.close()
    client = await served(procd, tmp_path, "exec cat")
    (recording,) = await listed(client)
    assert not recording["active"]
    _, events = await fetched(client, recording["name"])
    assert events[0][1:] == ["o", "hello\r\n"]


async def test_removing_one(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(procd, tmp_path, "exec cat")
    await create(client, "t1", record=True)
    (recording,) = await listed(client)
    path = f"/recordings/{recording['name']}"
    async with client.delete(path) as reply:
        await refused(reply, 409, "CONFLICT")
    await delete(client, "t1")
    async with client.delete(path) as reply:
        assert reply.status == 200
    for wrong in (path, "/recordings/nope", "/recordings/..%2f..%2fetc%2fpasswd"):
        for method in ("GET", "DELETE"):
            async with client.request(method, wrong) as reply:
                await refused(reply, 404, "PROCESS_NOT_FOUND")
    assert await listed(client) == []


async def test_where_there_can_be_no_file(procd: MakeClient, tmp_path: Path) -> None:
    """Who asked for a recording gets no terminal without one."""
    client = await served(procd, tmp_path, "exec cat")
    (tmp_path / "state" / "recordings").write_text("in the way")
    async with client.post("/process/pty", json={"id": "t1", "record": True}) as reply:
        body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    assert "can't be recorded" in body["message"]
    await create(client, "t1")
    assert await listed(client) == []


@each("kind", ["link", "somebody else's"])
async def test_a_directory_that_others_have_put_there(
    procd: MakeClient, tmp_path: Path, kind: str
) -> None:
    """Nothing is written, listed or removed there."""
    client = await served(procd, tmp_path, "exec cat")
    place, theirs = tmp_path / "state" / "recordings", tmp_path / "theirs"
    if kind == "link":
        theirs.mkdir()
        place.symlink_to(theirs)
    elif os.geteuid() == 0:
        place.unlink(missing_ok=True)
        place.mkdir()
        os.chown(place, 54321, -1)
    else:
        return
    (place / ODD).write_bytes(header())
    async with client.post("/process/pty", json={"id": "t1", "record": True}) as reply:
        body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    assert "not a directory of procd's own" in body["message"]
    assert await listed(client) == []
    async with client.delete(f"/recordings/{ODD}") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")
    assert os.listdir(place) == [ODD]


async def test_a_terminal_that_cannot_start_costs_no_recording(
    procd: MakeClient, tmp_path: Path
) -> None:
    client = await served(procd, tmp_path, "exec cat", max_recordings=1)
    await create(client, "kept", record=True)
    await delete(client, "kept")
    for _ in range(3):
        body = {"id": "bad", "record": True, "cwd": "/nope"}
        async with client.post("/process/pty", json=body) as reply:
            await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    assert [one["ptyId"] for one in await listed(client)] == ["kept"]
    assert len(os.listdir(tmp_path / "state" / "recordings")) == 1
    await create(client, "next", record=True)
    assert [one["ptyId"] for one in await listed(client)] == ["next"]


def header(**fields: Any) -> bytes:
    """The first line of a recording, changed by `fields`."""
    term = {"cols": 80, "rows": 24}
    document = {"version": 3, "title": "odd", "term": term, "timestamp": 1}
    return json.dumps(document | fields).encode() + b"\n"


NO_RECORDINGS = (
    b"",
    b"\0\xff\xfe\n",
    b"[]\n",
    b"{}\n",
    b"[" * 2000 + b"\n",
    b" " * (8 << 20) + header(),
    header(version=1),
    header(timestamp=1e20),
    header(timestamp=None),
    header(term="text"),
    header(term={"cols": float("inf"), "rows": 24}),
)


@each("content", NO_RECORDINGS)
async def test_a_file_that_is_no_recording(
    procd: MakeClient, tmp_path: Path, content: bytes
) -> None:
    """It hides no other, and can be removed like one."""
    client = await served(procd, tmp_path, "exit 0")
    path = tmp_path / "state" / "recordings" / ODD
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(header(title="good"))
    path.rename(path.with_name(f"1{ODD[1:]}"))
    path.write_bytes(content)
    assert [recording["ptyId"] for recording in await listed(client)] == ["good"]
    async with client.delete(f"/recordings/{ODD}") as reply:
        assert reply.status == 200
    assert not path.exists()
    await client.close()


@each("kind", ["link", "directory", "FIFO", "unreadable"])
async def test_what_is_no_file(procd: MakeClient, tmp_path: Path, kind: str) -> None:
    """Nobody waits for it, gets what it leads to, or removes it, and it takes nobody's place."""
    client = await served(procd, tmp_path, "exec cat", max_recordings=1)
    path = tmp_path / "state" / "recordings" / ODD
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    match kind:
        case "link":
            (tmp_path / "secret").write_bytes(header())
            path.symlink_to(tmp_path / "secret")
        case "directory":
            path.mkdir()
        case "FIFO":
            os.mkfifo(path)
        case _:
            path.write_bytes(header())
            path.chmod(0)
            if os.access(path, os.R_OK):  # as root may read all
                path.unlink()
    assert await listed(client) == []
    async with client.get(f"/recordings/{ODD}") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")
    if kind != "unreadable":
        async with client.delete(f"/recordings/{ODD}") as reply:
            await refused(reply, 404, "PROCESS_NOT_FOUND")
        for session_id in ("t1", "t2"):
            await create(client, session_id, record=True)
            await delete(client, session_id)
        assert [recording["ptyId"] for recording in await listed(client)] == ["t2"]
        assert os.path.lexists(path)
    await client.close()


async def test_a_disk_that_is_full(
    procd: MakeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The recording ends with a whole line, and the terminal goes on."""
    client = await served(procd, tmp_path, "read x; seq 60000; exit 3")
    await create(client, "t1", record=True)
    terminal = await connect(client, "t1")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # EFBIG
    try:
        await terminal.type(b"\n")
        await terminal.to_end()
        (one,) = await ended(client)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert terminal.ending["exitCode"] == 3
    assert "recording ended: File too large" in caplog.text
    assert 0 < one["sizeBytes"] < 200_000  # a line may be long
    _, events = await fetched(client, one["name"])
    said = "".join(text for _, kind, text in events if kind == "o")
    assert said.splitlines()[:3] == ["", "1", "2"]
