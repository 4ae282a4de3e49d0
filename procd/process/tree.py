"""Everything a process has started, wherever it went, and its end.

A descendant is found in one of two ways:

- by parentage: the kernel lists the children of each thread. procd is the child subreaper of all it
  starts, so a process whose parents have died becomes a child of procd and of nobody else;
- by tag: an orphan tells whose it was by a mark that it has inherited (see `tags`).

Source: prctl(2) PR_SET_CHILD_SUBREAPER, proc_pid_task(5) "children".
"""

import asyncio
import ctypes
import itertools
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final

from procd.process.sudo import RELAY_S, Relays
from procd.process.tags import EVERY_BIT, PROCESS_MASK, RUN_MASK, tag_of
from procd.throttle import Turns
from procd.unix.libc import LIBC
from procd.unix.pidfd import RETRY_S, ended, send
from procd.unix.procfs import children, children_by_thread, now, own_children, stat_of, threads_of

log = logging.getLogger(__name__)

PR_SET_CHILD_SUBREAPER: Final = 36
# SIGKILL ends a process at its next return from the kernel; one in an uninterruptible sleep may
# take as long as its disk does.
KILL_WAIT_S: Final = 2.0
RELAY_WAIT_S: Final = RELAY_S + 0.1  # a timer may be early
# So many orphans make a step where each is only asked for its tag, which takes 2 µs, or 40 where
# /proc has to tell it, or for its status, which takes 20. A member is a step by itself: its stat
# and children are read and a pidfd is opened, 60 to 80 µs.
ASKED: Final = 4
# And so many threads of a process: each lists its own children, which takes 12 µs.
THREADS: Final = 6
# After so many a kill is logged once more and goes on more slowly, and `each_thread` gives up.
MANY_ROUNDS: Final = 64


def become_subreaper() -> None:
    """Have orphans among our descendants become our children.

    Raises:
        OSError: the kernel refuses.
    """
    if LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


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
) -> Iterator[tuple[int, int] | None]:
    """The living processes of `tree` as they are found: pid and start time, in ticks since boot.

    None for each other process that is looked at, for ASKED orphans of others, and for THREADS of
    a process with many. The youngest orphans come first: of those who fork and end, time after
    time, one lives.

    Args:
        supervised: pids of the leaders of all trees, which are no orphans.
        departed: gets the pids of those found dead, who may have left a child a moment ago.

    Raises:
        OSError: no descriptor is left to look at them with.
        MemoryError: there is no memory to.
    """
    seen: set[int] = set()
    for first in _firsts(tree, supervised):
        if first is None:
            yield None
            continue
        queue = [(first, now())]
        while queue:
            pid, listed_at = queue.pop()
            if pid in seen:
                continue
            seen.add(pid)
            stat = stat_of(pid)
            # Who has ended since it was listed may have left its pid to anybody, in another turn.
            reused = stat is not None and stat.start_time > listed_at
            if stat is None or not stat.alive or (reused and not tree.owns(tag_of(pid))):
                if departed is not None:
                    departed.add(pid)  # its children are somebody else's by now
                yield None
                continue
            listed_at = now()
            theirs: list[int] = []
            for count, few in enumerate(children_by_thread(pid, stat.threads), 1):
                theirs += few
                if count % THREADS == 0:
                    yield None
            listed = theirs if pid != tree.host else _bearers(tree, theirs)
            queue += [(child, listed_at) for child in listed]
            yield pid, stat.start_time


def each_thread(tree: Tree, mend: Callable[[int], bool]) -> bool:
    """Mend every thread of every member of `tree`, those that are started meanwhile too.

    Args:
        mend: whether it had to do anything about a thread, which then starts none that needs it.

    Returns:
        Whether nobody is left who needs it. Of those who fork and end, time after time, one may be.

    Raises:
        OSError, MemoryError: as `members`; some may be mended.
    """
    for _ in range(MANY_ROUNDS):
        mended = False
        for pid, _ in filter(None, members(tree, tree.leaders)):
            for thread in threads_of(pid):
                mended = mend(thread) or mended
        if not mended:
            return True
    return False


def _list(tree: Tree | Forest, supervised: Container[int], found: dict[int, int]) -> Iterator[None]:
    """Put the members into `found`, in the steps of `members`."""
    for member in members(tree, supervised):
        if member is not None:
            pid, start_time = member
            found[pid] = start_time
        yield


def _firsts(tree: Tree | Forest, supervised: Container[int]) -> Iterator[int | None]:
    """Where to begin to look, from there on by parentage; None for ASKED orphans of others."""
    leaders = tree.leaders
    others = 0
    for pid in reversed(own_children()):
        if pid in supervised:
            continue
        if _has_orphan(tree, leaders, pid):
            yield pid
            continue
        others += 1
        if others % ASKED == 0:
            yield None
    # Who has ended since then has no pid any more, and who does in the turns between isn't yielded.
    yield from (leader for leader in tree.leaders if leader in supervised)
    if tree.host:
        yield from _bearers(tree, children(tree.host))


def _bearers(tree: Tree | Forest, pids: Iterable[int]) -> Iterator[int]:
    return (pid for pid in pids if tree.owns(tag_of(pid)))


def _has_orphan(tree: Tree | Forest, leaders: set[int], pid: int) -> bool:
    tag = tag_of(pid)
    if tag:
        return tree.owns(tag)
    stat = stat_of(pid)  # untagged: it has set the limit itself, or can't be asked
    if stat is None:  # whose it was nobody knows: its status was taken in another turn
        return True
    return not leaders.isdisjoint((stat.group, stat.session))


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
    reached: dict[int, int],
    departed: set[int] | None = None,
    only: Callable[[int], bool] | None = None,
    *,
    wakes: bool = False,
    relays: Relays | None = None,
) -> Iterator[None]:
    """Send a signal to every member, or `only` some, in the steps of `members`.

    Args:
        reached: gets those that took it: pid → start time.
        wakes: whether who is stopped is continued, to hear it.
        relays: those that are asked before the signal, which is SIGKILL; gets whom it finds.

    Raises:
        OSError: no descriptor is left to look at them with; some may have got it.
        MemoryError: there is no memory to; likewise.
    """
    found: Iterable[tuple[int, int] | None] = members(tree, supervised, departed)
    if number != signal.SIGKILL:
        # Who is asked to end may end others, and so hide what they have started. Who is killed
        # can't, and may fork and be gone by the time that all have been looked at.
        listed: dict[int, int] = {}
        yield from _list(tree, supervised, listed)
        found = listed.items()
    numbers: tuple[int, ...] = (number, signal.SIGCONT) if wakes else (number,)
    is_final = True
    for member in found:
        if member is not None and (only is None or only(member[0])):
            pid, start_time = member
            try:
                if relays is not None:
                    numbers = relays.numbers(pid, start_time)
                    is_final = is_final and number in numbers
                send(pid, start_time, numbers)
                reached[pid] = start_time
            except ProcessLookupError:
                if departed is not None:
                    departed.add(pid)
            except PermissionError:
                if is_final:  # else a relay may yet end it
                    log.warning("process %d is not ours to signal", pid)
        yield


async def emptied(tree: Tree, supervised: Container[int], looks: Turns) -> None:
    """Wait until nobody is in the tree any more.

    Args:
        looks: the turns in which trees are looked for.
    """
    while True:
        living: dict[int, int] = {}
        try:
            await looks.spread(_list(tree, supervised, living))
            if not living:
                return
            await ended(living)
        except (OSError, MemoryError):
            await asyncio.sleep(RETRY_S)


async def finish_kill(
    tree: Tree | Forest,
    first: Iterator[None],
    reached: dict[int, int],
    relays: Relays,
    supervised: Container[int],
    looks: Turns,
) -> None:
    """Go on killing after the rest of a first round, until a round finds nobody.

    A process that forks while it is looked for leaves a child for the next round, even if it was
    dead by the time it was found. Each round waits for the ends of the one before. There is no last
    one: what can't be ended now, in an uninterruptible sleep say, may be in an hour.

    Args:
        first: what is left of that round.
        reached: gets those whom it reaches, and may have some.
        relays: likewise, the relays among them.
        looks: the turns in which trees are looked for.
    """
    try:
        await looks.finish(first)
    except MemoryError:
        pass  # to wait for a turn with: what is left has none
    finally:
        deque(first, maxlen=0)  # however soon procd ends: what is left has got the signal
    seen: set[int] = set()
    for number in itertools.count(1):
        departed: set[int] = set()
        try:
            within_s = RELAY_WAIT_S if relays else KILL_WAIT_S
            if not await ended(reached, within_s) and number == 1:
                log.warning("the tree with tag %x is still ending", tree.tag)
            if number == MANY_ROUNDS:
                log.error("the tree with tag %x can't be ended: it is tried on", tree.tag)
            # Others have their turn, whoever is found or not.
            await asyncio.sleep(0 if number < MANY_ROUNDS else RETRY_S)
            await looks.take()
            # A chain of forks leaves thousands of dead, and to look at each takes longer than the
            # one that lives does.
            await looks.spread(reap_orphans(supervised))
            reached = {}
            round_ = signal_tree(tree, signal.SIGKILL, supervised, reached, departed, relays=relays)
            await looks.spread(round_)
            if not reached and departed <= seen:
                return
            seen |= departed
        except (OSError, MemoryError):
            await asyncio.sleep(RETRY_S)


def reap_orphans(supervised: Container[int]) -> Iterator[None]:
    """Take the statuses of those of our children that have ended and are not `supervised`.

    ASKED in a step, and never with a wait for any child: nobody's status is taken by mistake.

    Raises:
        OSError: no descriptor is left to look for them with.
        MemoryError: there is no memory to.

    Source: waitid(2).
    """
    orphans = (pid for pid in own_children() if pid not in supervised)
    for number, pid in enumerate(orphans, 1):
        with suppress(ChildProcessError):  # it was taken in another turn
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        if number % ASKED == 0:
            yield
