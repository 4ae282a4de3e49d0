"""Cells that await, whatever became of those before them."""

import pytest

from tests.aliases import Client, MakeClient
from tests.api.cells import CONTEXTS, run, said, start

BEGIN = """
import asyncio, signal, sys
async def nothing(): pass
async def wait():
    print('in')
    signal.pause()
"""
LEAVING = [
    "asyncio.get_running_loop().call_soon(sys.exit)\nawait nothing()",
    "await asyncio.sleep(0)\nasyncio.get_running_loop().stop()",
]


async def _check(client: Client) -> None:
    """A cell may await what takes turns of the loop."""
    assert await said(client, "print(await asyncio.sleep(0.01, 'fine'))") == "fine\n"


@pytest.mark.parametrize("code", LEAVING)
async def test_a_loop_that_is_left_as_a_cell_ends(procd: MakeClient, code: str) -> None:
    client = await procd()
    assert not await said(client, BEGIN)
    cell = await run(client, code)
    cell.check_completed()
    assert not cell.errors
    await _check(client)


@pytest.mark.parametrize("how", ["interrupt", "timeout", "gone"])
async def test_an_interrupt_after_a_cell_amid_its_tasks(procd: MakeClient, how: str) -> None:
    client = await procd(interpreter={"grace_s": 3600.0})
    assert not await said(client, BEGIN)
    code = "task = asyncio.ensure_future(wait())\nawait nothing()"
    cell = await start(client, code, timeout=1 if how == "timeout" else 0)
    await cell.until("in\n")
    if how == "gone":
        await cell.ws.close()
    elif how == "interrupt":
        async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
            assert reply.status == 200
    await cell.to_end()
    await _check(client)


async def test_an_interrupt_amid_the_import_of_asyncio(procd: MakeClient) -> None:
    client = await procd()
    code = """
import signal, sys
class Interrupting:
    def find_spec(self, name, path, target=None):
        if name != 'asyncio.tasks': return
        sys.meta_path.remove(self)
        signal.raise_signal(signal.SIGINT)
assert 'asyncio' not in sys.modules
sys.meta_path.insert(0, Interrupting())
async def nothing(): pass
"""
    assert not await said(client, code)
    assert (await run(client, "await nothing()")).error["name"] == "KeyboardInterrupt"
    assert not await said(client, "import asyncio")
    await _check(client)
