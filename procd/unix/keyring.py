"""Keys of the kernel's that procd was started with, which aren't for other users' processes."""

import ctypes
import errno
import os
import sys
from typing import Final

from procd.unix.libc import LIBC

# asm/unistd_64.h of x86, and asm-generic/unistd.h.
SYS_KEYCTL: Final = {"x86_64": 250, "aarch64": 219, "loongarch64": 219, "riscv64": 219}
KEYCTL_JOIN_SESSION_KEYRING: Final = 1


def renounce_keys() -> None:
    """Join a new session keyring, an empty one. Children inherit it, whoever they run as.

    Who has it possesses what is in it, as if it were their own.

    Raises:
        OSError: the kernel refuses, or it isn't known how to ask it.

    Source: session-keyring(7); keyrings(7), "Possession"; keyctl(2).
    """
    number = SYS_KEYCTL.get(os.uname().machine)
    if number is None or sys.maxsize < 1 << 32:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if LIBC.syscall(number, KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
