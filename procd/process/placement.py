"""Which processor a child goes on with that has just become its program.

procd goes before it, on the same processor where none is idle. There it waits until procd has
nothing to do; the next child that procd starts waits behind it, and procd for that one (vfork).
Meanwhile another processor may run out of work: the kernel leaves where it is what has just run. So
while more are to be started, each is sent off to the others, and the next one starts at once.

Between the two calls by which that is done the child may run elsewhere alone. A program that asks
then how many processors it may use (nproc, Go, make -j) is told one too few, for good; and others
may have procd's processor for milliseconds just then. So procd is a real-time task for as long, or
nobody is sent off where it may not be.

Source: sched_setaffinity(2): who runs or waits where it no longer may is moved in that moment.
"""

import ctypes
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from procd.process.realtime import RealTime
from procd.process.tree import Tree, each_thread
from procd.unix.libc import LIBC

log = logging.getLogger(__name__)

MOST_CPUS: Final = 1024
# Bits of all processors that there may ever be: who may use all now may use those that are added.
EVERYWHERE: Final = b"\xff" * (MOST_CPUS // 8)
# Within so many seconds of becoming its program nobody has forked: to load it takes longer.
SOON_S: Final = 0.0001


class Placement:
    """Sends children off to other processors than the one that procd is on.

    Nobody where there is but one, or where procd itself may not use all: neither may its children.
    Nor where procd may not be a real-time task.

    Args:
        now: a monotonic clock, seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        count = os.sysconf("SC_NPROCESSORS_ONLN")
        whole = 1 < count <= MOST_CPUS and len(os.sched_getaffinity(0)) == count
        self._works = whole and LIBC.sched_getcpu() >= 0  # which a sandbox may not tell
        self._all = _allowed()
        self._real_time = RealTime()
        self._elsewhere: dict[int, bytes] = {}  # by the processor that we are on

    def send_off(self, tree: Tree) -> None:
        """Have the leader, whose start has just returned, go on elsewhere.

        It may use all processors again right after: what it starts never knows of it.
        """
        try:
            self._send_off(tree)
        except MemoryError:  # it runs all the same, and its caller has to see to it
            log.warning("no memory to send %d to another processor with", tree.leader)

    def _send_off(self, tree: Tree) -> None:
        if not self._works or _allowed() != self._all:
            return
        cpu = LIBC.sched_getcpu()
        if cpu not in self._elsewhere:
            everywhere = int.from_bytes(EVERYWHERE, "little")
            self._elsewhere[cpu] = (everywhere & ~(1 << cpu)).to_bytes(len(EVERYWHERE), "little")
        elsewhere = self._elsewhere[cpu]
        begin = self._now()
        # Who may not do that, or can't, never will.
        self._works = self._real_time.begin()
        if not self._works:
            return
        try:
            self._works = _pass_by(tree.leader, elsewhere)
        finally:
            self._real_time.end()
        # We have been kept, by the host of this machine, and it may have started something.
        if self._works and self._now() - begin > SOON_S:
            kept = bytes(ours & theirs for ours, theirs in zip(self._all, elsewhere, strict=True))
            try:
                done = each_thread(tree, partial(_is_freed, kept))
            except (OSError, MemoryError):
                done = False
            if not done:
                log.warning("some of what %d has started may not use every processor", tree.leader)


def _pass_by(pid: int, cpus: bytes) -> bool:
    """Have it go on with one of these, and use all right after; whether it could be sent there."""
    try:
        return _allow(pid, cpus)
    finally:
        _allow(pid, EVERYWHERE)


def _is_freed(kept: bytes, task: int) -> bool:
    """Let it use all processors if it may use no others than these; whether it was so."""
    return _allowed(task) == kept and _allow(task, EVERYWHERE)


def _allowed(task: int = 0) -> bytes:
    """The processors that it may use, or procd itself."""
    cpus = ctypes.create_string_buffer(len(EVERYWHERE))
    LIBC.sched_getaffinity(task, len(cpus), cpus)
    return cpus.raw


def _allow(pid: int, cpus: bytes) -> bool:
    """Let it use these; whether that went well."""
    return bool(LIBC.sched_setaffinity(pid, len(cpus), cpus) == 0)
