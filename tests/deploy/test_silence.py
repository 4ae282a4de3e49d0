"""What is silent for long, behind nginx: commands are waited for, terminals and logs are kept."""

import asyncio
import io
import json
from typing import Any

import aiohttp
import pytest

from tests.compat.python.sdk import AsyncSdk
from tests.daemon.conftest import Start
from tests.deploy.conftest import Gateway, Serve

VERSION = {"X-Daytona-SDK-Version": "0.226.1"}
PATIENCE_S = 20


class Silence:
    """Everything that a client may wait at, each for so long."""

    def __init__(self, http: aiohttp.ClientSession, front: Gateway, seconds: int) -> None:
        self._http = http
        self._front = front
        self._seconds = seconds
        self._limit_s = seconds + PATIENCE_S
        self._script = f"sleep {seconds}; echo late"

    async def _post(self, path: str, **fields: object) -> Any:
        url = f"{self._front.url}{path}"
        body = io.BytesIO(json.dumps(fields).encode())
        async with self._http.post(url, data=body, ssl=self._front.tls, headers=VERSION) as reply:
            assert reply.status < 300, await reply.text()
            return await reply.json() if reply.status not in (201, 204) else None

    def _socket(self, path: str) -> Any:
        url = f"{self._front.url}{path}"
        return self._http.ws_connect(url, ssl=self._front.tls, headers=VERSION)

    async def execute(self) -> None:
        reply = await self._post("/process/execute", command=self._script, timeout=self._limit_s)
        assert reply["result"] == "late\n"

    async def code_run(self) -> None:
        code = f"import time; time.sleep({self._seconds}); print('late')"
        fields = {"code": code, "language": "python", "timeout": self._limit_s}
        assert (await self._post("/process/code-run", **fields))["result"] == "late\n"

    async def session(self) -> None:
        await self._post("/process/session", sessionId="s")
        reply = await self._post("/process/session/s/exec", command=self._script)
        assert reply["output"] == "late\n"

    async def _background(self, session_id: str) -> str:
        """The path of a command in a session of its own."""
        await self._post("/process/session", sessionId=session_id)
        path = f"/process/session/{session_id}"
        reply = await self._post(f"{path}/exec", command=self._script, runAsync=True)
        return f"{path}/command/{reply['cmdId']}"

    async def followed(self) -> None:
        async with self._socket(f"{await self._background('f')}/logs?follow=true") as ws:
            assert (await ws.receive()).data == b"\x01\x01\x01late\n"

    async def waited(self) -> None:
        url = f"{self._front.url}{await self._background('w')}?wait={self._limit_s}"
        async with self._http.get(url, ssl=self._front.tls) as reply:
            assert (await reply.json())["exitCode"] == 0

    async def terminal(self) -> None:
        async with self._socket("/process/pty/create-connect?id=t") as ws:
            assert (await ws.receive_json())["status"] == "connected"
            await ws.send_bytes(f"stty -echo; echo rea''dy; {self._script}\n".encode())
            await self._until(ws, b"ready\r\n")
            await self._until(ws, b"late\r\n")

    async def _until(self, ws: aiohttp.ClientWebSocketResponse, text: bytes) -> None:
        output = b""
        while text not in output:
            message = await ws.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, message
            output += message.data

    async def cell(self) -> None:
        async with self._socket("/process/interpreter/execute") as ws:
            code = f"import time; time.sleep({self._seconds}); print('late')"
            await ws.send_json({"code": code})
            assert (await ws.receive_json())["text"] == "late\n"

    async def input(self) -> None:
        await self._post("/process/session", sessionId="i")
        command = f"sleep {self._seconds}; wc -c"
        started = await self._post("/process/session/i/exec", command=command, runAsync=True)
        path = f"/process/session/i/command/{started['cmdId']}/input"
        await self._post(path, data="x" * (3 << 20))  # more than may wait to be read

    async def variables(self) -> None:
        context = (await self._post("/process/interpreter/context"))["id"]
        async with self._socket("/process/interpreter/execute") as ws:
            code = f"import time; print('busy', flush=True); time.sleep({self._seconds}); late = 1"
            await ws.send_json({"code": code, "contextId": context})
            assert (await ws.receive_json())["text"] == "busy\n"
            reading = asyncio.ensure_future(ws.receive_json())  # who reads answers pings
            url = f"{self._front.url}/process/interpreter/context/{context}/variables"
            async with self._http.get(url, ssl=self._front.tls) as reply:
                assert "late" in await reply.text()
            assert (await reading)["type"] == "control"

    async def sdk(self) -> None:
        sdk = AsyncSdk.at(self._front.address_url, tls=self._front.tls)
        done = await sdk.exec(self._script, timeout=self._limit_s)
        assert done.result == "late\n"
        await sdk.aclose()

    async def all(self) -> None:
        async with asyncio.timeout(self._limit_s), asyncio.TaskGroup() as group:
            for kind in (
                self.execute, self.code_run, self.session, self.followed, self.waited,
                self.terminal, self.cell, self.input, self.variables, self.sdk,
            ):  # fmt: skip
                group.create_task(kind())


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_a_hundred_seconds(start: Start, nginx: Serve, http: aiohttp.ClientSession) -> None:
    """As shipped, with nginx's own 60 s for all but commands."""
    await Silence(http, nginx(start()), 100).all()


async def test_scaled_down(start: Start, nginx: Serve, http: aiohttp.ClientSession) -> None:
    """nginx cuts what is silent for a second, and procd pings more often."""
    short = {"proxy_read_timeout 60s": "proxy_read_timeout 1s"}
    await Silence(http, nginx(start(env={"PROCD_SERVER_PING_S": "0.3"}), short), 3).all()
    # The measure works: where procd pings later than that, the terminal is cut.
    with pytest.raises(AssertionError):
        await Silence(http, nginx(start(), short), 3).terminal()
