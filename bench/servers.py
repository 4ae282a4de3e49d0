"""Floors: an aiohttp server on uvloop that does the least.

It answers a constant, echoes WebSocket messages, and joins a WebSocket to a PTY with nothing kept,
shared or bounded in between.
"""

import asyncio
import os

import uvloop
from aiohttp import web

from bench import terminal
from bench.programs import Place


async def constant(_: web.Request) -> web.Response:
    """Answer what costs nothing to make."""
    return web.Response(body=b'{"version":"v0"}', content_type="application/json")


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Send every message back."""
    ws: web.WebSocketResponse = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    async for message in ws:
        await ws.send_bytes(message.data)
    return ws


async def join(request: web.Request) -> web.WebSocketResponse:
    """Pass short messages to a terminal that echoes, and what it says back."""
    ws: web.WebSocketResponse = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    transport = request.transport
    assert transport is not None
    echoing = terminal.Terminal(Place(os.environ["HOME"]), terminal.ECHO_SCRIPT)
    os.set_blocking(echoing.master, False)

    def readable() -> None:
        data = os.read(echoing.master, 125)
        transport.write(bytes((0x82, len(data))) + data)

    loop = asyncio.get_running_loop()
    loop.add_reader(echoing.master, readable)
    async for message in ws:
        os.write(echoing.master, message.data)
    loop.remove_reader(echoing.master)
    echoing.close()
    return ws


async def _serve() -> None:
    app = web.Application()
    app.add_routes([web.get("/constant", constant), web.get("/echo", echo), web.get("/join", join)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"listening on port {runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as the_runner:
        the_runner.run(_serve())
