"""Idle means idle: no poll, no tick."""

import asyncio
from pathlib import Path

import aiohttp

from procd.process.reaper import REAP_DELAY_S
from tests.daemon.conftest import Start
from tests.daemon.daemon import eventually

TERMINALS = 50
IDLE_S = 3.0


def cpu_ticks(pid: int) -> int:
    """User and system time used so far. Source: proc_pid_stat(5), fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def wakeups(pid: int) -> int:
    """How often it has gone to sleep. Source: proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))


async def test_idle_terminals_cost_nothing(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start()
    for index in range(TERMINALS):
        async with http.post(f"{daemon.url}/process/pty", json={"id": f"t{index}"}) as reply:
            assert reply.status == 201
    for index in range(TERMINALS):
        async with http.ws_connect(f"{daemon.url}/process/pty/t{index}/connect") as ws:
            assert (await ws.receive_json())["status"] == "connected"
            await ws.send_bytes(b"echo re''ady\n")
            output = b""
            while b"ready\r\n" not in output:
                output += (await ws.receive(timeout=20)).data
    seen = wakeups(daemon.pid)

    def quiet() -> bool:
        """Whether nothing has happened since it was last asked."""
        nonlocal seen
        before, seen = seen, wakeups(daemon.pid)
        return before == seen

    # What the commands have left to do is done a second later: collecting who has ended.
    await asyncio.sleep(REAP_DELAY_S + 0.5)
    assert await asyncio.to_thread(eventually, quiet)
    ticks = cpu_ticks(daemon.pid)
    await asyncio.sleep(IDLE_S)
    assert cpu_ticks(daemon.pid) == ticks
    assert wakeups(daemon.pid) == seen
    async with http.get(f"{daemon.url}/process/pty") as reply:
        assert len((await reply.json())["sessions"]) == TERMINALS
    # The measure works: what it did for that request shows.
    assert await asyncio.to_thread(eventually, lambda: wakeups(daemon.pid) > seen)
