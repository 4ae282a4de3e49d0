"""procd behind a real proxy, as shipped: nothing is held back, and nothing cut off."""

import asyncio
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import aiohttp

from tests.daemon.conftest import Start
from tests.daemon.daemon import eventually
from tests.deploy.conftest import DEPLOY, Gateway, Serve

WAIT_S = 20
VERSION = {"X-Daytona-SDK-Version": "0.226.1"}


async def post(http: aiohttp.ClientSession, gateway: Gateway, path: str, **fields: object) -> Any:
    """The body of a successful POST."""
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
    """Output up to and with `text`."""
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
    assert (reply["exitCode"], reply["stdout"], reply["stderr"]) == (3, "out\n", "err\n")
    size = 3_000_000
    reply = await post(
        http, front, "/process/execute", command=f"head -c {size} /dev/zero | tr '\\0' x"
    )
    assert reply["stdout"] == "x" * size
    # More than a proxy's own limits on bodies and on header fields.
    reply = await post(http, front, "/process/execute", command=f"echo {'y' * 2_000_000} | wc -c")
    assert reply["stdout"].strip() == "2000001"
    headers = {"X-Request-Id": "mine", "X-Long": "z" * 60_000}
    async with http.get(f"{front.url}/version", ssl=front.tls, headers=headers) as response:
        assert response.status == 200
        assert response.headers["X-Request-Id"] == "mine"
    async with http.get(f"{front.url}/process/pty/none", ssl=front.tls) as response:
        body = await response.json()
        assert (response.status, body["code"]) == (404, "PROCESS_NOT_FOUND")
        assert body["path"] == "/toolbox/box1/process/pty/none"
    async with http.get(f"{front.other_url}/version", ssl=front.tls) as response:
        assert response.status == 404


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


async def test_a_silent_terminal_is_kept_by_pings(
    start: Start, nginx: Serve, http: aiohttp.ClientSession
) -> None:
    """Scaled down: the proxy cuts what is silent for a second, and procd pings more often."""
    short = {"proxy_read_timeout 24h": "proxy_read_timeout 1s"}
    front = nginx(start(env={"PROCD_SERVER_PING_S": "0.3"}), short)
    await post(http, front, "/process/pty", id="t1")
    url = f"{front.url}/process/pty/t1/connect"
    async with http.ws_connect(url, ssl=front.tls) as ws:
        assert (await ws.receive_json())["status"] == "connected"
        await ws.send_bytes(b"stty -echo; echo rea''dy; read x; echo do''ne\n")
        await until(ws, b"ready\r\n")
        # Reading meanwhile, as any client does: to answer pings is the reader's work.
        try:
            async with asyncio.timeout(2.5):
                message = await ws.receive()
            raise AssertionError(f"not silent: {message}")
        except TimeoutError:
            await ws.send_bytes(b"\n")
        await until(ws, b"done\r\n")
    # The measure works: a request without pings is cut.
    body = {"command": "sleep 3"}
    async with http.post(f"{front.url}/process/execute", json=body, ssl=front.tls) as reply:
        assert reply.status == 504


async def test_a_silent_command_is_waited_for(
    start: Start, gateway: Serve, http: aiohttp.ClientSession
) -> None:
    front = gateway(start())
    reply = await post(http, front, "/process/execute", command="sleep 2; echo late")
    assert reply["stdout"] == "late\n"


def test_commands_may_be_silent_for_hours() -> None:
    """What the test above can't wait for."""
    text = (DEPLOY / "nginx.conf").read_text()
    for name in ("proxy_read_timeout", "proxy_send_timeout"):
        (hours,) = re.findall(rf"{name} (\d+)h;", text)
        assert int(hours) >= 1


async def test_the_log_shows_who_is_behind_the_proxy(start: Start, gateway: Serve) -> None:
    logged = {"PROCD_LOG_FORMAT": "json", "PROCD_LOG_LEVEL": "debug"}
    trusting = start(env=logged | {"PROCD_SERVER_TRUSTED_PROXIES": "127.0.0.1"})
    front = gateway(trusting)
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.5", 0), force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http:
        for headers in ({}, {"X-Forwarded-For": "203.0.113.1"}):
            async with http.get(f"{front.url}/version", ssl=front.tls, headers=headers) as reply:
                assert reply.status == 200

    def clients() -> list[str]:
        lines = [json.loads(line) for line in trusting.stderr().splitlines()]
        return [line["client"] for line in lines if line["message"] == "request"]

    assert eventually(lambda: len(clients()) == 2)
    assert clients() == ["127.0.0.5", "127.0.0.5"], "what the client says of itself is not believed"
