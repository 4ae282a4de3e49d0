"""Trees: every member is found wherever it is, and killed, and no other process is."""

import asyncio
import os
import select
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from io import FileIO

import pytest

from procd.process import tags
from procd.process import tree as proctree
from procd.process.child import Child, ExitStatus
from procd.process.spawn import Spec, spawn
from procd.process.tags import PART_BITS, PROCESS_MASK, TAG_BASE
from procd.process.tree import Tree, Trees
from procd.tasks import Tasks
from procd.unix import procfs
from tests.api.clients import descriptors_exhausted
from tests.waiting import until

TAG = TAG_BASE + (5 << PART_BITS)
OTHER_TAG = TAG_BASE + (6 << PART_BITS)
# A process that prints its pid and ignores requests to end.
STAY = "trap '' HUP TERM INT; echo $$; exec sleep 1000"
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "STAY": STAY}
PYTHON = shlex.quote(sys.executable)


class Leader:
    """The first process of a tree; it reads lines and prints numbers."""

    def __init__(self, script: str, tag: int, shell: str) -> None:
        stdin, writing = os.pipe()
        reading, stdout = os.pipe()
        spec = Spec(argv=(shell, "-c", script), cwd="/", env=ENV, stdio=(stdin, stdout, 2))
        try:
            self.pid = spawn(spec, tag)
        finally:
            os.close(stdin)
            os.close(stdout)
        self.stdin = FileIO(writing, "wb")
        self.stdout = FileIO(reading, "rb")
        self.tree = Tree(self.pid, tag)

    def numbers(self, count: int) -> set[int]:
        text = b""
        while text.count(b"\n") < count:
            piece = self.stdout.read(1)
            assert piece, "it has ended"
            text += piece
        return {int(line) for line in text.split()}

    def number(self) -> int:
        (number,) = self.numbers(1)
        return number


class Fixture:
    """Starts trees, and kills them as procd does."""

    def __init__(self) -> None:
        self.leaders: list[Leader] = []
        self.supervised: dict[int, Child] = {}
        self.tasks = Tasks()
        self.trees = Trees(self.supervised, self.tasks)

    def start(self, script: str, tag: int = TAG, shell: str = "/bin/sh") -> Leader:
        leader = Leader(script, tag, shell)
        self.leaders.append(leader)

        def exited(status: ExitStatus) -> None:
            leader.tree.leader = 0
            del self.supervised[leader.pid]

        loop = asyncio.get_running_loop()
        self.supervised[leader.pid] = Child(loop, leader.pid, exited)
        return leader

    async def exited(self, leader: Leader) -> None:
        await until(lambda: leader.pid not in self.supervised)

    def members(self, tree: Tree) -> set[int]:
        return {pid for pid, _ in filter(None, proctree.members(tree, self.supervised))}

    async def kill(self, tree: Tree) -> None:
        async with asyncio.timeout(30):
            await self.trees.start_kill(tree)


@pytest.fixture
async def forest() -> AsyncIterator[Fixture]:
    """Trees that are killed with the test."""
    proctree.become_subreaper()
    fixture = Fixture()
    yield fixture
    await fixture.tasks.aclose()
    for child in fixture.supervised.values():
        child.close()
    # The children of those that are killed here become ours.
    while pids := procfs.own_children():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    for leader in fixture.leaders:
        leader.stdin.close()
        leader.stdout.close()


def living(pids: set[int]) -> set[int]:
    stats = {pid: procfs.stat_of(pid) for pid in pids}
    return {pid for pid, stat in stats.items() if stat is not None and stat.alive}


def state_of(pid: int) -> str:
    stat = procfs.stat_of(pid)
    return stat.state if stat is not None else ""


async def test_orphan_without_a_tag_is_found_by_its_session(forest: Fixture) -> None:
    script = (
        "(ulimit -S -R 5000; exec bash -c 'trap \"\" TERM; echo $BASHPID; exec sleep 1000' &) ;"
        "read x"
    )
    leader = forest.start(script, shell="/bin/bash")
    orphan = leader.number()
    assert tags.tag_of(orphan) == 0
    assert orphan in forest.members(leader.tree)
    assert orphan not in forest.members(Tree(0, OTHER_TAG))
    await forest.kill(leader.tree)
    assert living({orphan, leader.pid}) == set()


# exit(2) ends only the first thread.
HEADLESS = """
import ctypes, os, platform, signal, threading
threading.Thread(target=lambda: print(os.getpid(), flush=True) or signal.pause()).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


@pytest.mark.parametrize("script", ["exec {}", "{} & wait"])
async def test_process_whose_first_thread_has_ended(forest: Fixture, script: str) -> None:
    """It looks like a zombie."""
    leader = forest.start(script.format(f"{PYTHON} -c {shlex.quote(HEADLESS)}"))
    pid = leader.number()
    with FileIO(os.pidfd_open(pid)) as pidfd:
        await until(lambda: state_of(pid) == "Z")
        assert pid in forest.members(leader.tree)
        await forest.kill(leader.tree)
        assert select.select([pidfd], [], [], 0)[0]


@pytest.mark.parametrize(
    "script",
    [
        "echo 1; while :; do sleep 1000 & done",
        "(while :; do setsid sleep 1000 & done) & echo 1; exit",
        "echo 1; kill -STOP $$",
    ],
    ids=["fork loop", "orphan that forks", "stopped"],
)
async def test_kill_of_special_trees(forest: Fixture, script: str) -> None:
    before = set(procfs.own_children())
    leader = forest.start(script)
    leader.number()
    await forest.kill(leader.tree)
    assert forest.members(leader.tree) == set()
    assert living({*procfs.own_children()} - before) == set()


# Each process of the chain lives for a moment, in a session of its own, and starts the next.
CHAIN = """
import os, time
os.setsid()
for _ in range(20000):
    if os.fork():
        os._exit(0)
    time.sleep(0.0015)
"""


async def test_kill_of_a_chain_of_forks(forest: Fixture) -> None:
    """The event loop runs meanwhile."""
    before = set(procfs.own_children())
    leader = forest.start(f"{PYTHON} -S -E -c {shlex.quote(CHAIN)}; echo 1; read x")
    leader.number()
    await until(lambda: len(procfs.own_children()) > 300)
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    turn()
    await forest.kill(leader.tree)
    assert turns > 1
    assert living({*procfs.own_children()} - before) == set()


@pytest.mark.parametrize("spare", [0, 1, 2, 10])
async def test_kill_of_more_processes_than_descriptors(forest: Fixture, spare: int) -> None:
    """All are killed, at the latest when there are descriptors again."""
    leader = forest.start("for i in $(seq 100); do sleep 1000 & done; echo 1; wait")
    leader.number()
    pids = forest.members(leader.tree)
    assert len(pids) == 101
    with descriptors_exhausted(but=spare):
        killing = forest.trees.start_kill(leader.tree)
        if spare > 1:
            await asyncio.wait([killing], timeout=30)
        else:
            await asyncio.sleep(0)
            assert not killing.done()
    async with asyncio.timeout(30):
        await killing
    assert living(pids) == set()


async def test_parts_of_a_tree(forest: Fixture) -> None:
    """What a host starts after a retag is a part of the tree; the host isn't in the part."""
    host = forest.start('while read x; do sh -c "$STAY" & done')
    pids = []
    for part in range(3):
        tags.retag(host.pid, TAG + part)
        host.stdin.write(b"\n")
        pids.append(host.number())
    first, second, third = pids
    assert [tags.tag_of(pid) for pid in pids] == [TAG, TAG + 1, TAG + 2]
    assert forest.members(Tree(host.pid, TAG, PROCESS_MASK)) == {host.pid, *pids}
    # A program that has replaced the host is its leader, and found once.
    replaced = Tree(host.pid, TAG + 2, host=host.pid)
    found = [pid for pid, _ in filter(None, proctree.members(replaced, forest.supervised))]
    assert sorted(found) == sorted([host.pid, third])
    part_tree = Tree(0, TAG + 1, host=host.pid)
    assert forest.members(part_tree) == {second}
    await forest.kill(part_tree)
    assert living({host.pid, *pids}) == {host.pid, first, third}
    # Orphans keep their part.
    os.kill(host.pid, signal.SIGKILL)
    await forest.exited(host)
    assert forest.members(Tree(0, TAG + 2)) == {third}
    assert forest.members(Tree(0, TAG, PROCESS_MASK)) == {first, third}
