"""Running as the user nobody for a while, as root may do everything."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from procd.unix.libc import LIBC

NOBODY: Final = pwd.getpwnam("nobody").pw_uid
PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4


@contextmanager
def as_nobody() -> Iterator[None]:
    """Have the rights of nobody.

    A process whose user has changed isn't dumpable any more, and without CAP_SYS_PTRACE it can't
    open its own descriptors in /proc then. Source: prctl(2).
    """
    dumpable = LIBC.prctl(PR_GET_DUMPABLE)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        LIBC.prctl(PR_SET_DUMPABLE, dumpable)
