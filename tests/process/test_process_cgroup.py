"""Processes in a cgroup v2: each terminal has a leaf of its own, with limits."""

import asyncio
import logging
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from procd.config import ProcessConfig
from procd.output.buffer import Buffer
from procd.output.log import Log
from procd.process.child import ExitStatus
from procd.process.process import Process
from procd.process.supervisor import Supervisor
from procd.unix import procfs
from procd.unix.fd import seal_inherited
from tests.process.cgroups import controllers, leaves
from tests.waiting import until

# A process that prints its pid and ignores requests to end.
STAY = "trap '' HUP TERM INT; echo $$; exec sleep 1000"
# One whose child is in a session of its own, and an orphan.
SCATTER = '(setsid sh -c "$STAY" &) ; eval "$STAY"'
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "STAY": STAY, "PS1": ""}


def new_log() -> Log[Buffer]:
    return Log(Buffer(1 << 20), 1 << 20)


class Starter:
    """A supervisor, and scripts started by it."""

    def __init__(self, config: ProcessConfig) -> None:
        self.supervisor = Supervisor(config)

    def sh(self, script: str) -> Process:
        argv = ("/bin/sh", "-c", script)
        return self.supervisor.spawn(argv, cwd="/", env=ENV, output=new_log())

    def pty(self, script: str) -> Process:
        return self.supervisor.spawn_pty(
            ("/bin/sh", "-c", script), cwd="/", env=ENV, output=new_log(), cols=80, rows=24
        )


Supervise = Callable[..., Starter]


@pytest.fixture
async def supervise() -> AsyncIterator[Supervise]:
    """Make a supervisor with these settings; it is closed with the test."""
    seal_inherited()
    made: list[Starter] = []

    def make(**settings: object) -> Starter:
        config = ProcessConfig(**{"drain_s": 0.05, **settings})  # type: ignore[arg-type]  # each test gives what it needs
        made.append(Starter(config))
        return made[-1]

    yield make
    for starter in made:
        async with asyncio.timeout(30):
            await starter.supervisor.aclose()


def content(process: Process) -> bytes:
    store = process.log.store
    assert isinstance(store, Buffer)
    return b"".join(run.data for run in store.runs())


async def ended(process: Process) -> ExitStatus:
    async with asyncio.timeout(30):
        return await process.wait()


def living(pids: set[int]) -> set[int]:
    stats = {pid: procfs.stat_of(pid) for pid in pids}
    return {pid for pid, stat in stats.items() if stat is not None and stat.alive}


async def test_leaf_of_a_terminal(cgroup_root: Path, supervise: Supervise) -> None:
    """All that runs in a terminal is in it, and is killed with it; a command has none."""
    starter = supervise(cgroup=str(cgroup_root))
    await ended(starter.sh("exit 0"))
    assert leaves(cgroup_root) == []
    process = starter.pty(f'read x; sh -c "$STAY" & {SCATTER}')
    (leaf,) = leaves(cgroup_root)
    assert process.record.leaf is not None
    assert process.record.leaf.path == leaf
    assert process.stdin is not None
    process.stdin.write(b"\n")
    await until(lambda: content(process).count(b"\n") == 4)  # the echo, and three pids
    pids = set(map(int, (leaf / "cgroup.procs").read_text().split()))
    assert pids >= {*map(int, content(process).split()), process.record.pid}
    process.kill()
    async with asyncio.timeout(30):
        await process.wait_killed()
    assert await ended(process) == ExitStatus(signal=signal.SIGKILL)
    assert living(pids) == set()
    assert process.record.leaf is None


async def test_without_room_for_a_leaf(
    cgroup_root: Path, supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    (cgroup_root / "cgroup.max.descendants").write_text("0")
    process = supervise(cgroup=str(cgroup_root)).pty("echo up; exit 0")
    assert process.record.leaf is None
    assert "has no cgroup of its own" in caplog.text
    assert await ended(process) == ExitStatus(code=0)


async def test_limits_of_a_cgroup(cgroup_root: Path, supervise: Supervise) -> None:
    if not {"pids", "memory", "cpu"} <= controllers(cgroup_root):
        pytest.skip("the pids, memory and cpu controllers are not delegated")
    starter = supervise(
        cgroup=str(cgroup_root), pids_max=3, memory_max_bytes=64 << 20, cpu_weight=50
    )
    process = starter.pty("read x; sleep 1000 & sleep 1000 & sleep 1000 & exit 0")
    (leaf,) = (each for each in leaves(cgroup_root) if each.name != "procd-daemon")
    limits = [(leaf / name).read_text() for name in ("pids.max", "memory.max", "cpu.weight")]
    assert limits == ["3\n", f"{64 << 20}\n", "50\n"]
    usage = process.usage()
    assert usage is not None
    assert set(usage) == {"cpuUsec", "memoryBytes", "pids"}
    assert process.stdin is not None
    process.stdin.write(b"\n")
    await ended(process)
    assert re.search(b"cannot fork|fork: ", content(process), re.IGNORECASE)  # dash's, or bash's
    process.kill()
    await process.wait_killed()


async def test_limits_without_a_delegated_cgroup(
    supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        starter = supervise(cgroup="off", pids_max=3, memory_max_bytes=1 << 20)
    assert "no cgroup v2 is delegated: memory.max, pids.max are not set" in caplog.text
    process = starter.sh("exit 5")
    assert await ended(process) == ExitStatus(code=5)
    assert process.usage() is None
