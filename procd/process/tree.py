"""Process trees: everything that a process has started, wherever it went, signalled and killed.

A descendant is found in one of two ways:

- by parentage: the kernel lists the children of each thread. procd is the child subreaper of all
  that it starts, so a process whose ancestors have died becomes a child of procd;
- by tag: such an orphan has inherited the mark of its tree (see `tags`).

Source: prctl(2) PR_SET_CHILD_SUBREAPER, proc_pid_task(5) "children".
"""

import asyncio
import ctypes
import itertools
import logging
import os
import signal
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final

from procd.process.child import Child
from procd.process.sudo import SUDO_GRACE_S, SudoGrace
from procd.process.tags import EVERY_BIT, PROCESS_MASK, RUN_MASK, tag_of
from procd.tasks import Tasks
from procd.throttle import Turns
from procd.unix.libc import LIBC
from procd.unix.pidfd import RETRY_S, ended, send
from procd.unix.procfs import children, children_by_thread, now, own_children, stat_of

log = logging.getLogger(__name__)

PR_SET_CHILD_SUBREAPER: Final = 36
# SIGKILL ends a process at its next return from the kernel; one in an uninterruptible sleep may
# take as long as its disk does.
KILL_WAIT_S: Final = 2.0
SUDO_WAIT_S: Final = SUDO_GRACE_S + 0.1
# A search yields after so many orphans of other trees, and after so many threads of one process, so
# that the event loop can serve others meanwhile. A member of the tree is a step by itself.
ORPHANS_A_STEP: Final = 4
THREADS_A_STEP: Final = 6
# After so many rounds a kill is logged once more and goes on more slowly.
MANY_ROUNDS: Final = 64

Only = Callable[[int], bool]


def become_subreaper() -> None:
    """Have orphans among our descendants become our children.

    Raises:
        OSError: the kernel refuses.
    """
    if LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(slots=True)
class Tree:
    """What identifies a tree.

    Attributes:
        leader: pid of its first process until its status is read, then 0.
        tag: the mark of its processes, in the bits of `mask`.
        host: pid of a process that several trees share, such as the shell of a session: of its
            children only those with the tag are members. 0 for none.
    """

    leader: int
    tag: int
    mask: int = EVERY_BIT
    host: int = 0

    def owns(self, tag: int) -> bool:
        """Whether a process with this tag is a member."""
        return tag & self.mask == self.tag

    @property
    def leaders(self) -> set[int]:
        """The leader, if there is one."""
        return {self.leader} - {0}


@dataclass(slots=True)
class TreeGroup:
    """All trees of this run of procd but some, to be killed with one search.

    Attributes:
        trees: those that have a leader, or had one.
        tag: the mark of all their processes, in the bits of RUN_MASK.
        spared: the tags, in the bits of PROCESS_MASK, of trees that don't belong to it.
    """

    trees: Collection[Tree]
    tag: int
    spared: Container[int]
    host: ClassVar[int] = 0

    def owns(self, tag: int) -> bool:
        """Whether a process with this tag is a member of one."""
        return tag & RUN_MASK == self.tag and tag & PROCESS_MASK not in self.spared

    @property
    def leaders(self) -> set[int]:
        """The leaders that there are."""
        return {tree.leader for tree in self.trees} - {0}


def members(
    tree: Tree | TreeGroup, supervised: Container[int], dead: set[int] | None = None
) -> Iterator[tuple[int, int] | None]:
    """The living processes of `tree` as they are found: pid and start time, in ticks since boot.

    None in between lets the caller do something else. The youngest orphans come first: of a chain
    of processes that fork and exit, only the last one lives.

    Args:
        supervised: pids of the leaders of all trees, which aren't orphans.
        dead: gets the pids of members found dead, which may have left a child a moment ago.

    Raises:
        OSError: no descriptor is left to look at them with.
    """
    seen: set[int] = set()
    for root in _roots(tree, supervised):
        if root is None:
            yield None
            continue
        queue = [(root, now())]
        while queue:
            pid, listed_at = queue.pop()
            if pid in seen:
                continue
            seen.add(pid)
            stat = stat_of(pid)
            # Between two steps a process may have ended and its pid been reused.
            reused = stat is not None and stat.start_time > listed_at
            if stat is None or not stat.alive or (reused and not tree.owns(tag_of(pid))):
                if dead is not None:
                    dead.add(pid)
                yield None
                continue
            listed_at = now()
            found: list[int] = []
            for count, some in enumerate(children_by_thread(pid, stat.threads), 1):
                found += some
                if count % THREADS_A_STEP == 0:
                    yield None
            own = found if pid != tree.host else _tagged(tree, found)
            queue += [(child, listed_at) for child in own]
            yield pid, stat.start_time


def _roots(tree: Tree | TreeGroup, supervised: Container[int]) -> Iterator[int | None]:
    """Where to begin: orphans of the tree, its leaders, tagged children of its host."""
    leaders = tree.leaders
    others = 0
    for pid in reversed(own_children()):
        if pid in supervised:
            continue
        if _owns_orphan(tree, leaders, pid):
            yield pid
            continue
        others += 1
        if others % ORPHANS_A_STEP == 0:
            yield None
    yield from (leader for leader in tree.leaders if leader in supervised)
    if tree.host:
        yield from _tagged(tree, children(tree.host))


def _tagged(tree: Tree | TreeGroup, pids: Iterable[int]) -> Iterator[int]:
    return (pid for pid in pids if tree.owns(tag_of(pid)))


def _owns_orphan(tree: Tree | TreeGroup, leaders: set[int], pid: int) -> bool:
    tag = tag_of(pid)
    if tag:
        return tree.owns(tag)
    stat = stat_of(pid)  # untagged: it has set that limit itself, or can't be asked
    return stat is None or not leaders.isdisjoint((stat.group, stat.session))


def in_foreground(tree: Tree, tag: int) -> Only:
    """Which of a tree get a Ctrl-C: its leader, and those of its process group with `tag`."""

    def hears(pid: int) -> bool:
        if pid == tree.leader:
            return True
        stat = stat_of(pid)
        return stat is not None and stat.group == tree.leader and tag_of(pid) == tag

    return hears


def reap_orphans(supervised: Container[int]) -> Iterator[None]:
    """Read the statuses of our children that have ended and are not `supervised`, in steps.

    Never with a wait for any child: nobody else's status is read by mistake.

    Raises:
        OSError: no descriptor is left to look for them with.

    Source: waitid(2).
    """
    orphans = (pid for pid in own_children() if pid not in supervised)
    for number, pid in enumerate(orphans, 1):
        with suppress(ChildProcessError):  # it was read in another step
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        if number % ORPHANS_A_STEP == 0:
            yield


class Trees:
    """Signals and kills whole trees, a few steps in each turn of the event loop.

    Args:
        supervised: the leaders of all trees by pid, until their status is read.

    Attributes:
        turns: who signals or kills a tree takes one of these first, so that a client that ends
            many trees leaves time for others.
    """

    def __init__(self, supervised: Mapping[int, Child], tasks: Tasks) -> None:
        self._supervised = supervised
        self._tasks = tasks
        self.turns = Turns()

    async def try_signal(
        self,
        tree: Tree,
        number: int,
        only: Only | None = None,
        *,
        wake: bool = False,
        sudo: SudoGrace | None = None,
    ) -> dict[int, int]:
        """Signal all members, or `only` some.

        If no descriptor is left to look for them with, its first process group gets the signal.

        Args:
            wake: continue those that are stopped, so that they can handle it.
            sudo: asks `sudo` to end before the signal, which is SIGKILL.

        Returns:
            Those that are known to have got it: pid → start time.
        """
        reached: dict[int, int] = {}
        await self.turns.spread(self._try_steps(tree, number, reached, only, wake=wake, sudo=sudo))
        return reached

    def start_signal(self, tree: Tree, number: int, only: Only) -> None:
        """As `try_signal`, in the background; at once if the tree is small."""
        steps = self._try_steps(tree, number, {}, only)
        self.turns.begin(steps)
        self._tasks.start(self.turns.finish(steps), f"signal tree {tree.tag:x}")

    async def signal(self, tree: Tree, number: int) -> None:
        """Signal all members, even if the caller is cancelled.

        Raises:
            OSError: no descriptor is left to look for them with; some may have got it.
        """
        steps = self._steps(tree, number, {})
        self.turns.begin(steps)
        await self._tasks.finish(self.turns.finish(steps), f"signal tree {tree.tag:x}")

    def start_kill(self, tree: Tree | TreeGroup) -> asyncio.Task[None]:
        """Kill a tree: the first steps now, what follows in a task that ends when nobody is left.

        What is in an uninterruptible sleep may take as long as its disk does.
        """
        reached: dict[int, int] = {}
        sudo = SudoGrace()
        first = self._kill_once(tree, reached, sudo)
        self.turns.begin(first)
        return self._tasks.run(
            self._finish_kill(tree, first, reached, sudo), f"kill tree {tree.tag:x}"
        )

    async def kill(self, tree: Tree) -> None:
        """Kill a tree and wait for its end, at most `KILL_WAIT_S`; the kill goes on after that."""
        await self.turns.take()
        await asyncio.wait([self.start_kill(tree)], timeout=KILL_WAIT_S)

    async def emptied(self, tree: Tree) -> None:
        """Wait until the tree has no members."""
        while True:
            try:
                living = await self._list(tree)
                if not living:
                    return
                await ended(living)
            except OSError:
                await asyncio.sleep(RETRY_S)

    async def _list(self, tree: Tree) -> dict[int, int]:
        found: dict[int, int] = {}
        await self.turns.spread(_collect(tree, self._supervised, found))
        return found

    def _steps(
        self,
        tree: Tree | TreeGroup,
        number: int,
        reached: dict[int, int],
        only: Only | None = None,
        *,
        wake: bool = False,
        sudo: SudoGrace | None = None,
        dead: set[int] | None = None,
    ) -> Iterator[None]:
        found: Iterable[tuple[int, int] | None] = members(tree, self._supervised, dead)
        if number != signal.SIGKILL:
            # A process that handles a signal may end others, which hides what they have started: so
            # list all first. One that is killed can't, and might fork while the others are listed.
            listed: dict[int, int] = {}
            yield from _collect(tree, self._supervised, listed)
            found = listed.items()
        numbers: tuple[int, ...] = (number, signal.SIGCONT) if wake else (number,)
        for member in found:
            if member is not None and (only is None or only(member[0])):
                pid, start_time = member
                try:
                    if sudo is not None:
                        numbers = sudo.signals_for(pid, start_time)
                    send(pid, start_time, numbers)
                    reached[pid] = start_time
                except ProcessLookupError:
                    if dead is not None:
                        dead.add(pid)
                except PermissionError:
                    if sudo is None or not sudo.waiting:
                        log.warning("process %d is not ours to signal", pid)
            yield

    def _try_steps(
        self,
        tree: Tree | TreeGroup,
        number: int,
        reached: dict[int, int],
        only: Only | None = None,
        *,
        wake: bool = False,
        sudo: SudoGrace | None = None,
    ) -> Iterator[None]:
        try:
            yield from self._steps(tree, number, reached, only, wake=wake, sudo=sudo)
        except OSError as exc:
            for leader in tree.leaders:
                with suppress(OSError):  # it isn't ours to signal
                    os.killpg(leader, number)
            log.warning("the tree with tag %x can't be searched: %s", tree.tag, exc.strerror)

    def _kill_once(
        self, tree: Tree | TreeGroup, reached: dict[int, int], sudo: SudoGrace
    ) -> Iterator[None]:
        try:
            yield from self._try_steps(tree, signal.SIGKILL, reached, sudo=sudo)
        finally:
            # Leaders that /proc hides.
            for leader in (tree.leaders & self._supervised.keys()) - reached.keys():
                self._supervised[leader].signal(signal.SIGKILL)

    async def _finish_kill(
        self,
        tree: Tree | TreeGroup,
        first: Iterator[None],
        reached: dict[int, int],
        sudo: SudoGrace,
    ) -> None:
        """Go on killing until a round finds nobody.

        A process that forks while it is looked for leaves a child for the next round, even if it
        was dead by the time it was found. Each round waits for the ends of the one before.
        """
        try:
            await self.turns.finish(first)
        finally:
            for _ in first:  # if procd ends meanwhile, the rest is signalled now
                pass
        seen: set[int] = set()
        for number in itertools.count(1):
            dead: set[int] = set()
            try:
                within_s = SUDO_WAIT_S if sudo.waiting else KILL_WAIT_S
                if not await ended(reached, within_s) and number == 1:
                    log.warning("the tree with tag %x is still ending", tree.tag)
                if number == MANY_ROUNDS:
                    log.error("the tree with tag %x can't be ended: going on", tree.tag)
                await asyncio.sleep(0 if number < MANY_ROUNDS else RETRY_S)
                await self.turns.take()
                # A chain of forks leaves thousands of zombies, which would slow down the search.
                await self.turns.spread(reap_orphans(self._supervised))
                reached = {}
                await self.turns.spread(
                    self._steps(tree, signal.SIGKILL, reached, sudo=sudo, dead=dead)
                )
                if not reached and dead <= seen:
                    return
                seen |= dead
            except OSError:
                await asyncio.sleep(RETRY_S)


def _collect(
    tree: Tree | TreeGroup, supervised: Container[int], found: dict[int, int]
) -> Iterator[None]:
    """Put the members into `found`, in the steps of `members`."""
    for member in members(tree, supervised):
        if member is not None:
            pid, start_time = member
            found[pid] = start_time
        yield
