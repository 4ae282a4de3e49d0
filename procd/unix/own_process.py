"""What procd changes about its own process at its start: secrets, keys and priority."""

import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import Final

from procd.unix.libc import LIBC

# Fields of /proc/PID/stat, counted from 1.
ENV_START: Final = 50
ENV_END: Final = 51
# asm/unistd_64.h of x86, and asm-generic/unistd.h.
SYS_KEYCTL: Final = {"x86_64": 250, "aarch64": 219, "loongarch64": 219, "riscv64": 219}
KEYCTL_JOIN_SESSION_KEYRING: Final = 1
AUTOGROUP: Final = Path("/proc/self/autogroup")


def pop_secret(name: str) -> str | None:
    """Remove a variable from the environment and return its value; None if it isn't set.

    Its memory is overwritten, as /proc/PID/environ shows it to every process of the same user. If
    there is no /proc, it is unset, and OSError raised.

    Source: proc_pid_environ(5); proc_pid_stat(5), env_start and env_end.
    """
    value = os.environ.pop(name, None)
    if not value:
        return value
    prefix = os.fsencode(name) + b"="
    # The second field is the program's name, which may contain spaces and brackets.
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    start, end = (int(fields[number - 3]) for number in (ENV_START, ENV_END))
    with open("/proc/self/mem", "r+b", buffering=0) as memory:  # noqa: PTH123 - no path
        memory.seek(start)
        offset = start
        for entry in memory.read(end - start).split(b"\0"):
            if entry.startswith(prefix):
                memory.seek(offset)
                memory.write(bytes(len(entry)))
            offset += len(entry) + 1
    return value


def renounce_keys() -> None:
    """Join a new, empty session keyring, which children inherit.

    Otherwise they possess the keys that procd was started with, even as another user.

    Source: session-keyring(7); keyrings(7), "Possession"; keyctl(2).
    """
    number = SYS_KEYCTL.get(os.uname().machine)
    if number is None or sys.maxsize < 1 << 32:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if LIBC.syscall(number, KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def raise_priority(nice: int) -> None:
    """Set procd's own nice value (-20 to 0), which its children don't inherit, if it has none yet.

    If procd leads a session, its autogroup is set as well, which children with a session of their
    own leave. PermissionError: CAP_SYS_NICE, or a sufficient RLIMIT_NICE, is missing.

    Source: sched(7), "The nice value", "The autogroup feature", "SCHED_RESET_ON_FORK".
    """
    if os.getpriority(os.PRIO_PROCESS, 0):
        return
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    try:
        # Not before the priority: without the right to set that, the flag couldn't be unset.
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    except OSError:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        raise
    if os.getsid(0) == os.getpid() and AUTOGROUP.exists():
        AUTOGROUP.write_text(str(nice))


def autogroup_nice() -> int:
    """The nice value of procd's autogroup; 0 if it has none.

    A kernel may be built without autogroups. The file is empty where no ancestor of procd since
    boot began a session, as below an init that doesn't.
    """
    fields = AUTOGROUP.read_text().split() if AUTOGROUP.exists() else []
    return int(fields[-1]) if fields else 0
