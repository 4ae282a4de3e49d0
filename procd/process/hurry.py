"""Starts where others keep all processors busy.

procd waits for a child until that has become its program (vfork). Where each processor has somebody
who runs all the time, the kernel has a child wait until the slice of one of them is over, and again
as soon as it leads a session (autogroups, sched(7)); procd with all its clients wait as long, for
milliseconds each time. Once that is the rule, a child begins as a real-time task, one below procd,
which has it go on as any other as soon as it is its program. Where procd may not be real-time, a
child begins with short slices.

Its program, too, may run as a real-time task until procd gets round to it. That is known by how
long the start took: then whatever it has started by then is made ordinary too.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from procd.process.cputime import Others
from procd.process.realtime import NO_PRIORITY, RealTime
from procd.process.slices import ShortSlices
from procd.process.spawn import Spec, spawn
from procd.process.tags import PROCESS_MASK
from procd.process.tree import Tree, each_thread

log = logging.getLogger(__name__)

# Where processors are busy, the average of so many starts is above this; one that takes longer than
# a long one counts as that.
BUSY_START_S: Final = 0.0008
LONG_START_S: Final = 0.002
STARTS: Final = 16
# Starts take long for the sake of others if these have at least such a share of the processors'
# time, measured over so many seconds or more. Where there are but commands of procd's own, to hurry
# some of them delays those that lose the processor's caches: 32 clients would get a tenth fewer.
BUSY_SHARE: Final = 0.15
SHARE_S: Final = 0.25
# One start in so many seconds isn't hurried, to see whether it still takes long.
BUSY_S: Final = 0.5
# The real-time priorities of procd, which goes first, and of a child.
FIRST: Final = 2
SECOND: Final = 1
# A child that was started and made ordinary within so many seconds has started nobody: to become
# its program takes a third of that, and a shell's libraries are not yet loaded in the rest.
SOON_S: Final = 0.0004


class Hurry:
    """Starts children, without delay if need be.

    Args:
        now: a monotonic clock, seconds.
        others_share: see `Others.share`.

    Attributes:
        busy: whether others are taken to keep all processors busy.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        others_share: Callable[[], float] | None = None,
    ) -> None:
        self._now = now
        self._others_share = others_share or Others().share
        self._real_time = RealTime(FIRST, inherited=True)
        self._slices = ShortSlices()
        self.busy = False
        self._start_s = 0.0  # what a start takes that isn't hurried
        self._look_at = 0.0  # when it is time for one
        self._ask_at = 0.0  # when to ask next whether they take long for others, and the answer
        self._theirs = False

    def spawn(self, spec: Spec, tag: int) -> int:
        """As `spawn` of its own module."""
        begin = self._now()
        # A wrapper may make it another user's, who is not ours to change.
        if self.busy and begin < self._look_at and not spec.wrappers:
            if _goes_before_others() and self._real_time.begin():
                return self._spawn_first(spec, tag)
            if self._slices.begin():
                return self._spawn_sliced(spec, tag)
        pid = spawn(spec, tag)
        try:
            self._learn(begin)
        except MemoryError:  # the child runs by now, whatever can be known
            return pid
        return pid

    def _spawn_first(self, spec: Spec, tag: int) -> int:
        try:
            begin = self._now()
            # As it would have inherited it: nobody is here who waits for others.
            resets = self._real_time.policy & os.SCHED_RESET_ON_FORK
            nice = 0 if resets else os.getpriority(os.PRIO_PROCESS, 0)
            pid = spawn(spec, tag, real_time=SECOND)
            try:
                _make_ordinary(nice, pid)
            except MemoryError:
                os.kill(pid, signal.SIGKILL)
                raise
            late = self._now() - begin > SOON_S
        finally:
            self._real_time.end()
        if late:
            try:
                done = each_thread(Tree(pid, tag, PROCESS_MASK), partial(_is_made_ordinary, nice))
            except (OSError, MemoryError):
                done = False
            if not done:
                log.warning("some of what %d has started may be a real-time task", pid)
        return pid

    def _spawn_sliced(self, spec: Spec, tag: int) -> int:
        try:
            pid = spawn(spec, tag)
            self._slices.release(pid)
        finally:
            self._slices.end()
        return pid

    def _learn(self, begin: float) -> None:
        now = self._now()
        weight = 1 / 2 if self.busy else 1 / STARTS
        self._start_s += (min(now - begin, LONG_START_S) - self._start_s) * weight
        self.busy = self._start_s > BUSY_START_S and self._is_for_others(now)
        self._look_at = now + BUSY_S

    def _is_for_others(self, now: float) -> bool:
        """Whether it is others than commands of procd's own for whom starts take long."""
        if now >= self._ask_at:
            try:
                share = self._others_share()
            except OSError:
                share = 1.0
            self._theirs = share >= BUSY_SHARE
            self._ask_at = now + SHARE_S
        return self._theirs


def _goes_before_others() -> bool:
    """Whether nobody has chosen that procd wait for others."""
    try:
        policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        return policy == os.SCHED_OTHER and os.getpriority(os.PRIO_PROCESS, 0) <= 0
    except OSError:  # a sandbox may not tell
        return False


def _is_made_ordinary(nice: int, task: int) -> bool:
    """Have it go on as an ordinary task; whether it was none."""
    try:
        if os.sched_getscheduler(task) != os.SCHED_FIFO:
            return False
    except OSError:  # it has ended
        return False
    return _make_ordinary(nice, task)


def _make_ordinary(nice: int, task: int) -> bool:
    """Have a process, or one thread, go on as an ordinary task; whether it does."""
    try:
        os.setpriority(os.PRIO_PROCESS, task, nice)
        os.sched_setscheduler(task, os.SCHED_OTHER, NO_PRIORITY)
    except ProcessLookupError:
        return False  # it has ended
    except OSError as exc:
        log.error("%d stays a real-time task: %s", task, exc.strerror)
        return False
    return True
