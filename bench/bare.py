"""Floor: an aiohttp server on uvloop with one handler, and nothing else imported."""

import asyncio

import uvloop
from aiohttp import web


async def version(_: web.Request) -> web.Response:
    """Answer what procd does."""
    return web.json_response({"version": "v0"})


async def _serve() -> None:
    app = web.Application()
    app.add_routes([web.get("/version", version)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"listening on port {runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
