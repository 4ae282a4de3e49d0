"""Everything a process has started, wherever it went, and its end.

A descendant is found in one of two ways:

- by parentage: the kernel lists the children of each thread. procd is the child subreaper of all it
  starts, so a process whose parents have died becomes a child of procd and of nobody else;
- by tag: an orphan tells whose it was by the soft limit RLIMIT_RTTIME, which `spawn` sets to a
  number of its own for each process it starts. A resource limit outlives fork, exec, setsid, a
  double fork and a cleared environment, costs one system call to read, leaves no trace in the
  user's environment, and this one is a bound in microseconds on real-time tasks, set here to some
  36,000 years.

Source: prctl(2) PR_SET_CHILD_SUBREAPER, proc_pid_task(5) "children", getrlimit(2).
"""

import asyncio
import ctypes
import errno
import logging
import os
import resource
import signal
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from procd.unix.fd import OwnedFd

log = logging.getLogger(__name__)

PR_SET_CHILD_SUBREAPER: Final = 36
# Tags are TAG_BASE + a number below TAG_BASE: far above any limit somebody would set in earnest.
TAG_BASE: Final = 1 << 60
# SIGKILL ends a process at its next return from the kernel; one in an uninterruptible sleep may
# take as long as its disk does.
KILL_WAIT_S: Final = 2.0
MAX_ROUNDS: Final = 64


def become_subreaper() -> None:
    """Have orphans among our descendants become our children.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@contextmanager
def marked(tag: int) -> Iterator[None]:
    """Carry `tag` for the length of the block, so that a process started in it inherits it.

    Where the hard limit is lower, orphans go untagged and are found by session alone.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    if hard != resource.RLIM_INFINITY and hard < tag:
        yield
        return
    resource.setrlimit(resource.RLIMIT_RTTIME, (tag, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_RTTIME, (soft, hard))


def tag_of(pid: int) -> int:
    """The tag that `pid` carries, or 0."""
    try:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_RTTIME)
    except (ProcessLookupError, PermissionError):
        return 0
    return soft if soft >= TAG_BASE else 0


def children(pid: int) -> list[int]:
    """The direct children of `pid`, zombies included; none when it has gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - a str, and much faster
    except (FileNotFoundError, ProcessLookupError):
        return found
    for thread in threads:
        found += _listed(f"/proc/{pid}/task/{thread}/children")
    return found


def own_children() -> list[int]:
    """The direct children of this process, which has one thread."""
    return _listed(f"/proc/self/task/{os.getpid()}/children")


def _listed(path: str) -> list[int]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a str, and much faster
            return [int(pid) for pid in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _stat(pid: int) -> tuple[str, int, int] | None:
    """State, process group and session of `pid`. Source: proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - a str, and much faster
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0].decode(), int(fields[2]), int(fields[3])


@dataclass(slots=True)
class Tree:
    """What names a tree: the pid of its leader until that is waited for, then 0; and its tag."""

    leader: int
    tag: int


def members(tree: Tree, supervised: Container[int]) -> list[int]:
    """The living processes of `tree`.

    Args:
        supervised: pids of the leaders of all trees, which are no orphans.
    """
    queue = [tree.leader] if tree.leader else []
    queue += [pid for pid in own_children() if pid not in supervised and _orphan_of(tree, pid)]
    found: set[int] = set()
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.add(pid)
            queue += children(pid)
    return [pid for pid in found if (stat := _stat(pid)) is not None and stat[0] not in "ZX"]


def _orphan_of(tree: Tree, pid: int) -> bool:
    tag = tag_of(pid)
    if tag or not tree.leader:
        return tag == tree.tag
    stat = _stat(pid)  # untagged: it has set the limit itself, or can't be asked
    return stat is not None and tree.leader in stat[1:]


def signal_tree(tree: Tree, number: int, supervised: Container[int]) -> list[OwnedFd]:
    """Send a signal to every member and return a pidfd of each that took it.

    A pidfd is opened first and membership tested after: a number reused in between is not hit.
    """
    reached: list[OwnedFd] = []
    for pid in members(tree, supervised):
        try:
            pidfd = OwnedFd(os.pidfd_open(pid))
        except ProcessLookupError:
            continue
        try:
            # The leader is unreaped and can't be another; anyone else bears no stranger's mark.
            if pid == tree.leader or tag_of(pid) in (tree.tag, 0):
                signal.pidfd_send_signal(pidfd.number, number)
                reached.append(pidfd)
                continue
        except ProcessLookupError:
            pass  # it ended by itself
        except PermissionError:
            log.warning("process %d is not ours to signal", pid)
        pidfd.close()
    return reached


async def ended(pidfds: list[OwnedFd], within_s: float) -> None:
    """Wait until each of these processes has ended, at most `within_s`; closes the pidfds."""
    loop = asyncio.get_running_loop()
    waiting = {pidfd.number for pidfd in pidfds}
    done = loop.create_future()

    def one_ended(number: int) -> None:
        loop.remove_reader(number)
        waiting.discard(number)
        if not waiting and not done.done():
            done.set_result(None)

    try:
        for number in waiting:
            loop.add_reader(number, one_ended, number)
        if waiting:
            async with asyncio.timeout(within_s):
                await done
    except TimeoutError:
        log.warning("%d processes are still ending after %.1f s", len(waiting), within_s)
    finally:
        for number in waiting:
            loop.remove_reader(number)
        for pidfd in pidfds:
            pidfd.close()


async def finish_kill(tree: Tree, reached: list[OwnedFd], supervised: Container[int]) -> None:
    """Go on killing after a first round reached these, until a round finds nobody.

    A process that forks while it is looked for leaves a child for the next round. Each round waits
    for the ends of the one before, so nothing is polled.
    """
    for _ in range(MAX_ROUNDS):
        if not reached:
            return
        await ended(reached, KILL_WAIT_S)
        reached = signal_tree(tree, signal.SIGKILL, supervised)
    log.error("the tree with tag %x can't be ended", tree.tag)
    for pidfd in reached:
        pidfd.close()


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
