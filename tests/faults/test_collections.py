"""Memory of what is over is freed at once, not only when Python collects garbage."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from procd.api.execute import EXECUTIONS
from procd.output.buffer import Buffer
from procd.services.execute import ExecuteRequest
from tests.aliases import MakeClient
from tests.api.clients import WAIT_S, create, json_body, raw
from tests.waiting import until

SIZE = 200_000
LONG = f"true #{'x' * SIZE}"
EXECUTE, RUN, SESSION = "/process/execute", "/process/code-run", "/process/session"
CONTEXT = "/process/interpreter/context"


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Collect no garbage."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@asynccontextmanager
async def nothing_kept() -> AsyncIterator[None]:
    """Wait until less is kept than twice SIZE, after something that was done five times."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        await until(lambda: tracemalloc.get_traced_memory()[0] - before < 2 * SIZE)
    finally:
        tracemalloc.stop()


def buffers() -> int:
    return sum(type(each) is Buffer for each in gc.get_objects())


@pytest.mark.parametrize(
    ("path", "document", "status"),
    [
        (EXECUTE, {"command": LONG}, 200),
        (EXECUTE, {"command": LONG, "cwd": "/absent"}, 200),
        (EXECUTE, {"command": "true", "envs": {"A": "x" * SIZE}}, 200),
        (EXECUTE, {"command": f"sleep 60 #{'x' * SIZE}", "timeout": 1}, 408),
        (RUN, {"code": f"#{'x' * SIZE}", "language": "python"}, 200),
        (RUN, {"code": f"#{'x' * SIZE}", "language": "none"}, 400),
        (SESSION, {"sessionId": "s", "unknown": "x" * SIZE, "cwd": "/absent"}, None),
        (CONTEXT, {"cwd": "/absent", "language": "python", "unknown": "x" * SIZE}, None),
        ("/process/pty", {"id": "t", "envs": {"A": "x" * SIZE}}, 500),
    ],
)
async def test_requests(
    procd: MakeClient, path: str, document: dict[str, Any], status: int | None
) -> None:
    client = await procd()
    async with nothing_kept():
        for _ in range(5):
            async with (
                asyncio.timeout(WAIT_S),
                client.post(path, data=json_body(document)) as reply,
            ):
                await reply.read()
                assert status is None or reply.status == status


async def test_requests_beyond_a_limit(procd: MakeClient) -> None:
    client = await procd(process={"max_processes": 1})
    await create(client, "t")
    async with nothing_kept():
        for _ in range(5):
            async with client.post(EXECUTE, data=json_body({"command": LONG})) as reply:
                assert reply.status == 429


async def test_requests_of_clients_that_leave(procd: MakeClient) -> None:
    client = await procd()
    executions = client.app[EXECUTIONS]
    body = json_body({"command": f"sleep 60 #{'x' * SIZE}"}).read()
    async with nothing_kept():
        for _ in range(5):
            async with raw(client) as leaver:
                head = f"POST {EXECUTE} HTTP/1.1\nContent-Length: {len(body)}"
                await leaver.request(head, body)
                await until(lambda: executions.running == 1)
            await until(lambda: not executions.running)


async def test_output(procd: MakeClient) -> None:
    client = await procd()
    request = ExecuteRequest(command="echo x", timeout_s=3600)
    before = buffers()
    result = await client.app[EXECUTIONS].run(request)
    assert result.exit_code == 0
    assert buffers() == before + 1
    del result
    await until(lambda: buffers() <= before)
