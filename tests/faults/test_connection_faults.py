"""A connection that can't be served: its client is told so by its end, and nobody else.

Each daemon has a module of its own that has one thing fail.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from procd.http.connection import HttpConnection
from procd.http.connection_limit import Visitors
from tests.aliases import MakeClient
from tests.daemon.conftest import Start

# What the first connection comes to, in place of the event loop's own accept(2).
NO_MEMORY_TO_ACCEPT = """
from procd.http.runner import HttpServer
from procd.listen import Site
make, failures = HttpServer.__call__, [MemoryError()]

def make_later(server):
    if failures:
        raise failures.pop()
    return make(server)

HttpServer.__call__ = make_later

# Nor is there memory to listen anew, at first.
listen, later = Site._listen, [MemoryError(), OSError()]

async def listen_later(site, sock):
    if site._server is not None and later:
        raise later.pop()
    return await listen(site, sock)

Site._listen = listen_later
"""
TAKES_NO_CANCELLATION = """
import asyncio
from procd.listen import Listeners
listen = Listeners.open

async def stay():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue

async def listen_beside(*arguments):
    global staying
    staying = asyncio.create_task(stay(), name="stays")
    await listen(*arguments)

Listeners.open = listen_beside
"""


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(HttpConnection, "__init__", id="to make it"),
        pytest.param(Visitors, "came", id="to count it"),
        pytest.param(web.RequestHandler, "start", id="to serve it"),
    ],
)
@pytest.mark.parametrize("failure", [MemoryError(), OSError()])
async def test_a_connection_that_cannot_be_served(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, failure: Exception
) -> None:
    client = await procd()
    method = getattr(owner, name)
    failures = [failure]

    def short(*arguments: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        return method(*arguments, **named)

    monkeypatch.setattr(owner, name, short)
    async with asyncio.timeout(10):
        with pytest.raises(aiohttp.ClientError):
            await client.get("/version")
        async with client.get("/version") as reply:
            assert reply.status == 200
    assert not failures


async def test_no_memory_to_accept(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """It doesn't wait in vain, and the next clients are served."""
    (tmp_path / "sitecustomize.py").write_text(NO_MEMORY_TO_ACCEPT)
    path = tmp_path / "procd.sock"
    daemon = start(env={"PYTHONPATH": str(tmp_path), "PROCD_SERVER_UNIX": str(path)})
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(daemon.host, daemon.port)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        async with http.get(f"{daemon.url}/version") as reply:
            assert reply.status == 200
        connector = aiohttp.UnixConnector(str(path))
        async with (
            aiohttp.ClientSession(connector=connector) as local,
            local.get("http://procd/version") as reply,
        ):
            assert reply.status == 200
    assert daemon.stop() == 0
    assert not path.exists()


async def test_a_task_that_takes_no_cancellation(start: Start, tmp_path: Path) -> None:
    """It keeps nobody from stopping in time."""
    (tmp_path / "sitecustomize.py").write_text(TAKES_NO_CANCELLATION)
    daemon = start(env={"PYTHONPATH": str(tmp_path)})
    assert daemon.stop() == 0
    assert "1 tasks don't end: ['stays']" in daemon.stderr()
