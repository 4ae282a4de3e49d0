"""Trees: every member is found wherever it is, and killed, and no other process is."""

import asyncio
import errno
import os
import select
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable
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
from procd.unix.pidfd import send, wait_ended
from tests.api.clients import descriptors_exhausted
from tests.trees import members_of
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
        """The next numbers."""
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
        return set(members_of(tree, self.supervised))

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


# STAY is a variable, as no quoting would survive three shells.
SCATTERED = """
sh -c "$STAY" &
setsid sh -c "$STAY" &
env -i /bin/sh -c "$STAY" &
(sh -c "$STAY" &)
(setsid sh -c 'env -i /bin/sh -c "$STAY" &' &)
wait
"""


async def test_members_wherever_they_are(forest: Fixture) -> None:
    """In other sessions, after a double fork, with a cleared environment."""
    leader = forest.start(SCATTERED)
    pids = leader.numbers(5) | {leader.pid}
    assert forest.members(leader.tree) >= pids
    await forest.kill(leader.tree)
    assert living(pids) == set()


async def test_orphans_without_their_leader(forest: Fixture) -> None:
    leader = forest.start(SCATTERED)
    pids = leader.numbers(5)
    os.kill(leader.pid, signal.SIGKILL)
    await forest.exited(leader)
    await until(lambda: forest.members(leader.tree) == pids)
    await forest.kill(leader.tree)
    assert living(pids) == set()


async def test_kill_leaves_other_trees_alone(forest: Fixture) -> None:
    leader, other = forest.start(SCATTERED), forest.start(SCATTERED, OTHER_TAG)
    pids, others = leader.numbers(5), other.numbers(5) | {other.pid}
    assert not pids & forest.members(other.tree)
    assert not others & forest.members(leader.tree)
    await forest.kill(leader.tree)
    assert living(pids) == set()
    assert living(others) == others


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


async def test_pid_that_is_reused_during_the_search(
    forest: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = forest.start("trap '' CHLD; echo $$; read -r line")
    other = forest.start("echo $$; read -r line", tag=OTHER_TAG)
    other.number()
    listed = {leader.pid: [other.pid]}
    monkeypatch.setattr(proctree, "children", lambda pid: listed.pop(pid, []))
    stat = procfs.stat_of(other.pid)
    assert stat is not None
    monkeypatch.setattr(proctree, "ticks_since_boot", lambda: stat.start_time - 1)
    assert forest.members(leader.tree) == {leader.pid}


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


async def test_kill_that_is_cancelled(forest: Fixture) -> None:
    """All members get SIGKILL all the same, though it waits for its turn."""
    leader = forest.start('for i in $(seq 70); do sh -c "$STAY" & done; wait')
    pids = leader.numbers(70)
    forest.trees.turns._pieces = 0  # nobody has a turn
    killing = forest.trees.start_kill(leader.tree)
    await asyncio.sleep(0)
    killing.cancel()
    await asyncio.wait([killing])
    await until(lambda: living(pids | {leader.pid}) == set())


async def test_signal_to_every_member(forest: Fixture) -> None:
    script = "sh -c 'echo $$; exec sleep 1000' & setsid sh -c 'echo $$; exec sleep 1000' & wait"
    leader = forest.start(script)
    pids = leader.numbers(2) | {leader.pid}
    reached = await forest.trees.try_signal(leader.tree, signal.SIGTERM)
    assert set(reached) == pids
    assert await wait_ended(reached, 10)
    assert living(pids) == set()


async def test_wait_until_a_tree_is_empty(forest: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child whose parent ends during the search, after the orphans were listed, counts too."""
    leader = forest.start('sh -c "$STAY" & read x')
    child = leader.number()

    def list_before_the_exit() -> list[int]:
        pids = procfs.own_children()
        leader.stdin.write(b"\n")
        os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
        monkeypatch.undo()
        return pids

    monkeypatch.setattr(proctree, "own_children", list_before_the_exit)
    emptied = asyncio.ensure_future(forest.trees.emptied(leader.tree))
    await forest.exited(leader)
    assert not emptied.done()
    os.kill(child, signal.SIGKILL)
    async with asyncio.timeout(10):
        await emptied


@pytest.mark.parametrize("older", [False, True])
async def test_pid_that_names_only_a_group(
    forest: Fixture, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process has ended; up to Linux 6.12 pidfd_open fails in another way then."""

    def open_older(
        pid: int, flags: int = 0, open_pidfd: Callable[[int], int] = os.pidfd_open
    ) -> int:
        try:
            return open_pidfd(pid)
        except ProcessLookupError as exc:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from exc

    leader = forest.start('sh -c "$STAY" & read x')
    staying = leader.number()
    stat = procfs.stat_of(leader.pid)
    assert stat is not None
    leader.stdin.write(b"\n")
    await forest.exited(leader)
    assert os.getpgid(staying) == leader.pid
    if older:
        monkeypatch.setattr("os.pidfd_open", open_older)
    with pytest.raises(ProcessLookupError):
        send(leader.pid, stat.start_time, (signal.SIGTERM,))
    assert await wait_ended({leader.pid: stat.start_time}, 10)


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


async def test_reaping_leaves_supervised_children_alone(forest: Fixture) -> None:
    leader = forest.start("read x; exit 3")
    orphans = [Leader("exit 1", TAG, "/bin/sh") for _ in range(3)]
    forest.leaders += orphans
    alive = Leader("read x; exit 2", TAG, "/bin/sh")
    forest.leaders.append(alive)
    for orphan in orphans:
        os.waitid(os.P_PID, orphan.pid, os.WEXITED | os.WNOWAIT)
    leader.stdin.close()
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    reaping = proctree.reap_orphans(forest.supervised)
    next(reaping)
    os.waitpid(orphans[-1].pid, 0)  # by another search
    assert len([*reaping]) >= 1
    assert set(procfs.own_children()) == {leader.pid, alive.pid}
