"""Trees: everyone is found wherever he went, and ended, and nobody else is."""

import asyncio
import errno
import os
import selectors
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest

from procd.process import tags
from procd.process import tree as proctree
from procd.process.spawn import Spec, spawn
from procd.process.sudo import SudoGrace
from procd.process.tags import PART_BITS, PROCESS_MASK, TAG_BASE
from procd.process.tree import ASKED, MANY_ROUNDS, THREADS, Tree
from procd.throttle import Turns
from procd.unix import procfs
from procd.unix.pidfd import ended, send
from tests.api.clients import descriptors_exhausted
from tests.trees import members_of
from tests.waiting import until

TAG = TAG_BASE + (5 << PART_BITS)
OTHER_TAG = TAG_BASE + (6 << PART_BITS)
# Somebody who tells his pid and stays, whoever asks him to go.
STAY = "trap '' HUP TERM INT; echo $$; exec sleep 1000"
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "STAY": STAY}


class Leader:
    """The first process of a tree; it reads lines and says lines."""

    def __init__(self, script: str, tag: int, shell: str) -> None:
        stdin, typing = os.pipe()
        reading, stdout = os.pipe()
        spec = Spec(argv=(shell, "-c", script), cwd="/", env=ENV, stdio=(stdin, stdout, 2))
        try:
            self.pid = spawn(spec, tag)
        finally:
            os.close(stdin)
            os.close(stdout)
        self.stdin = FileIO(typing, "wb")
        self.stdout = FileIO(reading, "rb")
        self.tree = Tree(self.pid, tag)

    def line(self) -> int:
        """The number that is said next."""
        text = b""
        while not text.endswith(b"\n"):
            piece = self.stdout.read(1)
            assert piece, "it has ended"
            text += piece
        return int(text)

    def lines(self, count: int) -> set[int]:
        """As many numbers, whoever says them first."""
        return {self.line() for _ in range(count)}

    def reaped(self) -> None:
        """Its status is taken, so that it has no pid any more."""
        os.waitpid(self.pid, 0)
        self.tree.leader = 0


Start = Callable[..., Leader]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start trees; whoever is left of them is ended with the test."""
    proctree.become_subreaper()
    leaders: list[Leader] = []

    def make(script: str, tag: int = TAG, shell: str = "/bin/sh") -> Leader:
        leaders.append(Leader(script, tag, shell))
        return leaders[-1]

    yield make
    # The children of those who are killed here become ours, until nobody is left.
    while pids := procfs.own_children():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    for leader in leaders:
        leader.stdin.close()
        leader.stdout.close()


def looks() -> Turns:
    """Turns that nobody else takes."""
    return Turns()


def signal_tree(tree: Tree, number: int, *supervised: int) -> dict[int, int]:
    """Signal all of a tree in one go; those that took it."""
    reached: dict[int, int] = {}
    for _ in proctree.signal_tree(tree, number, supervised, reached):
        pass
    return reached


async def kill(tree: Tree, *supervised: int) -> None:
    """End a tree, as a process does."""
    reached: dict[int, int] = {}
    first = proctree.signal_tree(tree, signal.SIGKILL, supervised, reached)
    async with asyncio.timeout(30):
        await proctree.finish_kill(tree, first, reached, SudoGrace(), supervised, looks())


def living(pids: set[int]) -> set[int]:
    """Those that have not ended."""
    found = set()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0]
        except FileNotFoundError:
            continue
        if state not in b"ZX":
            found.add(pid)
    return found


def test_children_are_the_direct_ones(start: Start) -> None:
    """Direct children alone, and not theirs; nobody's are none."""
    leader = start('sh -c "$STAY" & read x')
    first = leader.line()
    assert procfs.children(leader.pid) == [first]
    assert leader.pid in procfs.own_children()
    assert first not in procfs.own_children()
    leader.stdin.close()
    os.waitpid(leader.pid, 0)
    assert procfs.children(leader.pid) == []


def test_a_limit_of_somebody_else_is_no_tag(start: Start) -> None:
    """A limit below the tags' range was set by a user; who has gone has none."""
    leader = start("ulimit -S -R 5000; echo 1; read x", shell="/bin/bash")
    leader.line()
    assert tags.tag_of(leader.pid) == 0
    leader.stdin.close()
    leader.reaped()
    assert tags.tag_of(leader.pid) == 0


# STAY is in the environment, for a quoting that would have to survive three shells.
SCATTERED = """
sh -c "$STAY" &
setsid sh -c "$STAY" &
env -i /bin/sh -c "$STAY" &
(sh -c "$STAY" &)
(setsid sh -c 'env -i /bin/sh -c "$STAY" &' &)
wait
"""


# Without the thread that it began with: exit(2) ends no more than that.
HEADLESS = """
import ctypes, os, platform, signal, threading
threading.Thread(target=lambda: print(os.getpid(), flush=True) or signal.pause()).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


async def test_a_process_whose_first_thread_has_ended(start: Start) -> None:
    """It looks like a zombie, and is found and ended as anybody, leader or not."""
    program = f"{shlex.quote(sys.executable)} -c {shlex.quote(HEADLESS)}"
    for script in (f"exec {program}", f"{program} & wait"):
        leader = start(script)
        pid = leader.line()
        with selectors.DefaultSelector() as ended, FileIO(os.pidfd_open(pid)) as pidfd:
            ended.register(pidfd, selectors.EVENT_READ)
            while living({pid}):
                assert not ended.select(timeout=0)
                await asyncio.sleep(0)
            assert pid in members_of(leader.tree, ())
            await kill(leader.tree, leader.pid)
            assert ended.select(timeout=0)
        leader.reaped()


def names(pids: set[int]) -> list[bytes]:
    """What these were started as, for whoever wonders where they come from."""
    return [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]


async def test_everyone_is_found_and_ended(start: Start) -> None:
    """Other sessions, double forks, cleared environments: all are members and all are ended."""
    leader = start(SCATTERED)
    strayed = leader.lines(5)
    assert len(strayed) == 5
    assert set(members_of(leader.tree, [leader.pid])) >= strayed | {leader.pid}
    await kill(leader.tree, leader.pid)
    assert living(strayed | {leader.pid}) == set()


async def test_orphans_are_found_without_their_leader(start: Start) -> None:
    """After the leader's end the tag alone tells whose they are."""
    leader = start(SCATTERED)
    strayed = leader.lines(5)
    os.kill(leader.pid, signal.SIGKILL)
    leader.reaped()
    assert set(members_of(leader.tree, [])) >= strayed
    # Those who started them are about to end, or have.
    await until(lambda: set(members_of(leader.tree, [])) == strayed)
    await kill(leader.tree)
    assert living(strayed) == set()


async def test_two_trees_are_two(start: Start) -> None:
    """Ending the one leaves every last process of the other alone, orphans as well."""
    one, two = start(SCATTERED), start(SCATTERED, OTHER_TAG)
    ones, twos = one.lines(5), two.lines(5)
    leaders = (one.pid, two.pid)
    assert not ones & set(members_of(two.tree, leaders))
    assert not twos & set(members_of(one.tree, leaders))
    await kill(one.tree, *leaders)
    assert living(ones) == set()
    assert living(twos | {two.pid}) == twos | {two.pid}
    os.kill(two.pid, signal.SIGKILL)
    two.reaped()
    await until(lambda: set(members_of(two.tree, [])) == twos)
    assert not members_of(Tree(0, TAG), [])


def test_a_pid_that_is_reused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child ends between two turns, before it is looked at; who has its pid is no member."""
    leader = start("trap '' CHLD; echo $$; read -r line")
    leader.line()
    other = start("echo $$; read -r line", tag=OTHER_TAG)
    other.line()
    listed = {leader.pid: [other.pid]}
    monkeypatch.setattr(proctree, "children", lambda pid, _: listed.pop(pid, []))
    began = procfs.stat_of(other.pid)
    assert began is not None
    monkeypatch.setattr(proctree, "now", lambda: began.start_time - 1)
    supervised = {leader.pid, other.pid}
    assert members_of(leader.tree, supervised).keys() == {leader.pid}


def test_a_leader_that_has_ended_since(start: Start) -> None:
    """While one tree is looked at, the leader of another ends: its pid isn't looked at any more."""
    leaders = [start("echo $$; read -r line") for _ in range(2)]
    pids = {leader.line() for leader in leaders}
    forest = proctree.TreeGroup([leader.tree for leader in leaders], 0, ())
    supervised = set(pids)
    looks = filter(None, proctree.members(forest, supervised))
    first, _ = next(looks)
    supervised.intersection_update({first})
    assert not list(looks)


async def test_a_kill_that_is_cut_short(start: Start) -> None:
    """procd's end waits for nobody: those that had no turn yet have got the signal all the same."""
    leader = start('for i in 1 2 3; do sh -c "$STAY" & done; wait')
    pids = leader.lines(3)
    reached: dict[int, int] = {}
    first = proctree.signal_tree(leader.tree, signal.SIGKILL, {leader.pid}, reached)
    looks = Turns(pieces=0)  # there is never one
    kill = asyncio.create_task(
        proctree.finish_kill(leader.tree, first, reached, SudoGrace(), {leader.pid}, looks)
    )
    await asyncio.sleep(0)
    kill.cancel()
    await asyncio.wait([kill])
    assert reached.keys() == {leader.pid, *pids}


class Short(Turns):
    """There is no memory for the first to wait in; then there is."""

    async def take(self) -> None:
        self.take = super().take  # type: ignore[method-assign]  # from then on it is as ever
        raise MemoryError


async def test_a_kill_that_there_is_no_memory_to_wait_for(start: Start) -> None:
    """The rest is done at once, and looked for again."""
    leader = start('for i in 1 2 3; do sh -c "$STAY" & done; wait')
    pids = leader.lines(3)
    reached: dict[int, int] = {}
    first = proctree.signal_tree(leader.tree, signal.SIGKILL, {leader.pid}, reached)
    async with asyncio.timeout(30):
        await proctree.finish_kill(leader.tree, first, reached, SudoGrace(), {leader.pid}, Short())
    assert living({leader.pid, *pids}) == set()


async def test_an_untagged_orphan_is_found_by_its_session(start: Start) -> None:
    """Who sets the limit himself is still of his leader's session."""
    leader = start(
        "(ulimit -S -R 5000; exec bash -c 'trap \"\" TERM; echo $BASHPID; exec sleep 1000' &) ;"
        "read x",
        shell="/bin/bash",
    )
    orphan = leader.line()
    assert tags.tag_of(orphan) == 0
    assert orphan in members_of(leader.tree, [leader.pid])
    assert orphan not in members_of(Tree(0, OTHER_TAG), [leader.pid])
    await kill(leader.tree, leader.pid)
    assert living({orphan, leader.pid}) == set()


async def test_a_forking_loop_is_ended(start: Start) -> None:
    """Who starts more while being killed is ended with all he started."""
    leader = start("echo 1; while :; do sleep 1000 & done")
    leader.line()
    await kill(leader.tree, leader.pid)
    assert not members_of(leader.tree, [leader.pid])
    assert names(living({*procfs.own_children()})) == []


async def test_a_forking_orphan_is_ended(start: Start) -> None:
    """The same without a leader, each child of a session of its own."""
    leader = start("(while :; do setsid sleep 1000 & done) & echo 1")
    leader.line()
    leader.reaped()
    await kill(leader.tree)
    assert not members_of(leader.tree, [])
    assert names(living({*procfs.own_children()})) == []


# Each of a chain lives for a moment, in a session of its own, and leaves another; and its body.
CHAIN = """
import os, time
os.setsid()
for _ in range(20000):
    if os.fork():
        os._exit(0)
    time.sleep(0.0015)
"""


async def test_a_chain_of_forks_is_ended(start: Start) -> None:
    """It is caught up with, and nobody waits for that: others have their turns."""
    before = {*procfs.own_children()}  # of a daemon that a test has killed, perhaps
    leader = start(f"{shlex.quote(sys.executable)} -S -E -c {shlex.quote(CHAIN)}; echo 1; read x")
    leader.line()
    await until(lambda: len(procfs.own_children()) > 300)
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    turn()
    await kill(leader.tree, leader.pid)
    assert turns > 1
    assert not members_of(leader.tree, [leader.pid])
    assert names(living({*procfs.own_children()} - before)) == []


async def test_a_stopped_process_is_ended(start: Start) -> None:
    """SIGKILL needs no SIGCONT."""
    leader = start("echo 1; kill -STOP $$")
    leader.line()
    os.waitid(os.P_PID, leader.pid, os.WSTOPPED)
    await kill(leader.tree, leader.pid)
    assert living({leader.pid}) == set()


async def test_a_signal_reaches_every_member(start: Start) -> None:
    """Any signal goes to each, and each that took it is told."""
    leader = start(
        "sh -c 'echo $$; exec sleep 1000' & setsid sh -c 'echo $$; exec sleep 1000' & wait"
    )
    pids = leader.lines(2) | {leader.pid}
    reached = signal_tree(leader.tree, signal.SIGTERM, leader.pid)
    assert set(reached) == pids
    async with asyncio.timeout(10):
        await ended(reached, 10)
    assert living(pids) == set()


CROWD = "for i in $(seq 100); do sleep 1000 & done; echo 1; wait"


@pytest.mark.parametrize("spare", [0, 1, 2, 10])
async def test_a_tree_of_more_than_there_are_descriptors(start: Start, spare: int) -> None:
    """All are ended with what there is, or as soon as there is something; nothing leaks."""
    leader = start(CROWD)
    leader.line()
    everyone = set(members_of(leader.tree, [leader.pid]))
    assert len(everyone) == 101
    with descriptors_exhausted(but=spare):
        if spare == 0:
            with pytest.raises(OSError, match="Too many open files"):
                signal_tree(leader.tree, signal.SIGKILL, leader.pid)
            killing = asyncio.ensure_future(
                proctree.finish_kill(leader.tree, iter(()), {}, SudoGrace(), [leader.pid], looks())
            )
            for _ in range(10):  # until it has looked in vain as well
                await asyncio.sleep(0)
        else:
            reached = signal_tree(leader.tree, signal.SIGKILL, leader.pid)
            assert set(reached) == everyone
            killing = asyncio.ensure_future(
                proctree.finish_kill(
                    leader.tree, iter(()), reached, SudoGrace(), [leader.pid], looks()
                )
            )
            if spare > 1:
                async with asyncio.timeout(30):
                    await killing
    async with asyncio.timeout(30):
        await killing
    assert living(everyone) == set()


async def test_waiting_until_a_tree_is_empty(start: Start) -> None:
    """Whoever is started meanwhile is waited for, too."""
    leader = start('echo 1; read x; sh -c "$STAY" & read x')
    leader.line()
    emptied = asyncio.ensure_future(proctree.emptied(leader.tree, [leader.pid], looks()))
    leader.stdin.write(b"\n")
    child = leader.line()
    leader.stdin.write(b"\n")
    os.waitpid(leader.pid, 0)
    leader.tree.leader = 0
    done, _ = await asyncio.wait([emptied], timeout=0.05)
    assert not done
    os.kill(child, signal.SIGKILL)
    async with asyncio.timeout(10):
        await emptied


def test_zombies_are_no_members(start: Start) -> None:
    """Who has ended takes no signal, whether or not his status was taken."""
    leader = start("exit 0")
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    assert not members_of(leader.tree, [leader.pid])
    assert signal_tree(leader.tree, signal.SIGKILL, leader.pid) == {}


async def test_waiting_has_a_bound(start: Start) -> None:
    """Who doesn't end is waited for no longer than that; it is told and let go of."""
    leader = start("echo 1; read x")
    leader.line()
    waited_for = members_of(leader.tree, [leader.pid])
    async with asyncio.timeout(10):
        assert not await ended(waited_for, 0.01)
    assert living({leader.pid}) == {leader.pid}


async def test_waiting_where_the_kernel_has_no_room(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked again. Source: epoll_ctl(2), ENOSPC."""
    leader = start("echo 1; read x")
    leader.line()
    waited_for = members_of(leader.tree, [leader.pid])
    loop = asyncio.get_running_loop()
    refused = loop.create_future()

    def full(fd: int, callback: Callable[[], None]) -> None:
        monkeypatch.undo()
        refused.set_result(None)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop, "add_reader", full)
    waiting = asyncio.ensure_future(ended(waited_for))
    async with asyncio.timeout(10):
        await refused
        leader.stdin.write(b"\n")
        assert await waiting
    assert living({leader.pid}) == set()


@pytest.fixture(params=["this", "older"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pidfd_open(2) says of a number that only names a group: as here, and in Linux 6.12."""
    open_pidfd = os.pidfd_open

    def older(pid: int, flags: int = 0) -> int:
        try:
            return open_pidfd(pid, flags)
        except ProcessLookupError as exc:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from exc

    if request.param == "older":
        monkeypatch.setattr("os.pidfd_open", older)


@pytest.mark.usefixtures("kernel")
async def test_who_has_ended_and_left_a_group(start: Start) -> None:
    """Nobody has its number, though that isn't free."""
    leader = start('sh -c "$STAY" & read x')
    staying = leader.line()
    stat = procfs.stat_of(leader.pid)
    assert stat is not None
    pid, start_time = leader.pid, stat.start_time
    leader.stdin.write(b"\n")
    leader.reaped()
    assert os.getpgid(staying) == pid
    with pytest.raises(ProcessLookupError):
        send(pid, start_time, (signal.SIGTERM,))
    assert await ended({pid: start_time}, 10)


@pytest.mark.usefixtures("kernel")
async def test_a_signal_goes_on_after_who_has_ended_and_left_a_group(start: Start) -> None:
    """Those behind it are its children, who get the signal as any other."""
    leader = start('setsid sh -c \'sh -c "$STAY" & eval "$STAY"\' & wait; read x')
    pids = leader.lines(2)
    (first,) = (pid for pid in pids if os.getsid(pid) == pid)

    def hears(pid: int) -> bool:
        if pid == first:
            os.kill(pid, signal.SIGKILL)
            while procfs.stat_of(pid) is not None:  # its parent is about to see to that
                pass
        return pid != leader.pid

    reached: dict[int, int] = {}
    departed: set[int] = set()
    for _ in proctree.signal_tree(
        leader.tree, signal.SIGTERM, (leader.pid,), reached, departed, only=hears
    ):
        pass
    assert set(reached) == pids - {first}
    assert departed == {first}  # who may have left somebody behind since it was looked at


async def test_waiting_for_nobody() -> None:
    """Nothing to wait for is no wait."""
    async with asyncio.timeout(10):
        await ended({}, 10)


async def test_parts_of_a_tree(start: Start) -> None:
    """What a host starts after a retag is a part of its own, and of the whole; the host is not."""
    host = start('while read x; do sh -c "$STAY" & done')
    host.stdin.write(b"\n")
    first = host.line()
    tags.retag(host.pid, TAG + 1)
    host.stdin.write(b"\n")
    second = host.line()
    tags.retag(host.pid, TAG + 2)
    host.stdin.write(b"\n")
    third = host.line()
    assert [tags.tag_of(pid) for pid in (first, second, third)] == [TAG, TAG + 1, TAG + 2]
    whole = Tree(host.pid, TAG, PROCESS_MASK)
    assert set(members_of(whole, [host.pid])) == {host.pid, first, second, third}
    # What has the host's place is one of its part, and nobody is told twice.
    replaced = Tree(host.pid, TAG + 2, host=host.pid)
    found = [pid for pid, _ in filter(None, proctree.members(replaced, [host.pid]))]
    assert sorted(found) == sorted([host.pid, third])
    part = Tree(0, TAG + 1, host=host.pid)
    assert set(members_of(part, [host.pid])) == {second}
    await kill(part, host.pid)
    assert living({host.pid, first, second, third}) == {host.pid, first, third}
    # Orphans keep the part they are of.
    os.kill(host.pid, signal.SIGKILL)
    host.reaped()
    assert set(members_of(Tree(0, TAG + 2), [])) == {third}
    assert set(members_of(Tree(0, TAG, PROCESS_MASK), [])) == {first, third}


def test_a_retag_of_nobody(start: Start) -> None:
    """Who has gone keeps his tag; nothing fails."""
    leader = start("exit 0")
    leader.reaped()
    tags.retag(leader.pid, TAG + 1)
    assert tags.tag_of(leader.pid) == 0


def test_reaping_takes_the_statuses_of_orphans(start: Start) -> None:
    """And no other; the living stay, and those that are gone by then are no trouble."""
    living_one = start("read x; exit 3")
    dead = [start("exit 1") for _ in range(2 * ASKED)]
    other = start("exit 2")
    for leader in (*dead, other):
        os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    reaping = proctree.reap_orphans({other.pid})
    next(reaping)
    assert os.waitstatus_to_exitcode(os.waitpid(dead[-1].pid, 0)[1]) == 1
    assert list(reaping) == [None]
    assert set(procfs.own_children()) == {living_one.pid, other.pid}
    assert os.waitstatus_to_exitcode(os.waitpid(other.pid, 0)[1]) == 2
    living_one.stdin.close()
    assert os.waitstatus_to_exitcode(os.waitpid(living_one.pid, 0)[1]) == 3


def test_several_who_are_only_asked_are_a_step(start: Start) -> None:
    """Orphans of others, and statuses, take a small part of the time that a member does."""
    other = start(
        f"for i in $(seq {3 * ASKED}); do (sleep 1000 &); done; echo 1; read x", tag=OTHER_TAG
    )
    leader = start("echo 1; read x")
    other.line()
    leader.line()
    leaders = {other.pid, leader.pid}
    pids = [member and member[0] for member in proctree.members(leader.tree, leaders)]
    assert pids == [None, None, None, leader.pid]
    orphans = {*procfs.own_children()} - leaders
    assert len(orphans) == 3 * ASKED
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert len([*proctree.reap_orphans(leaders)]) == 3
    assert {*procfs.own_children()} == leaders


def test_some_threads_are_a_step(start: Start) -> None:
    """A process may have tens of thousands, each with children of its own."""
    many = 10 * THREADS
    child = f"""
import subprocess
from threading import Event, Thread
for _ in range({many - 2}):
    Thread(target=Event().wait).start()
def fork():
    print(subprocess.Popen(["sleep", "1000"]).pid)
    Event().wait()
Thread(target=fork).start()
"""
    leader = start(f"exec {shlex.quote(sys.executable)} -uc {shlex.quote(child)}")
    forked = leader.line()
    assert len(procfs.threads_of(leader.pid)) == many
    pids = [member and member[0] for member in proctree.members(leader.tree, {leader.pid})]
    assert pids == [*[None] * 10, leader.pid, forked]


def test_each_thread_is_mended_and_looked_at_once_more(start: Start) -> None:
    """Those of every member, until a look finds none that needs it."""
    child = """
import os
from threading import Event, Thread
Thread(target=Event().wait).start()
print(os.getpid())
"""
    one = start(f"{shlex.quote(sys.executable)} -uc {shlex.quote(child)} & echo $!; read line")
    (pid,) = one.lines(2)
    seen: list[int] = []

    def mend(thread: int) -> bool:
        seen.append(thread)
        return seen.count(thread) == 1 and thread == pid

    assert proctree.each_thread(one.tree, mend)
    threads = {one.pid, *procfs.threads_of(pid)}
    assert len(threads) == 3
    assert sorted(seen) == sorted([*threads] * 2)


def test_whoever_always_needs_it_is_given_up(start: Start) -> None:
    """As who starts others faster than they are found."""
    one = start("echo; read line")
    one.stdout.read(1)
    seen: list[int] = []

    def mend(thread: int) -> bool:
        seen.append(thread)
        return True

    assert not proctree.each_thread(one.tree, mend)
    assert seen == [one.pid] * MANY_ROUNDS
    assert procfs.threads_of((1 << 22) - 1) == set()
