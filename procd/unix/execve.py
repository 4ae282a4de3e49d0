"""What no program can be started with, told before one is.

For what is to start later, and would be kept until then. `spawn` itself leaves it to the kernel.

Source: execve(2), "Limits on size of arguments and environment"; chdir(2).
"""

import errno
import os
import resource
from collections.abc import Mapping
from typing import Final

from procd.errors import SpawnFailed

# Of one string, its NUL among them.
MAX_STRING_BYTES: Final = 32 * resource.getpagesize()
# Of all of them, whatever the limit of the stack; and at least.
MAX_TOTAL_BYTES: Final = 6 << 20
MIN_TOTAL_BYTES: Final = 128 << 10
POINTER_BYTES: Final = 8
MAX_PATH_BYTES: Final = 4096


def check_startable(cwd: str, env: Mapping[str, str]) -> None:
    """Refuse a directory and an environment that are too long for any program.

    Raises:
        SpawnFailed: they are, in the words of `spawn`.
    """
    if len(cwd) >= MAX_PATH_BYTES or len(os.fsencode(cwd)) >= MAX_PATH_BYTES:
        reason = os.strerror(errno.ENAMETOOLONG)
        raise SpawnFailed(f"working directory cannot be entered: {cwd}: {reason}")
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    left = MAX_TOTAL_BYTES
    if stack != resource.RLIM_INFINITY:
        left = max(min(left, stack // 4), MIN_TOTAL_BYTES)
    for name, value in env.items():
        size = len(name) + len(value) + len("=\0")  # characters: what is too long isn't copied
        if size <= MAX_STRING_BYTES:
            size = len(os.fsencode(name)) + len(os.fsencode(value)) + len("=\0")
        left -= size + POINTER_BYTES
        if size > MAX_STRING_BYTES or left < 0:
            raise SpawnFailed("arguments and environment are too long for execve")
