"""To be nobody for a while, as root, who is kept from nothing."""

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
    """Have the rights of nobody meanwhile.

    Who has been somebody else isn't dumpable any more, and without CAP_SYS_PTRACE nor are its
    descriptors in /proc then, to which children open their paths. Source: prctl(2).
    """
    dumpable = LIBC.prctl(PR_GET_DUMPABLE)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        LIBC.prctl(PR_SET_DUMPABLE, dumpable)
