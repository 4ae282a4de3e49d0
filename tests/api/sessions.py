"""Shell sessions as a client sees them: create, run, follow, end."""

import asyncio
import os
import re
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientResponse, ClientWebSocketResponse, WSMsgType

from tests.aliases import Client, MakeClient
from tests.api.clients import WAIT_S, json_body, refused

VERSION = "X-Daytona-SDK-Version"
MODERN = {VERSION: "0.226.1"}
SHELLS = {
    "bash": "/usr/bin/bash",
    "dash": "/usr/bin/dash",
    "zsh": "/usr/bin/zsh",
    "busybox": "/usr/bin/busybox",
}
MARKERS = {b"\x01\x01\x01": 1, b"\x02\x02\x02": 2}


async def create(client: Client, session_id: str = "s", **fields: object) -> None:
    body = {"sessionId": session_id, **fields}
    async with client.post("/process/session", json=body, headers=MODERN) as reply:
        assert (reply.status, await reply.read()) == (201, b"")


def kind(shell: str) -> str:
    return {"sh": "busybox"}.get(os.path.basename(shell), os.path.basename(shell))


def keeps_session(shell: str) -> bool:
    """Whether a session of this shell outlives a command that is terminated."""
    return kind(shell) in ("bash", "zsh")


async def of_shell(procd: MakeClient, shell: str, **config: dict[str, Any]) -> Client:
    """A server with one session of this shell."""
    sections = {"sessions": {"grace_s": 1.0}} | config
    client = await procd(process={"shell": shell}, **sections)
    await create(client)
    return client


async def post_exec(
    client: Client, command: str, session_id: str = "s", **fields: object
) -> ClientResponse:
    """Ask for a command, and return the reply whatever it is, its body read."""
    async with asyncio.timeout(WAIT_S):
        reply = await client.post(
            f"/process/session/{session_id}/exec",
            data=json_body({"command": command, **fields}),
            headers=MODERN,
        )
        await reply.read()
        return reply


async def run(client: Client, command: str, session_id: str = "s") -> dict[str, Any]:
    """Run a command to its end and return the body of the 200."""
    reply = await post_exec(client, command, session_id)
    body: dict[str, Any] = await reply.json()
    assert reply.status == 200, body
    return body


async def start(client: Client, command: str, session_id: str = "s", **fields: object) -> str:
    """Start a command in the background and return its id."""
    reply = await post_exec(client, command, session_id, runAsync=True, **fields)
    body = await reply.json()
    assert reply.status == 202, body
    command_id: str = body["cmdId"]
    return command_id


def path_of(command_id: str, session_id: str = "s") -> str:
    return f"/process/session/{session_id}/command/{command_id}"


async def get(client: Client, path: str, **headers: str) -> dict[str, Any]:
    async with asyncio.timeout(WAIT_S), client.get(path, headers=MODERN | headers) as reply:
        body: dict[str, Any] = await reply.json()
        assert reply.status == 200, body
        return body


async def logs(client: Client, command_id: str, session_id: str = "s") -> dict[str, Any]:
    """A command's logs as a modern client gets them."""
    return await get(client, path_of(command_id, session_id) + "/logs")


async def ended(client: Client, command_id: str, session_id: str = "s") -> dict[str, Any]:
    body = await get(client, path_of(command_id, session_id) + "?wait=20")
    assert "exitCode" in body, body
    return body


async def type_in(
    client: Client, command_id: str, data: str = "", session_id: str = "s", **fields: object
) -> ClientResponse:
    """Send input, and return the reply whatever it is, its body read."""
    document = {"data": data, **fields} if data else fields
    async with asyncio.timeout(WAIT_S):
        reply = await client.post(
            path_of(command_id, session_id) + "/input", data=json_body(document), headers=MODERN
        )
        await reply.read()
        return reply


async def terminate(
    client: Client, command_id: str, session_id: str = "s", *, kept: bool = True
) -> None:
    """Terminate a command, by which its session ends unless it is `kept`."""
    async with (
        asyncio.timeout(WAIT_S),
        client.post(path_of(command_id, session_id) + "/terminate", headers=MODERN) as reply,
    ):
        if kept:
            assert (reply.status, await reply.read()) == (204, b"")
        else:
            body = await refused(reply, 410, "SESSION_ENDED")
            assert "can't leave a command that is terminated" in body["message"]


async def delete(client: Client, session_id: str = "s") -> None:
    async with asyncio.timeout(WAIT_S), client.delete(f"/process/session/{session_id}") as reply:
        assert (reply.status, await reply.read()) == (204, b"")


@dataclass
class Follower:
    """A client of a log.

    Attributes:
        messages: the binary messages as they came.
        close: code and reason, once the server has closed.
        streams: what came of each stream.
        joined: all payload in order of arrival.
    """

    ws: ClientWebSocketResponse[bool]
    labelled: bool = True
    messages: list[bytes] = field(default_factory=list)
    close: tuple[int | None, str] | None = None
    streams: dict[int, bytearray] = field(default_factory=lambda: {1: bytearray(), 2: bytearray()})
    joined: bytearray = field(default_factory=bytearray)

    async def step(self) -> bool:
        """Take the next message; False when that was the last."""
        message = await self.ws.receive()
        if message.type is WSMsgType.BINARY:
            data = bytes(message.data)
            self.messages.append(data)
            if self.labelled:
                self.streams[MARKERS[data[:3]]] += data[3:]
                data = data[3:]
            self.joined += data
            return True
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING), message
        if message.type is WSMsgType.CLOSE:
            self.close = message.data, message.extra or ""
        return False

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(WAIT_S):
            searched = 0
            while self.joined.find(text, searched) < 0:
                searched = max(0, len(self.joined) - len(text))
                assert await self.step(), (self.close, bytes(self.joined[-2000:]))

    async def to_end(self) -> bytes:
        """Read until the server closes, which must be with 1000; returns all payload."""
        async with asyncio.timeout(WAIT_S):
            while await self.step():
                pass
        assert self.close == (1000, "")
        return bytes(self.joined)


async def follow(
    client: Client,
    command_id: str,
    session_id: str = "s",
    *,
    query: str = "?follow=true",
    path: str = "",
    headers: dict[str, str] | None = None,
    labelled: bool = True,
) -> Follower:
    async with asyncio.timeout(WAIT_S):
        ws = await client.ws_connect(
            (path or path_of(command_id, session_id) + "/logs") + query,
            headers=MODERN if headers is None else headers,
            max_msg_size=0,
        )
    return Follower(ws, labelled)


def check_framing(messages: list[bytes]) -> None:
    """Check the rules of the contract's section 9.2 for output that has no markers of its own."""
    for message in messages:
        assert message[:3] in MARKERS
        assert 1 <= len(message) - 3 <= 16 << 10
        assert not re.search(rb"\x01\x01\x01|\x02\x02\x02", message[3:])
