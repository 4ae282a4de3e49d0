"""Starts where others keep all processors busy.

procd waits for a child until that has become its program (vfork). Where each processor has somebody
who runs all the time, the kernel has a child wait until the slice of one of them is over, and procd
with all its clients wait as long, for milliseconds each time. Once that is the rule, a child begins
with short slices of its own: who has these goes before whoever runs. As soon as it is its program
it has ordinary ones.

Source: sched_setattr(2); Linux 6.12, kernel/sched/fair.c, PREEMPT_SHORT and `custom_slice`. Older
kernels take it and heed it not.
"""

import logging
import os
import struct
import sys
import time
from collections.abc import Callable
from typing import Final

from procd.unix.cputime import Others
from procd.unix.libc import LIBC
from procd.unix.spawn import Spec, spawn

log = logging.getLogger(__name__)

# asm/unistd_64.h of x86, and asm-generic/unistd.h.
SYS_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "loongarch64": 274, "riscv64": 274}
# linux/sched/types.h, SCHED_ATTR_SIZE_VER0
ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
SCHED_FLAG_RESET_ON_FORK: Final = 1
# The shortest that there is, nanoseconds; and what says that there is to be none in particular.
SHORT_SLICE_NS: Final = 100_000
ANY_SLICE: Final = 0
# What a start takes on the average of so many where processors are busy. The longest says no more
# than a long one.
BUSY_START_S: Final = 0.0008
LONG_START_S: Final = 0.002
STARTS: Final = 16
# What others have of the processors' time where it is for them, measured over so many seconds at
# least. Where there are but commands of procd's own, to hurry some of them delays others, to whom
# the processor's caches are lost: 32 clients would get a tenth fewer of them.
BUSY_SHARE: Final = 0.15
SHARE_S: Final = 0.25
# One start in so many seconds is as ever, to see whether it still takes long.
BUSY_S: Final = 0.5


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
        self._call = SYS_SCHED_SETATTR.get(os.uname().machine) if sys.maxsize > 1 << 32 else None
        self._own = self._ordinary = b""  # since `begin`: what procd is, and what a child is to be
        self.busy = False
        self._start_s = 0.0  # what a start takes that isn't hurried
        self._look_at = 0.0  # when it is time for one
        self._ask_at = 0.0  # when to ask next whom they take long for, and the answer
        self._theirs = False

    def spawn(self, spec: Spec, tag: int) -> int:
        """As `spawn` of its own module."""
        begin = self._now()
        # A wrapper may make it another user's, who is not ours to change.
        if self.busy and begin < self._look_at and not spec.wrappers and self.begin():
            try:
                pid = spawn(spec, tag)
                self.release(pid)
            finally:
                self.end()
            return pid
        pid = spawn(spec, tag)
        self._learn(begin)
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
            except (OSError, MemoryError):  # the child runs by now, whatever can be known
                share = 1.0
            self._theirs = share >= BUSY_SHARE
            self._ask_at = now + SHARE_S
        return self._theirs

    def begin(self) -> bool:
        """Have children begin hurriedly from now on; whether they do. `end` follows if so.

        What else a child inherits stays as it is: procd itself may go before others, and has its
        children not do so (SCHED_RESET_ON_FORK), which would go for slices as well.
        """
        try:
            policy = os.sched_getscheduler(0)
            nice = os.getpriority(os.PRIO_PROCESS, 0)
        except OSError:  # a sandbox may not tell
            return False
        resets = policy == os.SCHED_OTHER | os.SCHED_RESET_ON_FORK
        if self._call is None or not (resets or policy == os.SCHED_OTHER):
            return False
        childs = max(nice, 0) if resets else nice
        self._own = _attributes(nice, ANY_SLICE, SCHED_FLAG_RESET_ON_FORK * resets)
        self._ordinary = _attributes(childs, ANY_SLICE)
        if self._set(0, _attributes(childs, SHORT_SLICE_NS)):
            return True
        self._call = None  # who may not do that, or can't, never will
        return False

    def release(self, pid: int) -> None:
        """Have a child that has begun go on as any other.

        What it has started by then keeps short slices, which is all that they are.
        """
        self._set(pid, self._ordinary)

    def end(self) -> None:
        """Have procd itself be what it was."""
        if not self._set(0, self._own):
            log.warning("procd has lost its priority over what it runs")

    def _set(self, pid: int, attributes: bytes) -> bool:
        return bool(LIBC.syscall(self._call, pid, attributes, 0) == 0)


def _attributes(nice: int, slice_ns: int, flags: int = 0) -> bytes:
    """struct sched_attr of an ordinary task."""
    size = ATTRIBUTES.size
    return ATTRIBUTES.pack(size, os.SCHED_OTHER, flags, nice, 0, slice_ns, 0, 0)
