"""procd without access control and metrics, to measure what these two cost."""

import asyncio
import gc

import uvloop

from procd.app import create_app
from procd.cli.main import GC_THRESHOLD
from procd.config import Config
from procd.http.connection import Runner
from procd.http.middleware import errors


async def _serve() -> None:
    config = Config()
    app = create_app(config)
    app.middlewares[:] = [errors]
    runner = Runner(app, config.server)
    await runner.setup()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(runner.connect, "127.0.0.1", 0)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
