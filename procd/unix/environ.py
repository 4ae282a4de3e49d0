"""Secrets in the environment: taken out so that no other process can read them.

Source: proc(5), "/proc/pid/environ" and "/proc/pid/stat", fields env_start and env_end.
"""

import os
from typing import Final

ENV_START: Final = 50
ENV_END: Final = 51


def pop_secret(name: str) -> str | None:
    """The value of a variable, which this process then doesn't have; None if it didn't before.

    To unset it isn't enough: /proc/PID/environ shows the memory that the process was started with,
    to every process of the same user. So what is there is overwritten.

    Raises:
        OSError: /proc isn't there; the variable is unset, and readable as described.
    """
    value = os.environ.pop(name, None)
    if value:
        _wipe(os.fsencode(name) + b"=")
    return value


def _wipe(prefix: bytes) -> None:
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - no path to speak of
        # Fields are counted from 1; the second is the program's name, which may hold blanks.
        fields = file.read().rpartition(b")")[2].split()
    start, end = (int(fields[number - 3]) for number in (ENV_START, ENV_END))
    with open("/proc/self/mem", "r+b", buffering=0) as memory:  # noqa: PTH123 - as above
        memory.seek(start)
        block = memory.read(end - start)
        offset = 0
        for entry in block.split(b"\0"):
            if entry.startswith(prefix):
                memory.seek(start + offset)
                memory.write(bytes(len(entry)))
            offset += len(entry) + 1
