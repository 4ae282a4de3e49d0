"""Short slices: for how long a child may run in one go, until it has become its program.

Who has short ones goes before whoever runs with longer ones, and is sooner kept waiting in turn.

Source: sched_setattr(2); Linux 6.12, kernel/sched/fair.c, PREEMPT_SHORT and `custom_slice`. Older
kernels take it and heed it not.
"""

import logging
import os
import struct
import sys
from typing import Final

from procd.unix.libc import LIBC

log = logging.getLogger(__name__)

# asm/unistd_64.h of x86, and asm-generic/unistd.h.
SYS_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "loongarch64": 274, "riscv64": 274}
# linux/sched/types.h, SCHED_ATTR_SIZE_VER0
ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
SCHED_FLAG_RESET_ON_FORK: Final = 1
# The shortest that there is, nanoseconds; and what says that there is to be none in particular.
SHORT_SLICE_NS: Final = 100_000
ANY_SLICE: Final = 0


class ShortSlices:
    """Those of children that are started from `begin` to `end`."""

    def __init__(self) -> None:
        self._call = SYS_SCHED_SETATTR.get(os.uname().machine) if sys.maxsize > 1 << 32 else None
        self._own = self._ordinary = b""  # since `begin`: what procd is, and what a child is to be

    def begin(self) -> bool:
        """Have children begin with them from now on; whether they do. `end` follows if so.

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
