"""procd without its gate and without its metrics, to tell what these two cost."""

import asyncio
import gc

import uvloop
from aiohttp import web

from procd.app import create_app
from procd.cli.main import GC_THRESHOLD
from procd.config import Config
from procd.http.middleware import errors
from procd.http.runner import Runner


async def _serve() -> None:
    config = Config()
    app = create_app(config)
    app.middlewares[:] = [errors]
    runner = Runner(app, config.server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    print(f"listening on port {runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
