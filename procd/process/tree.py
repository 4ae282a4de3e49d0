"""Process trees: a process and all its descendants, searched, signalled and killed together.

The kernel lists the children of each thread. A process whose ancestors have died becomes a child of
procd, the child subreaper, and is found by its tag (see `tags`).

Source: prctl(2) PR_SET_CHILD_SUBREAPER, proc_pid_task(5) "children".
"""

import asyncio
import ctypes
import itertools
import logging
import os
import signal
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from procd.process.child import Child
from procd.process.sudo import SUDO_GRACE_S, SudoGrace
from procd.process.tags import EVERY_BIT, tag_of
from procd.tasks import Tasks, Turns
from procd.unix.libc import LIBC
from procd.unix.pidfd import RETRY_S, send, wait_ended
from procd.unix.procfs import children, own_children, stat_of, ticks_since_boot

log = logging.getLogger(__name__)

PR_SET_CHILD_SUBREAPER: Final = 36
# In an uninterruptible sleep, as when a disk doesn't answer, a kill can take any time.
KILL_WAIT_S: Final = 2.0
SUDO_WAIT_S: Final = SUDO_GRACE_S + 0.1
# After so many rounds a kill is reported as an error, and goes on more slowly.
MANY_ROUNDS: Final = 64

Filter = Callable[[int], bool]


def become_subreaper() -> None:
    """Make orphans among procd's descendants its children."""
    if LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(slots=True)
class Tree:
    """What identifies a tree.

    Attributes:
        leader: pid of its first process until its status is read, then 0; 0 also for none.
        tag: the tag of its processes, in the bits of `mask`.
        host: pid of a process that several trees share, such as a session's shell: of its children
            only those with the tag are members. 0 for none.
    """

    leader: int
    tag: int
    mask: int = EVERY_BIT
    host: int = 0

    def owns(self, tag: int) -> bool:
        return tag & self.mask == self.tag


def members(
    tree: Tree, supervised: Container[int], dead: set[int] | None = None
) -> Iterator[tuple[int, int] | None]:
    """Search the living processes of a tree: pid and start time, in ticks since boot.

    Others that are looked at yield None, so that the caller can pause. The youngest orphans
    come first: of a chain of processes that fork and exit, only the last one lives. `dead` gets the
    pids of members found dead. OSError if no descriptor is left.
    """
    seen: set[int] = set()
    for root in _roots(tree, supervised):
        if root is None:
            yield None
            continue
        queue = [(root, ticks_since_boot())]
        while queue:
            pid, listed_at = queue.pop()
            if pid in seen:
                continue
            seen.add(pid)
            stat = stat_of(pid)
            # While the search was paused the process may have ended and its pid been reused.
            reused = stat is not None and stat.start_time > listed_at
            if stat is None or not stat.alive or (reused and not tree.owns(tag_of(pid))):
                if dead is not None:
                    dead.add(pid)
                yield None
                continue
            listed_at = ticks_since_boot()
            found: Iterable[int] = children(pid)
            if pid == tree.host:
                found = _tagged(tree, found)
            queue += [(child, listed_at) for child in found]
            yield pid, stat.start_time


def _roots(tree: Tree, supervised: Container[int]) -> Iterator[int | None]:
    """Yield the tree's orphans, its leader, and tagged children of its host."""
    leader = tree.leader
    for pid in reversed(own_children()):
        if pid not in supervised:
            yield pid if _owns_orphan(tree, leader, pid) else None
    if tree.leader and tree.leader in supervised:
        yield tree.leader
    if tree.host:
        yield from _tagged(tree, children(tree.host))


def _tagged(tree: Tree, pids: Iterable[int]) -> Iterator[int]:
    return (pid for pid in pids if tree.owns(tag_of(pid)))


def _owns_orphan(tree: Tree, leader: int, pid: int) -> bool:
    tag = tag_of(pid)
    if tag:
        return tree.owns(tag)
    stat = stat_of(pid)  # without a tag: it has set that limit itself, or can't be looked at
    if stat is None:
        return True  # it has just ended: as it may have been a member, another search follows
    return leader != 0 and leader in (stat.group, stat.session)


def reap_orphans(supervised: Container[int]) -> Iterator[None]:
    """Read the statuses of procd's ended children that aren't `supervised`, one a step."""
    for pid in own_children():
        if pid not in supervised:
            with suppress(ChildProcessError):  # another search has read it
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
            yield


class Trees:
    """Signals and kills whole trees, a few steps in each turn of the event loop.

    `turns` is to be taken before, so that a client that ends many trees leaves time for others.
    """

    def __init__(self, supervised: Mapping[int, Child], tasks: Tasks) -> None:
        self._supervised = supervised
        self._tasks = tasks
        self.turns = Turns()

    async def try_signal(
        self,
        tree: Tree,
        number: int,
        only: Filter | None = None,
        *,
        wake: bool = False,
        sudo: SudoGrace | None = None,
    ) -> dict[int, int]:
        """Signal all members, or `only` some, and return those that got it: pid → start time.

        `wake` continues stopped members. Does nothing if no descriptor is left to search with.
        """
        reached: dict[int, int] = {}
        steps = self._signal_steps(tree, number, reached, only, wake=wake, sudo=sudo)
        await self.turns.spread(_logged(steps, tree))
        return reached

    def start_signal(self, tree: Tree, number: int, only: Filter) -> None:
        """As `try_signal`, in the background; at once if the tree is small."""
        steps = _logged(self._signal_steps(tree, number, {}, only), tree)
        self.turns.begin(steps)
        self._tasks.start(self.turns.finish(steps), f"signal tree {tree.tag:x}")

    async def signal(self, tree: Tree, number: int) -> None:
        """Signal all members, even if the caller is cancelled; OSError if no descriptor is left."""
        steps = self._signal_steps(tree, number, {})
        self.turns.begin(steps)
        await self._tasks.finish(self.turns.finish(steps), f"signal tree {tree.tag:x}")

    def start_kill(self, tree: Tree) -> asyncio.Task[None]:
        """Kill a tree: the first steps now, the others in a task that ends with the last member."""
        reached: dict[int, int] = {}
        sudo = SudoGrace()
        first = self._first_round(tree, reached, sudo)
        self.turns.begin(first)
        return self._tasks.run(
            self._finish_kill(tree, first, reached, sudo), f"kill tree {tree.tag:x}"
        )

    async def kill(self, tree: Tree) -> None:
        """Kill a tree and wait at most `KILL_WAIT_S`; the kill goes on after that."""
        await self.turns.take()
        await asyncio.wait([self.start_kill(tree)], timeout=KILL_WAIT_S)

    async def emptied(self, tree: Tree) -> None:
        """Wait until the tree has no members, and a search finds no dead one that left children."""
        known_dead: set[int] = set()
        while True:
            living: dict[int, int] = {}
            dead: set[int] = set()
            try:
                await self.turns.spread(self._list_steps(tree, living, dead))
                if not living and dead <= known_dead:
                    return
                known_dead |= dead
                await wait_ended(living)
            except OSError:
                await asyncio.sleep(RETRY_S)

    def _list_steps(
        self, tree: Tree, found: dict[int, int], dead: set[int] | None = None
    ) -> Iterator[None]:
        for member in members(tree, self._supervised, dead):
            if member is not None:
                pid, start_time = member
                found[pid] = start_time
            yield

    def _signal_steps(
        self,
        tree: Tree,
        number: int,
        reached: dict[int, int],
        only: Filter | None = None,
        *,
        wake: bool = False,
        sudo: SudoGrace | None = None,
        dead: set[int] | None = None,
    ) -> Iterator[None]:
        found: Iterable[tuple[int, int] | None] = members(tree, self._supervised, dead)
        if number != signal.SIGKILL:
            # List all first: a member that handles the signal may end others, and what those have
            # started would be missed. For SIGKILL not: a member could fork while others are listed.
            listed: dict[int, int] = {}
            yield from self._list_steps(tree, listed)
            found = listed.items()
        numbers: tuple[int, ...] = (number, signal.SIGCONT) if wake else (number,)
        sudo_has_time = False
        for member in found:
            if member is not None and (only is None or only(member[0])):
                pid, start_time = member
                try:
                    if sudo is not None:
                        numbers = sudo.signals_for(pid, start_time)
                        sudo_has_time = sudo_has_time or number not in numbers
                    send(pid, start_time, numbers)
                    reached[pid] = start_time
                except ProcessLookupError:
                    if dead is not None:
                        dead.add(pid)
                except PermissionError:
                    if not sudo_has_time:  # otherwise it may end that process
                        log.warning("process %d is not ours to signal", pid)
            yield

    def _first_round(self, tree: Tree, reached: dict[int, int], sudo: SudoGrace) -> Iterator[None]:
        try:
            yield from _logged(self._signal_steps(tree, signal.SIGKILL, reached, sudo=sudo), tree)
        finally:
            if tree.leader not in reached and tree.leader in self._supervised:  # /proc hides it
                self._supervised[tree.leader].signal(signal.SIGKILL)

    async def _finish_kill(
        self,
        tree: Tree,
        first_round: Iterator[None],
        reached: dict[int, int],
        sudo: SudoGrace,
    ) -> None:
        """Kill in rounds until one finds no member, not even a dead one that may have forked."""
        try:
            await self.turns.finish(first_round)
        finally:
            for _ in first_round:  # if this task is cancelled, kill the rest now
                pass
        known_dead: set[int] = set()
        for number in itertools.count(1):
            dead: set[int] = set()
            try:
                within_s = SUDO_WAIT_S if sudo.waiting else KILL_WAIT_S
                if not await wait_ended(reached, within_s) and number == 1:
                    log.warning("the tree with tag %x is still ending", tree.tag)
                if number == MANY_ROUNDS:
                    log.error("the tree with tag %x can't be ended: going on", tree.tag)
                await asyncio.sleep(0 if number < MANY_ROUNDS else RETRY_S)
                await self.turns.take()
                # A chain of forks leaves thousands of zombies, which would slow down the search.
                await self.turns.spread(reap_orphans(self._supervised))
                reached = {}
                await self.turns.spread(
                    self._signal_steps(tree, signal.SIGKILL, reached, sudo=sudo, dead=dead)
                )
                if not reached and dead <= known_dead:
                    return
                known_dead |= dead
            except OSError:
                await asyncio.sleep(RETRY_S)


def _logged(steps: Iterator[None], tree: Tree) -> Iterator[None]:
    try:
        yield from steps
    except OSError as exc:
        log.warning("the tree with tag %x can't be searched: %s", tree.tag, exc.strerror)
