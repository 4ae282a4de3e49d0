"""procd's own share of the processor: before those whom it serves, so that it can serve them."""

import os
from pathlib import Path
from typing import Final

AUTOGROUP: Final = Path("/proc/self/autogroup")


def raise_priority(nice: int) -> None:
    """Raise procd's own priority to `nice` (-20 to 0), which its children don't inherit.

    If it was started with a priority other than 0, that was somebody's choice, and stays.

    Where the kernel groups tasks by session, the priority is that of the group: procd's is raised
    as well if procd leads a session of its own, as a service does. Children have their own.

    Raises:
        PermissionError: it takes CAP_SYS_NICE, or a limit RLIMIT_NICE that allows it.

    Source: sched(7), "The nice value", "The autogroup feature", and "SCHED_RESET_ON_FORK": a child
    of a process that has this flag and a negative nice value starts with 0.
    """
    if os.getpriority(os.PRIO_PROCESS, 0):
        return
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    try:
        # Only now: who may not have a priority may not take the flag back.
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    except OSError:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        raise
    if os.getsid(0) == os.getpid() and AUTOGROUP.exists():
        AUTOGROUP.write_text(str(nice))
