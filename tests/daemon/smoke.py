"""One look at an installed procd: `python -m tests.daemon.smoke [path to the procd executable]`."""

import asyncio
import sys
from pathlib import Path

import aiohttp

from tests.daemon.daemon import Daemon


async def look(url: str) -> None:
    """Run a command and use a terminal."""
    async with aiohttp.ClientSession(url) as http, asyncio.timeout(30):
        async with http.post(
            "/process/execute", json={"command": "echo out; echo err >&2; exit 3"}
        ) as reply:
            body = await reply.json()
        expected = {"exitCode": 3, "result": "out\nerr\n"}
        assert reply.status == 200, body
        assert body == expected, body
        step("executed a command over HTTP")

        async with http.post("/process/pty", json={"id": "smoke"}) as reply:
            assert reply.status == 201, await reply.text()
        async with http.ws_connect("/process/pty/smoke/connect") as ws:
            assert (await ws.receive_json())["status"] == "connected"
            step("attached to a terminal over WebSocket")
            await ws.send_bytes(b"expr 6 '*' 7; exit 5\n")
            output = b""
            while (message := await ws.receive()).type is aiohttp.WSMsgType.BINARY:
                output += message.data
            assert b"42\r\n" in output, output
            assert message.type is aiohttp.WSMsgType.CLOSE, message
            assert message.extra == '{"exitCode":5,"exitReason":"non-zero exit"}', message
        step("typed, and read the output and the exit code")


def step(done: str) -> None:
    """Tell of one step."""
    print(f"smoke: {done}", flush=True)  # noqa: T201 - a program, which prints


def main() -> None:
    """Start it, look at it, stop it."""
    given = sys.argv[1:] or [str(Path(sys.executable).with_name("procd"))]
    with Daemon.start(command=given[:1]) as daemon:
        step(f"started {given[0]} on port {daemon.port}")
        asyncio.run(look(daemon.url))
        code = daemon.stop()
        assert code == 0, f"exit code {code}: {daemon.stderr()}"
        step("stopped on SIGTERM with exit code 0")


if __name__ == "__main__":
    main()
