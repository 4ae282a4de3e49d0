"""Real time: what is done before anybody who isn't real-time gets the processor, for microseconds.

Source: sched(7): a task of SCHED_FIFO isn't kept from its processor by one that isn't real-time.
"""

import logging
import os
from typing import Final

log = logging.getLogger(__name__)

# What procd mostly is, which isn't real-time; and its priority then.
ORDINARY: Final = (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE)
NO_PRIORITY: Final = os.sched_param(0)


class RealTime:
    """procd as a real-time task, from `begin` to `end`.

    That takes CAP_SYS_NICE or a limit RLIMIT_RTPRIO.

    Args:
        priority: among real-time tasks, from 1.
        inherited: whether children that are started meanwhile begin as real-time tasks too.

    Attributes:
        policy: what procd was before.
    """

    __slots__ = ("_inherited", "_priority", "policy")

    def __init__(self, priority: int = 1, *, inherited: bool = False) -> None:
        self._priority = os.sched_param(priority)
        self._inherited = inherited
        self.policy = os.SCHED_OTHER

    def begin(self) -> bool:
        """Be one, if that is allowed; whether it is. `end` follows if so.

        A real-time task stays what somebody has made it.
        """
        try:
            self.policy = os.sched_getscheduler(0)
            # Who has no CAP_SYS_NICE may not drop it.
            flag = 0 if self._inherited else self.policy & os.SCHED_RESET_ON_FORK
            if self.policy & ~os.SCHED_RESET_ON_FORK not in ORDINARY:
                return False
            os.sched_setscheduler(0, os.SCHED_FIFO | flag, self._priority)
        except OSError:  # a sandbox may not tell either
            return False
        return True

    def end(self) -> None:
        """Be what procd was."""
        try:
            os.sched_setscheduler(0, self.policy, NO_PRIORITY)
        except OSError as exc:
            log.error("procd stays a real-time task: %s", exc.strerror)
