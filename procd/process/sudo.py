"""`sudo` and similar programs, which run as another user but may be signalled by procd.

Only they can end what they have started, by passing signals on. SIGKILL can't be passed on, so they
get SIGTERM first and have a moment to end.

Source: kill(2) on which processes may be signalled; sudo(8), "Signal handling".
"""

import os
import signal
import time
from typing import Final

from procd.unix.procfs import users_of

SUDO_GRACE_S: Final = 1.0


class SudoGrace:
    """The programs of this kind in a tree that is being killed, and when each got SIGTERM."""

    def __init__(self) -> None:
        self._signalled_at: dict[tuple[int, int], float] = {}

    @property
    def waiting(self) -> bool:
        return bool(self._signalled_at)

    def signals_for(self, pid: int, start_time: int) -> tuple[int, ...]:
        """The signals to kill a process with; none while it has time to end by itself."""
        signalled_at = self._signalled_at.get((pid, start_time))
        if signalled_at is not None:
            return () if time.monotonic() - signalled_at < SUDO_GRACE_S else (signal.SIGKILL,)
        if not _passes_signals_on(pid):
            return (signal.SIGKILL,)
        self._signalled_at[pid, start_time] = time.monotonic()
        return signal.SIGTERM, signal.SIGCONT


def _passes_signals_on(pid: int) -> bool:
    own = os.geteuid()
    if own == 0:
        return False  # root may signal what it has started as well
    try:
        if os.stat(f"/proc/{pid}").st_uid == own:  # noqa: PTH116 - a fifth of the time of Path.stat
            return False
    except OSError:  # it has ended, or is hidden
        return False
    # The directory of a process that isn't dumpable, such as ssh-agent, belongs to root.
    real, effective, saved = users_of(pid) or (own, own, own)
    return effective != own and own in {real, saved}
