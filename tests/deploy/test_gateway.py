"""procd behind a real proxy, as shipped: nothing is held back, and nothing cut off.

The gateway has a domain for a name, and procd its defaults: it listens on loopback, where it takes
no domain for a Host that it doesn't know.
"""

import asyncio
import base64
import io
import json
import os
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.api.clients import Fifo
from tests.daemon.conftest import Start
from tests.daemon.daemon import eventually
from tests.deploy.conftest import NAME, Gateway, Serve, connector

WAIT_S = 20
VERSION = {"X-Daytona-SDK-Version": "0.226.1"}


async def post(http: aiohttp.ClientSession, gateway: Gateway, path: str, **fields: object) -> Any:
    url = gateway.url + path
    async with (
        asyncio.timeout(WAIT_S),
        http.post(
            url, data=io.BytesIO(json.dumps(fields).encode()), ssl=gateway.tls, headers=VERSION
        ) as reply,
    ):
        assert reply.status < 300, await reply.text()
        return json.loads(await reply.read() or b"null")


async def until(ws: aiohttp.ClientWebSocketResponse, text: bytes) -> bytes:
    output = b""
    async with asyncio.timeout(WAIT_S):
        while text not in output:
            message = await ws.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, message
            output += message.data
    return output


async def test_requests(start: Start, gateway: Serve, http: aiohttp.ClientSession) -> None:
    front = gateway(start())
    reply = await post(http, front, "/process/execute", command="echo out; echo err >&2; exit 3")
    assert reply == {"exitCode": 3, "result": "out\nerr\n"}
    size = 3_000_000
    reply = await post(
        http, front, "/process/execute", command=f"head -c {size} /dev/zero | tr '\\0' x"
    )
    assert reply["result"] == "x" * size
    # More than a proxy's own limits on bodies and on header fields.
    reply = await post(http, front, "/process/execute", command=f"echo {'y' * 2_000_000} | wc -c")
    assert reply["result"].strip() == "2000001"
    headers = {"X-Request-Id": "mine", "X-Long": "z" * 60_000}
    async with http.get(f"{front.url}/version", ssl=front.tls, headers=headers) as response:
        assert response.status == 200
        assert response.headers["X-Request-Id"] == "mine"
    async with http.get(f"{front.url}/process/pty/none", ssl=front.tls) as response:
        body = await response.json()
        assert (response.status, body["code"]) == (404, "PROCESS_NOT_FOUND")
        assert body["path"] == "/toolbox/box1/process/pty/none"
    async with http.get(f"{front.origin}/toolbox/box2/version", ssl=front.tls) as response:
        assert response.status == 404


async def test_who_goes_ends_what_runs(start: Start, gateway: Serve, tmp_path: Path) -> None:
    """By closing its connection: asyncio would first say so in TLS, and wait 30 s for an answer."""
    front = gateway(start())
    with Fifo(tmp_path / "alive") as alive:
        command = f"exec 9> {alive}; echo up >&9; exec sleep 60"
        body = json.dumps({"command": command, "timeout": 60})
        head = f"POST /toolbox/box1/process/execute HTTP/1.1\r\nHost: {NAME}\r\n"
        with (
            socket.create_connection(("127.0.0.1", front.port)) as tcp,
            front.tls.wrap_socket(tcp, server_hostname=NAME) as client,
        ):
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            async with asyncio.timeout(WAIT_S):
                assert await alive.line() == "up"
        async with asyncio.timeout(WAIT_S):
            await alive.ended()


async def test_terminal(start: Start, gateway: Serve, http: aiohttp.ClientSession) -> None:
    front = gateway(start())
    await post(http, front, "/process/pty", id="t1")
    url = f"{front.url}/process/pty/t1/connect"
    async with http.ws_connect(url, ssl=front.tls, max_msg_size=0) as ws:
        connected = await ws.receive_json()
        assert connected["status"] == "connected"
        await ws.send_bytes(b"stty -echo; echo fir''st\n")
        await until(ws, b"first\r\n")
    async with http.ws_connect(url, ssl=front.tls, max_msg_size=0) as ws:
        assert (await ws.receive_json())["status"] == "connected"
        await until(ws, b"first\r\n")
        await ws.send_bytes(b"exit 7\n")
        async with asyncio.timeout(WAIT_S):
            while (message := await ws.receive()).type is aiohttp.WSMsgType.BINARY:
                continue
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert json.loads(message.extra or "")["exitCode"] == 7


async def test_logs_are_followed_as_they_come(
    start: Start, gateway: Serve, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    front = gateway(start())
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    await post(http, front, "/process/session", sessionId="s1")
    command = f"echo first; read x < {gate}; echo last"
    reply = await post(http, front, "/process/session/s1/exec", command=command, runAsync=True)
    url = f"{front.url}/process/session/s1/command/{reply['cmdId']}/logs?follow=true"
    async with http.ws_connect(url, ssl=front.tls, headers=VERSION) as ws:
        assert await until(ws, b"first\n") == b"\x01\x01\x01first\n", "while the command waits"
        gate.write_bytes(b"\n")
        await until(ws, b"last\n")
        async with asyncio.timeout(WAIT_S):
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_a_unix_socket(
    start: Start, gateway: Serve, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    path = tmp_path / "procd.sock"
    daemon = start(env={"PROCD_SERVER_UNIX": str(path)})
    path.chmod(0o666)  # the proxies of a test are in no group of procd's
    reply = await post(http, gateway(daemon, unix=path), "/process/execute", command="echo out")
    assert reply["result"] == "out\n"


async def test_the_gateways_own_pages_and_no_others(
    start: Start, gateway: Serve, http: aiohttp.ClientSession
) -> None:
    """procd knows the gateway's name from the gateway, if it trusts it."""
    daemon = start(env={"PROCD_SERVER_TRUSTED_PROXIES": "127.0.0.1"})
    front = gateway(daemon)
    async with http.get(f"{front.url}/terminal", ssl=front.tls) as reply:
        assert reply.status == 200
    url = f"{front.url}/process/pty/create-connect?id=t1"
    async with http.ws_connect(url, ssl=front.tls, headers={"Origin": front.origin}) as ws:
        assert (await ws.receive_json())["status"] == "connected"
    forged = {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"}
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        await http.ws_connect(url, ssl=front.tls, headers=forged)


async def test_a_token_is_passed_on_and_kept_from_the_logs(
    start: Start, gateway: Serve, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    secret = "a-secret-of-somebody-s-own-choice"
    daemon = start(env={"PROCD_AUTH_TOKEN": secret})
    front = gateway(daemon)
    headers = {"Authorization": f"Bearer {secret}"}
    for given, status in ({}, 401), (headers, 200):
        async with http.get(f"{front.url}/version", ssl=front.tls, headers=given) as reply:
            assert reply.status == status
    key = f"DAYTONA_SANDBOX_AUTH_KEY={secret}"
    url = f"{front.url}/process/pty/create-connect?id=t1"
    async with http.ws_connect(f"{url}&{key}", ssl=front.tls) as ws:
        assert (await ws.receive_json())["status"] == "connected"
    assert daemon.stop() == 0
    envs = base64.urlsafe_b64encode(json.dumps({"PASSWORD": secret}).encode()).decode().rstrip("=")
    hidden = {
        "Sec-WebSocket-Protocol": f"X-Daytona-Pty-Exit-Control, X-Daytona-Pty-Envs~{envs}",
        "Referer": f"{front.origin}/?{key}",
    }
    for query in (key, f"ticket={secret}"):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="502"):
            await http.ws_connect(f"{url}&{query}", ssl=front.tls, headers=hidden)
    assert eventually(lambda: front.written().count("502") >= 2), "and it is told"
    assert secret not in front.written()
    assert envs not in front.written()


async def test_the_log_shows_who_is_behind_the_proxy(start: Start, gateway: Serve) -> None:
    logged = {"PROCD_LOG_FORMAT": "json", "PROCD_LOG_LEVEL": "debug"}
    trusting = start(env=logged | {"PROCD_SERVER_TRUSTED_PROXIES": "127.0.0.1"})
    front = gateway(trusting)
    other = connector(local_addr=("127.0.0.5", 0))
    async with aiohttp.ClientSession(connector=other) as http:
        for headers in ({}, {"X-Forwarded-For": "203.0.113.1"}):
            async with http.get(f"{front.url}/version", ssl=front.tls, headers=headers) as reply:
                assert reply.status == 200

    def clients() -> list[str]:
        lines = [json.loads(line) for line in trusting.stderr().splitlines()]
        return [line["client"] for line in lines if line["message"] == "request"]

    assert eventually(lambda: len(clients()) == 2)
    assert clients() == ["127.0.0.5", "127.0.0.5"], "what the client says of itself is not believed"
