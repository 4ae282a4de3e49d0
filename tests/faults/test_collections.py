"""Requests that are over take no memory, before Python's garbage is collected.

But for the last one of each connection.
"""

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from procd.api.execute import EXECUTIONS
from tests.aliases import MakeClient
from tests.api.clients import WAIT_S, json_body, raw
from tests.waiting import until

SIZE = 500_000


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


@pytest.mark.parametrize(
    ("path", "document", "status"),
    [
        ("/process/execute", {"command": f"true #{'x' * SIZE}"}, 200),
        ("/process/execute", {"command": f"sleep 60 #{'x' * SIZE}", "timeout": 1}, 408),
        ("/process/execute", {"command": "x" * SIZE, "cwd": 1}, 400),
        ("/process/code-run", {"code": f"#{'x' * SIZE}", "language": "python"}, 200),
        ("/process/pty", {"id": "t", "cwd": "/absent", "envs": {"A": "x" * SIZE}}, 500),
        ("/process/interpreter/context", {"cwd": 1, "unknown": "x" * SIZE}, 400),
    ],
)
@pytest.mark.usefixtures("uncollected")
async def test_large_requests(
    procd: MakeClient, path: str, document: dict[str, Any], status: int
) -> None:
    client = await procd()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(8):
        async with asyncio.timeout(WAIT_S), client.post(path, data=json_body(document)) as reply:
            await reply.read()
            assert reply.status == status
    await until(lambda: tracemalloc.get_traced_memory()[0] - before < 3 * SIZE)


@pytest.mark.usefixtures("uncollected")
async def test_requests_of_clients_that_vanish(procd: MakeClient) -> None:
    client = await procd()
    executions = client.app[EXECUTIONS]
    body = json_body({"command": f"sleep 60 #{'x' * SIZE}"}).read()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(8):
        async with raw(client) as leaver:
            head = f"POST /process/execute HTTP/1.1\nContent-Length: {len(body)}"
            await leaver.request(head, body)
            await until(lambda: executions.running == 1)
        await until(lambda: not executions.running)
    await until(lambda: tracemalloc.get_traced_memory()[0] - before < 3 * SIZE)
