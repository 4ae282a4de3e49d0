"""Floor: an aiohttp server on uvloop that answers a constant, and echoes WebSocket messages."""

import asyncio

import uvloop
from aiohttp import web


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


async def _serve() -> None:
    app = web.Application()
    app.add_routes([web.get("/constant", constant), web.get("/echo", echo)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"listening on port {runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as the_runner:
        the_runner.run(_serve())
