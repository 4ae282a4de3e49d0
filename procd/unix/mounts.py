"""Which directories lie on a file system that may not answer.

Source: proc_pid_mountinfo(5).
"""

import os
import re
from typing import Final

# Beginnings of the types whose files another machine has, or a program of this one.
REMOTE: Final = (
    b"9p", b"afs", b"autofs", b"ceph", b"cifs", b"fuse", b"lustre", b"nfs", b"smb", b"virtiofs",
)  # fmt: skip
ESCAPED: Final = re.compile(rb"\\([0-7]{3})")


def is_remote(path: str) -> bool:
    """Whether a path, relative to procd's directory, leads to such a file system.

    As its text says: what has to ask for where a link leads could wait for ever. `/` itself doesn't
    count: without it nothing goes anyway.
    """
    try:
        wanted = os.fsencode(os.path.abspath(path))  # noqa: PTH100 - a str
        with open("/proc/self/mountinfo", "rb", buffering=0) as mounts:  # noqa: PTH123 - as above
            lines = mounts.read().split(b"\n")[:-1]
    except OSError:  # it is relative to nothing, or no descriptor is left: nothing starts there
        return False
    wanted = b"/" + wanted.strip(b"/") + b"/"
    longest, kind = b"/", b""
    for line in lines:  # of several at one place the last is seen
        before, _, after = line.partition(b" - ")
        place = ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), before.split(b" ")[4]) + b"/"
        if place != b"//" and wanted.startswith(place) and len(place) >= len(longest):
            longest, kind = place, after
    return kind.startswith(REMOTE)
