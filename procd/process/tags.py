"""A number that a process carries, and all that it starts, by which orphans tell whose they are.

The soft limit RLIMIT_RTTIME is set to it. A resource limit outlives fork, exec, setsid, a double
fork and a cleared environment, costs one system call to read, leaves no trace in the user's
environment, and this one is a bound in microseconds on real-time tasks, set here to some 36,000
years.

Source: getrlimit(2), proc_pid_limits(5).
"""

import logging
import re
import resource
import shlex
import shutil
from typing import Final

from procd.unix.procfs import content

log = logging.getLogger(__name__)

# A tag is TAG_BASE, far above any limit somebody would set in earnest, plus from high to low bits:
# a number drawn for this run of procd, the number of the process, and one for use within its tree.
TAG_BASE: Final = 1 << 60
RUN_BITS: Final = 12
PROCESS_BITS: Final = 32
PART_BITS: Final = 16
EVERY_BIT: Final = (1 << 61) - 1
PROCESS_MASK: Final = EVERY_BIT & -(1 << PART_BITS)
RUN_MASK: Final = EVERY_BIT & -(1 << (PART_BITS + PROCESS_BITS))

_TOLD_LIMIT: Final = re.compile(rb"^Max realtime timeout +(\d+) ", re.MULTILINE)

Limits = tuple[int, int]


def obstacle() -> int | None:
    """The hard limit that leaves no room for tags, if there is one: nothing is tagged then.

    Orphans are found by session alone, and who a session's command has started isn't told from what
    the shell runs otherwise.
    """
    hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
    return None if _leaves_room(hard) else hard


def _leaves_room(hard: int) -> bool:
    return hard == resource.RLIM_INFINITY or hard > EVERY_BIT


def mark(tag: int) -> Limits:
    """Carry `tag`, so that what is started inherits it, until `unmark` gets what this returns."""
    limits = resource.getrlimit(resource.RLIMIT_RTTIME)
    if _leaves_room(limits[1]):
        resource.setrlimit(resource.RLIMIT_RTTIME, (tag, limits[1]))
    return limits


def unmark(limits: Limits) -> None:
    """Carry no tag any more."""
    resource.setrlimit(resource.RLIMIT_RTTIME, limits)


def retag(pid: int, tag: int) -> bool:
    """Have what `pid` starts from now on carry `tag`.

    Returns:
        False if it has to do that itself: it is another user's, and CAP_SYS_RESOURCE is missing.
    """
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_RTTIME)
        resource.prlimit(pid, resource.RLIMIT_RTTIME, (tag, hard))
    except PermissionError:
        return False
    except (ProcessLookupError, ValueError):
        log.debug("process %d keeps its tag", pid)
    return True


def retag_in_shell(tag: int) -> str:
    """A line by which a shell does what `retag` may not."""
    program = shutil.which("prlimit")
    return f"{shlex.quote(program)} --pid $$ --rttime={tag}: || :\n" if program is not None else ""


def tag_of(pid: int) -> int:
    """The tag that `pid` carries, or 0."""
    try:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_RTTIME)
    except PermissionError:  # another user's, and CAP_SYS_RESOURCE is missing as in most containers
        soft = _told_limit(pid)
    except ProcessLookupError:
        return 0
    # Since Python 3.15, no limit is the highest number of all, where it was the lowest.
    return soft if soft >= TAG_BASE and soft != resource.RLIM_INFINITY else 0


def _told_limit(pid: int) -> int:
    """The soft limit in `/proc/PID/limits`, which everybody may read; 0 if there is none."""
    told = _TOLD_LIMIT.search(content(f"/proc/{pid}/limits"))
    return int(told[1]) if told is not None else 0
