"""What is over takes no memory with it, though Python's garbage isn't collected for a long time."""

import gc
import tracemalloc
from collections.abc import Iterator

import pytest

from procd.api.edge import HttpConnection
from procd.services.pty import PtyInfo
from tests.api.clients import create, delete, raw
from tests.conftest import MakeClient
from tests.waiting import until

ASK = "POST /process/execute HTTP/1.1\nContent-Length: 60000000\nOrigin: http://a.example"
SIZE = 200_000


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("head", [ASK, "GARBAGE"])
@pytest.mark.usefixtures("uncollected")
async def test_connections(procd: MakeClient, head: str) -> None:
    """Of strangers, too, who may come one after the other."""
    client = await procd()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(5):
            async with raw(client) as stranger:
                await stranger.request(head, bytes(SIZE))
                assert (await stranger.head())[0] in {400, 403}
        await until(lambda: tracemalloc.get_traced_memory()[0] - before < 2 * SIZE)
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("uncollected")
async def test_connections_of_who_sends_no_more(procd: MakeClient) -> None:
    client = await procd()
    async with raw(client) as rude:
        await rude.request("GET /version HTTP/1.1")
        rude.end_input()
        assert b"200 OK" in await rude.rest()
    await until(lambda: not [each for each in gc.get_objects() if type(each) is HttpConnection])


@pytest.mark.usefixtures("uncollected")
async def test_environments_of_terminals(procd: MakeClient) -> None:
    client = await procd()
    envs = {"A": "x" * 1_000_000}
    for lazy in (False, True):
        body = {"id": "t", "envs": envs, "lazyStart": lazy}
        async with client.post("/process/pty", json=body) as reply:
            assert reply.status == 500
    envs = {"A": "x" * 100_000}
    await create(client, "t", envs=envs, lazyStart=True)
    await delete(client, "t")
    long = [each for each in gc.get_objects() if type(each) is PtyInfo and "A" in each.envs]
    assert not long
