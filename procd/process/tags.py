"""Tags: a number on a process that all its descendants inherit, to find orphans by.

The tag is the soft limit RLIMIT_RTTIME. A resource limit survives fork, exec, setsid, a double fork
and a cleared environment, is read with one system call, and is invisible in the user's environment.
This one bounds the CPU time of real-time tasks in microseconds; tags are about 36,000 years.

Source: getrlimit(2), proc_pid_limits(5).
"""

import logging
import re
import resource
import shlex
import shutil
from typing import Final

from procd.unix.procfs import read_proc

log = logging.getLogger(__name__)

# A tag is TAG_BASE, far above any limit that a user would set, plus, from high to low bits: a
# random number of this run of procd, the number of the process, and that of a part of its tree.
TAG_BASE: Final = 1 << 60
RUN_BITS: Final = 12
PROCESS_BITS: Final = 32
PART_BITS: Final = 16
EVERY_BIT: Final = (1 << 61) - 1
PROCESS_MASK: Final = EVERY_BIT & -(1 << PART_BITS)
RUN_MASK: Final = EVERY_BIT & -(1 << (PART_BITS + PROCESS_BITS))

_SOFT_LIMIT: Final = re.compile(rb"^Max realtime timeout +(\d+) ", re.MULTILINE)


def obstacle() -> int | None:
    """The hard limit that is too low for tags, if it is: orphans are found by session then."""
    hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
    return None if _allows_tags(hard) else hard


def _allows_tags(hard: int) -> bool:
    return hard == resource.RLIM_INFINITY or hard > EVERY_BIT


def mark(tag: int) -> tuple[int, int]:
    """Set procd's own tag, for a child to inherit. Returns what `unmark` takes."""
    limits = resource.getrlimit(resource.RLIMIT_RTTIME)
    if _allows_tags(limits[1]):
        resource.setrlimit(resource.RLIMIT_RTTIME, (tag, limits[1]))
    return limits


def unmark(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_RTTIME, limits)


def retag(pid: int, tag: int) -> bool:
    """Change the tag of `pid`; False if only the process itself may, without CAP_SYS_RESOURCE."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_RTTIME)
        resource.prlimit(pid, resource.RLIMIT_RTTIME, (tag, hard))
    except PermissionError:
        return False
    except (ProcessLookupError, ValueError):
        log.debug("process %d keeps its tag", pid)
    return True


def retag_in_shell(tag: int) -> str:
    """A line of shell that changes the shell's own tag, for where `retag` may not."""
    program = shutil.which("prlimit")
    return f"{shlex.quote(program)} --pid $$ --rttime={tag}: || :\n" if program is not None else ""


def tag_of(pid: int) -> int:
    """The tag of `pid`, or 0."""
    try:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_RTTIME)
    except PermissionError:  # another user's, without CAP_SYS_RESOURCE as in most containers
        found = _SOFT_LIMIT.search(read_proc(f"/proc/{pid}/limits"))  # everybody may read this
        soft = int(found[1]) if found is not None else 0
    except ProcessLookupError:
        return 0
    # Since Python 3.15 RLIM_INFINITY is the highest number, before it was -1.
    return soft if soft >= TAG_BASE and soft != resource.RLIM_INFINITY else 0
