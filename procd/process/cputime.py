"""CPU time: what the processors have been at, and for whom.

Source: proc_stat(5), getrusage(2), clock_gettime(2).
"""

import errno
import os
import resource
import time
from typing import Final, NamedTuple

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Ticks(NamedTuple):
    """What all processors together have been at since boot, in ticks of the kernel's clock."""

    user: int
    nice: int
    system: int
    idle: int
    iowait: int
    irq: int
    softirq: int
    steal: int


def machine_ticks() -> Ticks:
    """Those of this machine.

    Raises:
        OSError: the kernel, or a sandbox, doesn't tell.
    """
    with open("/proc/stat") as lines:  # noqa: PTH123 - the first line alone
        figures = lines.readline().split()[1:]
    if len(figures) < len(Ticks._fields):
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
    return Ticks._make(map(int, figures[: len(Ticks._fields)]))


def own_time_s() -> float:
    """What this process has had, with all those of its children whose status was read."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


class Others:
    """How much of the processors' time others have: all but procd and its ended children.

    Children that run are among the others: who runs for long is as anybody.
    """

    def __init__(self) -> None:
        self._total = self._busy = 0
        self._own_s = 0.0

    def share(self) -> float:
        """Theirs of all the time since the call before: 0 to 1.

        Raises:
            OSError: the kernel, or a sandbox, doesn't tell.
        """
        ticks, own_s = machine_ticks(), own_time_s()
        total = sum(ticks)
        busy = ticks.user + ticks.nice + ticks.system + ticks.irq + ticks.softirq
        elapsed = total - self._total
        theirs = busy - self._busy - (own_s - self._own_s) * TICKS_PER_S
        self._total, self._busy, self._own_s = total, busy, own_s
        return min(max(theirs / elapsed, 0.0), 1.0) if elapsed > 0 else 0.0
