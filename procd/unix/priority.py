"""procd's own share of the processor: before those whom it serves, so that it can serve them."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

AUTOGROUP: Final = Path("/proc/self/autogroup")
# Microseconds of a second that real-time tasks may have; with none, one would never run.
REAL_TIME: Final = Path("/proc/sys/kernel/sched_rt_runtime_us")
# Real-time, for moments: a child up to its program, and procd, which is then to go on at once.
CHILD: Final = (os.SCHED_RR, os.sched_param(1))
OWN: Final = os.sched_param(2)
# As others, and what procd starts doesn't inherit that procd goes before them.
PLAIN: Final = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK

# procd's own, if it precedes what it runs, and may have a child be a real-time task; else 0.
_nice = 0


def precede(nice: int) -> None:
    """Raise procd's own priority to `nice` (-20 to 0), which its children don't inherit.

    If it was started with a priority other than 0, that was somebody's choice, and stays.

    Where the kernel groups tasks by session, the priority is that of the group: procd's is raised
    as well if procd leads a session of its own, as a service does. Children have their own.

    Raises:
        PermissionError: it takes CAP_SYS_NICE, or a limit RLIMIT_NICE that allows it.

    Source: sched(7), "The nice value", "The autogroup feature", and "SCHED_RESET_ON_FORK": a child
    of a process that has this flag and a negative nice value starts with 0.
    """
    global _nice
    if os.getpriority(os.PRIO_PROCESS, 0):
        return
    os.sched_setscheduler(0, PLAIN, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    if os.getsid(0) == os.getpid() and AUTOGROUP.exists():
        AUTOGROUP.write_text(str(nice))
    with suppress(OSError):
        if REAL_TIME.read_text().strip() != "0":
            _nice = nice


def start_first(start: Callable[..., int]) -> int:
    """Call `start`, a posix_spawn, and return the pid; if procd precedes, its child does as well.

    procd waits until the child has become its program (vfork(2)), which would have to wait for a
    processor like any other. It is a real-time task until then, and procd one that goes before it,
    so that procd has made it an ordinary one, with a nice value of 0, before the program has begun.

    Raises:
        OSError: what `start` raises.

    Source: sched(7), "SCHED_RR"; posix_spawn(3), POSIX_SPAWN_SETSCHEDULER.
    """
    global _nice
    if not _nice:
        return start()
    try:
        os.sched_setscheduler(0, os.SCHED_RR, OWN)  # it takes CAP_SYS_NICE to leave PLAIN
    except OSError as exc:
        log.info("what is started has no precedence: %s", exc.strerror)
        _nice = 0
        return start()
    own = _nice
    try:
        os.setpriority(os.PRIO_PROCESS, 0, 0)  # which the child keeps
        pid = start(scheduler=CHILD)
        try:
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
        except OSError as exc:  # a security module may forbid that: it is the last such child
            log.warning("process %d remains a real-time task: %s", pid, exc.strerror)
            _nice = 0
        return pid
    finally:
        os.sched_setscheduler(0, PLAIN, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, own)
