"""Clients of interpreter contexts."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import ClientWebSocketResponse, WSMsgType

from tests.aliases import Client
from tests.api.clients import WAIT_S

EXECUTE = "/process/interpreter/execute"
CONTEXTS = "/process/interpreter/context"
KEYS = ["type", "text", "name", "value", "traceback"]


class Cell:
    """One execution: its frames as they came, and how it was closed."""

    def __init__(self, ws: ClientWebSocketResponse[bool]) -> None:
        self.ws = ws
        self.frames: list[dict[str, Any]] = []
        self.close: tuple[int | None, str] | None = None

    async def step(self) -> bool:
        """Take the next message; False when that was the last."""
        message = await self.ws.receive()
        match message.type:
            case WSMsgType.TEXT:
                frame = json.loads(message.data)
                if frame["type"] == "result":
                    assert list(frame) == ["type", "data"]
                else:
                    assert list(frame) == KEYS
                    assert all(type(value) is str for value in frame.values())
                self.frames.append(frame)
            case WSMsgType.CLOSE:
                self.close = message.data, message.extra or ""
            case _:
                self.close = self.close or (self.ws.close_code, "")
        return self.close is None

    async def to_end(self) -> "Cell":
        async with asyncio.timeout(WAIT_S):
            while await self.step():
                pass
        return self

    async def until(self, marker: str | Callable[["Cell"], bool]) -> None:
        """Read until stdout has `marker` in it, or is as it says."""
        found = marker if callable(marker) else lambda cell: marker in cell.stdout
        async with asyncio.timeout(WAIT_S):
            while not found(self):
                assert await self.step(), (self.close, self.frames[-5:])

    def _text(self, kind: str) -> str:
        return "".join(frame["text"] for frame in self.frames if frame["type"] == kind)

    @property
    def stdout(self) -> str:
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        return self._text("stderr")

    @property
    def results(self) -> list[dict[str, Any]]:
        return [frame["data"] for frame in self.frames if frame["type"] == "result"]

    @property
    def kinds(self) -> list[str]:
        """The types of the frames, runs of one counted once."""
        found: list[str] = []
        for frame in self.frames:
            if not found or found[-1] != frame["type"]:
                found.append(frame["type"])
        return found

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == "error"]

    @property
    def error(self) -> dict[str, Any]:
        """The one `error` frame, of an execution that completed with it."""
        (error,) = self.errors
        self.check_completed()
        assert self.kinds[-2:] == ["error", "control"]
        return error

    def check_completed(self) -> None:
        """`completed` came last and once, and the close was a normal one."""
        controls = [frame["text"] for frame in self.frames if frame["type"] == "control"]
        assert (controls, self.close) == (["completed"], (1000, "")), self.frames[-5:]
        assert self.frames[-1]["type"] == "control"


async def start(client: Client, code: object, **fields: object) -> Cell:
    async with asyncio.timeout(WAIT_S):
        ws = await client.ws_connect(EXECUTE, max_msg_size=4 << 20)
        await ws.send_str(json.dumps({"code": code, **fields}))
    return Cell(ws)


async def run(client: Client, code: str, **fields: object) -> Cell:
    """Run code to its end, whatever that is."""
    return await (await start(client, code, **fields)).to_end()


async def said(client: Client, code: str, **fields: object) -> str:
    """The stdout of code that completes without an error and says nothing else."""
    cell = await run(client, code, **fields)
    assert not cell.errors, cell.errors
    cell.check_completed()
    assert cell.stderr == ""
    return cell.stdout


async def create(client: Client, **fields: object) -> str:
    """A new context's id."""
    async with client.post(CONTEXTS, json=fields) as reply:
        body: dict[str, Any] = await reply.json()
        assert reply.status == 200, body
        assert list(body) == ["id", "cwd", "createdAt", "active", "language"]
        context_id: str = body["id"]
        return context_id


async def listed(client: Client) -> dict[str, dict[str, Any]]:
    async with client.get(CONTEXTS) as reply:
        assert reply.status == 200
        return {context["id"]: context for context in (await reply.json())["contexts"]}


async def delete(client: Client, context_id: str) -> None:
    async with asyncio.timeout(WAIT_S), client.delete(f"{CONTEXTS}/{context_id}") as reply:
        assert (reply.status, await reply.json()) == (
            200,
            {"message": "Context deleted successfully"},
        )
