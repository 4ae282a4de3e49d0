"""Creating a PTY session and attaching to it in one round trip: contract, section 10.3."""

import base64
import json
import struct
from pathlib import Path

import pytest
from aiohttp import WSServerHandshakeError

from procd.http.websocket import WEBSOCKETS
from tests import waiting
from tests.aliases import MakeClient
from tests.api.clients import (
    CLOSE,
    ENVS_TOKEN,
    EXIT_TOKEN,
    PING,
    PONG,
    VERSION_TOKEN,
    Fifo,
    attach,
    connect,
    create,
    describe,
    each,
    envs_token,
    listed,
    program,
    raw,
    refused,
    until,
)

PATH = "/process/pty/create-connect"
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def test_session_as_asked_for(procd: MakeClient, tmp_path: Path) -> None:
    shell = program(tmp_path, 'stty size; echo "$PWD|$A|$TERM|"; read x')
    client = await procd(process={"shell": shell})
    token = envs_token({"A": "ü~1 ?>"})
    terminal = await attach(client, f"{PATH}?id=a%20b&cols=120&rows=30&cwd=%2Fusr", token)
    assert terminal.connected == {"type": "control", "status": "connected", "offset": 0}
    await terminal.until("30 120\r\n/usr|ü~1 ?>|xterm-256color|\r\n".encode())
    shown = await describe(client, "a b")
    assert shown["envs"] == {"A": "ü~1 ?>", "TERM": "xterm-256color"}
    assert (shown["active"], shown["lazyStart"]) == (True, False)
    assert (shown["cols"], shown["rows"], shown["cwd"]) == (120, 30, "/usr")


async def test_defaults(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(
        process={"shell": program(tmp_path, "stty size; pwd; read x"), "work_dir": "/usr"}
    )
    terminal = await attach(client, f"{PATH}?id=t1")
    await terminal.until(b"24 80\r\n/usr\r\n")


async def test_instant_exit_is_told_in_full(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"shell": program(tmp_path, "printf bye; exit 3")})
    for _ in range(10):
        terminal = await attach(client, f"{PATH}?id=t1", EXIT_TOKEN)
        assert (await terminal.to_end())[0] == 1011
        assert terminal.output == b"bye"
        exited = {"type": "control", "status": "exited", **terminal.ending}
        assert terminal.controls[1:] == [exited]
        assert terminal.ending == {"exitCode": 3, "exitReason": "non-zero exit"}


@each(
    ("offered", "selected"),
    [
        ([], None),
        ([EXIT_TOKEN], EXIT_TOKEN),
        ([EXIT_TOKEN, "<envs>"], EXIT_TOKEN),
        (["<envs>", EXIT_TOKEN], EXIT_TOKEN),
        ([VERSION_TOKEN, "<envs>", EXIT_TOKEN], VERSION_TOKEN),
        ([EXIT_TOKEN, "<envs>", VERSION_TOKEN], VERSION_TOKEN),
        (["<envs>"], "<envs>"),
        (["other", "<envs>"], "other"),
        (["<envs>", "other"], "other"),
        (["other", "another"], "other"),
        ([""], None),
        (["", "other"], "other"),
    ],
)
@each("lines", [False, True])
@each("route", ["create-connect", "connect"])
async def test_one_token_is_selected(
    procd: MakeClient,
    tmp_path: Path,
    offered: list[str],
    selected: str | None,
    lines: bool,
    route: str,
) -> None:
    client = await procd(process={"shell": program(tmp_path, 'echo "<$A>"; read x')})
    token = envs_token({"A": "value"})
    tokens = [token if offer == "<envs>" else offer for offer in offered]
    headers = [
        f"Sec-WebSocket-Protocol: {each}" for each in (tokens if lines else [", ".join(tokens)])
    ]
    if route == "connect":
        await create(client, "t1", lazyStart=True)
    async with raw(client) as bare:
        path = f"{PATH}?id=t1" if route == "create-connect" else "/process/pty/t1/connect"
        reply = await bare.upgrade(path, *(headers if tokens else []))
        chosen = [line.partition(": ")[2] for line in reply if "protocol" in line.lower()]
        expected = token if selected == "<envs>" else selected
        assert chosen == ([] if expected is None else [expected])
        assert not any("extensions" in line.lower() for line in reply)
        assert b"connected" in await bare.control()
        envs = (await describe(client, "t1"))["envs"]
    assert envs.get("A") == ("value" if "<envs>" in offered and route != "connect" else None)


async def test_exited_is_for_those_who_offer_the_token(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"shell": program(tmp_path, "exit 0")})
    for tokens, told in (((), []), ((VERSION_TOKEN,), []), ((VERSION_TOKEN, EXIT_TOKEN), [0])):
        terminal = await attach(client, f"{PATH}?id=t1", *tokens)
        assert await terminal.to_end() == (1000, '{"exitCode":0}')
        assert [control["exitCode"] for control in terminal.controls[1:]] == told


async def test_token_of_20_kib(procd: MakeClient) -> None:
    client = await procd()
    envs = {f"NAME_{i}": "ü" * 50 for i in range(300)}
    token = envs_token(envs)
    assert len(token) > 20 << 10
    terminal = await attach(client, f"{PATH}?id=t1", EXIT_TOKEN, token)
    assert terminal.ws.protocol == EXIT_TOKEN
    assert (await describe(client, "t1"))["envs"] == {**envs, "TERM": "xterm-256color"}


async def test_long_cwd_in_the_query(procd: MakeClient) -> None:
    client = await procd()
    terminal = await attach(client, f"{PATH}?id=t1&cwd=/usr/{'./' * 1500}")
    assert terminal.connected["status"] == "connected"
    terminal = await attach(client, f"{PATH}?id=t2&cwd=/usr/{'./' * 20_000}")
    assert terminal.controls[0]["status"] == "error", "too long for the kernel"


def envs_of(raw: bytes) -> str:
    """The token of an environment that is these bytes."""
    return ENVS_TOKEN + base64.urlsafe_b64encode(raw).decode().rstrip("=")


BAD_TOKENS = [
    ENVS_TOKEN,
    ENVS_TOKEN + "!!!",
    ENVS_TOKEN + "e30=x",
    ENVS_TOKEN + "A",
    envs_token([]),
    envs_token("s3cret"),
    envs_token(None),
    envs_token({"A": 1}),
    envs_token({"A": None}),
    envs_token({"A": {"B": "s3cret"}}),
    envs_token({"A": "s3cret\0"}),
    envs_token({"A-B": "s3cret"}),
    ENVS_TOKEN + "eyJBIjoiczNjcmV0",
    envs_of(b'{"A": "s3cret\xff"}'),
    envs_of(b'{"A": "s3cret"} {}'),
    envs_of('{"A": "s3cret"}'.encode("utf-16")),
    envs_of(b"[" * 10_000),
    ENVS_TOKEN + base64.b64encode(b'{"A": "s3cret~~~???"}').decode().rstrip("="),
]


async def test_bad_token(procd: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    client = await procd()
    for token in BAD_TOKENS:
        headers = {**HANDSHAKE, "Sec-WebSocket-Protocol": f"{EXIT_TOKEN}, {token}"}
        async with client.get(f"{PATH}?id=t1", headers=headers) as reply:
            body = await refused(reply, 400, "BAD_REQUEST")
            assert "s3cret" not in str(body)
    assert await listed(client) == []
    assert "s3cret" not in caplog.text
    assert "eyJBIjoiczNjcmV0" not in caplog.text


@each(
    ("query", "status", "word"),
    [
        ("", 400, "session ID is required (query param 'id')"),
        ("?id=", 400, "session ID is required (query param 'id')"),
        ("?cols=80", 400, "session ID is required (query param 'id')"),
        ("?id=t1&cols=0", 400, "cols"),
        ("?id=t1&rows=0", 400, "rows"),
        ("?id=t1&cols=1001", 400, "cols"),
        ("?id=t1&rows=70000", 400, "rows"),
        ("?id=t1&cols=abc", 400, "cols"),
        ("?id=t1&rows=", 400, "rows"),
        ("?id=t1&rows=-1", 400, "rows"),
        ("?id=t1&rows=2.5", 400, "rows"),
        ("?id=t1&rows=%D9%A2", 400, "rows"),
        ("?id=t1&cwd=%2F%00", 400, "cwd"),
        ("?id=a%2Fb", 400, "'/'"),
        ("?id=a%0Ab", 400, "control"),
        ("?id=%00", 400, "control"),
        ("?id=a%ff", 400, "UTF-8"),
        ("?id=%ed%a0%80", 400, "UTF-8"),
        ("?id=t1&cwd=%2F%ff", 400, "UTF-8"),
        ("?id=create-connect", 400, "reserved"),
        (f"?id={'x' * 256}", 400, "255"),
        ("?id=taken", 409, "PTY session with ID 'taken' already exists"),
    ],
)
async def test_refused_before_the_upgrade(
    procd: MakeClient, query: str, status: int, word: str
) -> None:
    client = await procd()
    await create(client, "taken", lazyStart=True)
    with pytest.raises(WSServerHandshakeError) as caught:
        await client.ws_connect(f"{PATH}{query}")
    assert caught.value.status == status
    async with client.get(f"{PATH}{query}", headers=HANDSHAKE) as reply:
        await refused(reply, status, "CONFLICT" if status == 409 else "BAD_REQUEST")
        assert word in (await reply.json())["message"]
    assert await listed(client) == ["taken"]
    assert (await describe(client, "taken"))["active"] is False


@each("trouble", ["cwd", "shell"])
async def test_shell_that_cannot_start(procd: MakeClient, trouble: str) -> None:
    client = await procd(process={"shell": "/nowhere" if trouble == "shell" else ""})
    cwd = "&cwd=/nowhere" if trouble == "cwd" else ""
    terminal = await attach(client, f"{PATH}?id=t1{cwd}", EXIT_TOKEN)
    error = terminal.controls[0]["error"]
    assert terminal.controls == [{"type": "control", "status": "error", "error": error}]
    assert error.startswith("Failed to start PTY session: ")
    assert "/nowhere" in error
    code, reason = await terminal.to_end()
    assert code == 1011
    assert error.startswith(reason)
    assert await listed(client) == []


@each("way", ["reset", "leave"])
async def test_client_that_vanishes_right_after_asking(procd: MakeClient, way: str) -> None:
    client = await procd()
    for i in range(20):
        async with raw(client) as rude:
            await rude.ask_upgrade(f"{PATH}?id=t{i}")
            rude.reset() if way == "reset" else await rude.leave()

    async def none_left() -> bool:
        return await listed(client) == []

    await until(none_left)


async def test_client_that_never_reads(procd: MakeClient, tmp_path: Path, alive: Fifo) -> None:
    text = f"exec 9>{alive}; echo begun >&9; while read x; do :; done"
    client = await procd(
        server={"ping_s": 0.05, "dead_peer_s": 0.3}, process={"shell": program(tmp_path, text)}
    )
    async with raw(client) as silent:
        await silent.ask_upgrade(f"{PATH}?id=t1")
        assert await alive.line() == "begun"
        await alive.ended()
        assert await listed(client) == []
        assert (await silent.head())[0] == 101, "it had been answered"
        assert b"server" not in await silent.rest()


@each("use", ["connect", "resize"])
async def test_client_that_never_answers_leaves_it_to_others(
    procd: MakeClient, tmp_path: Path, use: str
) -> None:
    client = await procd(process={"shell": program(tmp_path, "read x; exit 3")})
    async with raw(client) as silent:
        await silent.upgrade(f"{PATH}?id=t1")
        if use == "resize":
            async with client.post("/process/pty/t1/resize", json={"cols": 90, "rows": 9}) as reply:
                assert reply.status == 200
        other = await connect(client, "t1") if use == "connect" else None
        silent.reset()
    await waiting.until(lambda: len(client.app[WEBSOCKETS]) == (use == "connect"))
    terminal = other or await connect(client, "t1")
    await terminal.type(b"\n")
    code, reason = await terminal.to_end()
    assert (code, json.loads(reason)["exitCode"]) == (1011, 3)


async def test_client_that_only_pongs_keeps_its_session(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"shell": program(tmp_path, "read x")})
    async with raw(client) as quiet:
        await quiet.upgrade(f"{PATH}?id=t1")
        await quiet.send_frame(PONG, await quiet.next(PING))
        await quiet.send_frame(PING, b"echo")
        assert await quiet.next(PONG) == b"echo"
        quiet.reset()
    await waiting.until(lambda: not len(client.app[WEBSOCKETS]))
    terminal = await connect(client, "t1")
    assert await listed(client) == ["t1"]
    await terminal.type(b"\n")
    assert (await terminal.to_end())[0] == 1000


@each(
    ("first", "code"),
    [(b"\x83\x80\0\0\0\0", 1002), (b"\x82\xff" + struct.pack("!QI", 1 << 20, 0), 1009)],
)
async def test_client_whose_first_frame_is_refused_keeps_its_session(
    procd: MakeClient, tmp_path: Path, first: bytes, code: int
) -> None:
    shell = program(tmp_path, "read x")
    client = await procd(process={"shell": shell}, pty={"max_message_bytes": 4096})
    async with raw(client) as rude:
        await rude.upgrade(f"{PATH}?id=t{code}")
        await rude.send(first)
        while (frame := await rude.frame())[0] != CLOSE:
            pass
        assert frame[1][:2] == struct.pack("!H", code)
        rude.reset()
    await waiting.until(lambda: not len(client.app[WEBSOCKETS]))
    assert await listed(client) == [f"t{code}"]
