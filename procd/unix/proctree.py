"""Everything a process has started, wherever it went, and its end.

A descendant is found in one of two ways:

- by parentage: the kernel lists the children of each thread. procd is the child subreaper of all it
  starts, so a process whose parents have died becomes a child of procd and of nobody else;
- by tag: an orphan tells whose it was by a mark that it has inherited (see `tags`).

Source: prctl(2) PR_SET_CHILD_SUBREAPER, proc_pid_task(5) "children".
"""

import asyncio
import ctypes
import errno
import itertools
import logging
import os
import signal
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from procd.turns import Turns
from procd.unix.fd import OwnedFd
from procd.unix.libc import LIBC
from procd.unix.procfs import children, own_children, stat_of
from procd.unix.tags import EVERY_BIT, PROCESS_MASK, RUN_MASK, tag_of

log = logging.getLogger(__name__)

PR_SET_CHILD_SUBREAPER: Final = 36
# SIGKILL ends a process at its next return from the kernel; one in an uninterruptible sleep may
# take as long as its disk does.
KILL_WAIT_S: Final = 2.0
# From here on it is said once more, and tried more slowly.
MANY_ROUNDS: Final = 64
# How long to wait where no descriptor is left, until one may be.
RETRY_S: Final = 0.2
NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})


def become_subreaper() -> None:
    """Have orphans among our descendants become our children.

    Raises:
        OSError: the kernel refuses.
    """
    if LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@dataclass(slots=True)
class Tree:
    """What names a tree.

    Attributes:
        leader: pid of its first process until that is waited for, then 0.
        tag: the mark of its processes, in the bits of `mask`.
        host: pid of a process that other trees share, such as the shell of a session: of its
            children only those with the tag are members, it itself only if it is the leader. 0 for
            none.
    """

    leader: int
    tag: int
    mask: int = EVERY_BIT
    host: int = 0

    def owns(self, tag: int) -> bool:
        """Whether who carries `tag` is a member."""
        return tag & self.mask == self.tag

    @property
    def leaders(self) -> set[int]:
        """The leader, if there is one."""
        return {self.leader} - {0}


@dataclass(slots=True)
class Forest:
    """All trees of a run but some; to walk each would take as many looks at all of our children.

    Attributes:
        trees: those that have a leader, or had one.
        tag: the mark of the processes of all, in the bits of RUN_MASK.
        spared: the tags, in the bits of PROCESS_MASK, of trees that are none of it.
    """

    trees: Collection[Tree]
    tag: int
    spared: Container[int]
    host: ClassVar[int] = 0

    def owns(self, tag: int) -> bool:
        """Whether who carries `tag` is a member of one."""
        return tag & RUN_MASK == self.tag and tag & PROCESS_MASK not in self.spared

    @property
    def leaders(self) -> set[int]:
        """The leaders that there are."""
        return {tree.leader for tree in self.trees} - {0}


def members(
    tree: Tree | Forest, supervised: Container[int], departed: set[int] | None = None
) -> Iterator[tuple[int, int]]:
    """The living processes of `tree` as they are found: pid and start time, in ticks since boot.

    The youngest orphans come first: of those who fork and end, time after time, one lives.

    Args:
        supervised: pids of the leaders of all trees, which are no orphans.
        departed: gets the pids of those found dead, who may have left a child a moment ago.

    Raises:
        OSError: no descriptor is left to look at them with.
    """
    seen: set[int] = set()
    for first in _firsts(tree, supervised):
        queue = [first]
        while queue:
            pid = queue.pop()
            if pid in seen:
                continue
            seen.add(pid)
            stat = stat_of(pid)
            if stat is None or not stat.alive:  # and its children are somebody else's by now
                if departed is not None:
                    departed.add(pid)
                continue
            theirs = children(pid, stat.threads)
            queue += theirs if pid != tree.host else _bearers(tree, theirs)
            yield pid, stat.start_time


def _firsts(tree: Tree | Forest, supervised: Container[int]) -> Iterator[int]:
    """Where to begin to look, from there on by parentage."""
    leaders = tree.leaders
    for pid in reversed(own_children()):
        if pid not in supervised and _has_orphan(tree, leaders, pid):
            yield pid
    yield from leaders
    if tree.host:
        yield from _bearers(tree, children(tree.host))


def _bearers(tree: Tree | Forest, pids: Iterable[int]) -> Iterator[int]:
    return (pid for pid in pids if tree.owns(tag_of(pid)))


def _has_orphan(tree: Tree | Forest, leaders: set[int], pid: int) -> bool:
    tag = tag_of(pid)
    if tag or not leaders:
        return tree.owns(tag)
    stat = stat_of(pid)  # untagged: it has set the limit itself, or can't be asked
    return stat is not None and not leaders.isdisjoint((stat.group, stat.session))


def in_foreground(tree: Tree, tag: int) -> Callable[[int], bool]:
    """Who of a tree hears of a Ctrl-C: its leader, and those of its process group with `tag`."""

    def hears(pid: int) -> bool:
        if pid == tree.leader:
            return True
        stat = stat_of(pid)
        return stat is not None and stat.group == tree.leader and tag_of(pid) == tag

    return hears


def signal_tree(
    tree: Tree | Forest,
    number: int,
    supervised: Container[int],
    departed: set[int] | None = None,
    only: Callable[[int], bool] | None = None,
    *,
    wakes: bool = False,
) -> dict[int, int]:
    """Send a signal to every member, or `only` some; those that took it: pid → start time.

    Args:
        wakes: whether who is stopped is continued, to hear it.

    Raises:
        OSError: no descriptor is left to look at them with; some may have got it.
    """
    reached: dict[int, int] = {}
    found: Iterable[tuple[int, int]] = members(tree, supervised, departed)
    if number != signal.SIGKILL:
        # Who is asked to end may end others, and so hide what they have started. Who is killed
        # can't, and may fork and be gone by the time that all have been looked at.
        found = list(found)
    for pid, start_time in found:
        if only is not None and not only(pid):
            continue
        try:
            _signal(pid, start_time, (number, signal.SIGCONT) if wakes else (number,))
            reached[pid] = start_time
        except ProcessLookupError:
            if departed is not None:
                departed.add(pid)
        except PermissionError:
            log.warning("process %d is not ours to signal", pid)
    return reached


def _signal(pid: int, start_time: int, numbers: tuple[int, ...]) -> None:
    """Send signals to the process that began then.

    Raises:
        ProcessLookupError: it has ended, whoever has its pid now.
        PermissionError: it is not ours to signal.
    """
    try:
        pidfd = _pidfd(pid, start_time)
    except OSError as exc:
        if exc.errno not in NO_DESCRIPTOR:
            raise
        _check(pid, start_time)  # with the last one that there is
        for number in numbers:
            os.kill(pid, number)
        return
    try:
        for number in numbers:
            signal.pidfd_send_signal(pidfd.number, number)
    finally:
        pidfd.close()


def _pidfd(pid: int, start_time: int) -> OwnedFd:
    """A pidfd of the process that began then; opened first, it is not one of a reused number.

    Raises:
        ProcessLookupError: it has ended, whoever has its pid now.
        OSError: there are not two descriptors, the one to look with.
    """
    pidfd = OwnedFd(os.pidfd_open(pid))
    try:
        _check(pid, start_time)
    except OSError:
        pidfd.close()
        raise
    return pidfd


def _check(pid: int, start_time: int) -> None:
    stat = stat_of(pid)
    if stat is None or not stat.alive or stat.start_time != start_time:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


async def ended(processes: Mapping[int, int], within_s: float | None = None) -> bool:
    """Wait until each of these processes (pid → start time) has ended, at most `within_s`.

    For one after the other, as there may be more of them than descriptors. Whether all have.
    """
    left = list(processes.items())
    try:
        async with asyncio.timeout(within_s):
            while left:
                await _one_ended(*left[-1])
                left.pop()
    except TimeoutError:
        return False
    return True


async def _one_ended(pid: int, start_time: int) -> None:
    pidfd = None
    while pidfd is None:
        try:
            pidfd = _pidfd(pid, start_time)
        except ProcessLookupError:
            return
        except OSError:
            await asyncio.sleep(RETRY_S)
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    try:
        loop.add_reader(pidfd.number, wake)
        await done
    finally:
        loop.remove_reader(pidfd.number)
        pidfd.close()


async def emptied(tree: Tree, supervised: Container[int]) -> None:
    """Wait until nobody is in the tree any more."""
    while True:
        try:
            living = dict(members(tree, supervised))
        except OSError:
            await asyncio.sleep(RETRY_S)
            continue
        if not living:
            return
        await ended(living)


async def finish_kill(
    tree: Tree | Forest, reached: Mapping[int, int], supervised: Container[int], looks: Turns
) -> None:
    """Go on killing after a first round reached these, until a round finds nobody.

    A process that forks while it is looked for leaves a child for the next round, even if it was
    dead by the time it was found. Each round waits for the ends of the one before. There is no last
    one: what can't be ended now, in an uninterruptible sleep say, may be in an hour.

    Args:
        looks: the turns in which trees are looked for.
    """
    seen: set[int] = set()
    for number in itertools.count(1):
        departed: set[int] = set()
        try:
            if not await ended(reached, KILL_WAIT_S) and number == 1:
                log.warning("the tree with tag %x is still ending", tree.tag)
            if number == MANY_ROUNDS:
                log.error("the tree with tag %x can't be ended: it is tried on", tree.tag)
            # Others have their turn, whoever is found or not.
            await asyncio.sleep(0 if number < MANY_ROUNDS else RETRY_S)
            await looks.take()
            # A chain of forks leaves thousands of dead, and to look at each takes longer than the
            # one that lives does.
            reap_orphans(supervised)
            reached = signal_tree(tree, signal.SIGKILL, supervised, departed)
        except OSError:
            await asyncio.sleep(RETRY_S)
            continue
        if not reached and departed <= seen:
            return
        seen |= departed


def reap_orphans(supervised: Container[int]) -> None:
    """Take the statuses of those of our children that have ended and are not `supervised`.

    One at a time, and never with a wait for any child: nobody's status is taken by mistake.

    Raises:
        OSError: no descriptor is left to look for them with.
    """
    for pid in own_children():
        if pid not in supervised:
            reap(pid)


def reap(pid: int) -> bool:
    """Take the status of an orphan that has ended; False while it lives.

    Source: waitid(2).
    """
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except OSError as exc:
        if exc.errno != errno.ECHILD:
            raise
        return True
