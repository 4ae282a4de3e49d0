"""Relays: programs that are another user's and yet ours to signal, as `sudo`; they hear of an end.

What a relay has started is the other user's altogether, so that the relay alone can end it: it
passes on the signals that it gets. Nobody passes on SIGKILL.

Source: kill(2) on whom a process may signal, sudo(8) "Signal handling".
"""

import os
import signal
import time
from typing import Final

from procd.unix.procfs import users_of

# How long a relay has. What takes longer to end has heard of it by then.
RELAY_S: Final = 1.0


class Relays:
    """Those in a tree that is being killed, and since when they know."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], float] = {}

    def __bool__(self) -> bool:
        return bool(self._since)

    def numbers(self, pid: int, start_time: int) -> tuple[int, ...]:
        """The signals to kill a process with: none while it has time to do as it was asked."""
        since = self._since.get((pid, start_time))
        if since is not None:
            return () if time.monotonic() - since < RELAY_S else (signal.SIGKILL,)
        if not _is_relay(pid):
            return (signal.SIGKILL,)
        self._since[pid, start_time] = time.monotonic()
        return signal.SIGTERM, signal.SIGCONT


def _is_relay(pid: int) -> bool:
    own = os.geteuid()
    if own == 0:
        return False  # whatever it has started is ours to signal, too
    try:
        if os.stat(f"/proc/{pid}").st_uid == own:  # noqa: PTH116 - a fifth of the time of Path.stat
            return False
    except OSError:  # it has gone, or is hidden
        return False
    # Who may not be looked into, as ssh-agent, belongs to root there.
    real, effective, saved = users_of(pid) or (own, own, own)
    return effective != own and own in {real, saved}
