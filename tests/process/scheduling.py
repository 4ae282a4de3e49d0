"""What the kernel's scheduler says of a task, and which tests need what of it."""

import ctypes
import errno
import os
import sys

import pytest

from procd.process.slices import ATTRIBUTES, SYS_SCHED_SETATTR
from procd.unix.libc import LIBC

needs_the_call = pytest.mark.skipif(
    os.uname().machine not in SYS_SCHED_SETATTR or sys.maxsize < 1 << 32,
    reason="it isn't known how to ask the kernel",
)


def _may_go_first() -> bool:
    """In a process of its own: it can't be undone."""
    if (pid := os.fork()) == 0:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, -1)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


needs_priority = pytest.mark.skipif(not _may_go_first(), reason="needs CAP_SYS_NICE")


def _may_be_real_time() -> bool:
    policy = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return False
    os.sched_setscheduler(0, policy, os.sched_param(0))
    return True


needs_real_time = pytest.mark.skipif(not _may_be_real_time(), reason="needs CAP_SYS_NICE")


def attributes(pid: int) -> tuple[int, ...]:
    """What sched_getattr(2) says, which has the next number: with nice at 3, slice at 5."""
    said = ctypes.create_string_buffer(ATTRIBUTES.size)
    number = SYS_SCHED_SETATTR[os.uname().machine] + 1
    assert LIBC.syscall(number, pid, said, len(said), 0) == 0
    return ATTRIBUTES.unpack(said.raw)


def denied(*_: object) -> int:
    """What a system call does that a sandbox denies."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
