"""Reading the exit statuses of orphans: descendants that became procd's children."""

import asyncio
import signal
from collections.abc import Callable, Container
from types import FrameType
from typing import Final

from procd.process.tree import reap_orphans
from procd.tasks import Tasks, Turns

# From the first SIGCHLD until all orphans that have ended by then are reaped.
REAP_DELAY_S: Final = 1.0


class Reaper:
    """Reaps orphans, which aren't in `supervised`, from its creation until `close`.

    SIGCHLD is blocked from the first one until the orphans are reaped: each delivery wakes the
    event loop, and pidfds report the ends of supervised children anyway.
    """

    def __init__(
        self,
        supervised: Container[int],
        turns: Turns,
        tasks: Tasks,
        on_reap: Callable[[], None],
    ) -> None:
        self._supervised = supervised
        self._turns = turns
        self._tasks = tasks
        self._on_reap = on_reap
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._reaping: asyncio.Task[None] | None = None
        signal.signal(signal.SIGCHLD, self._child_ended)

    def _child_ended(self, number: int, frame: FrameType | None) -> None:
        # A signal handler runs in this thread, between any two instructions.
        if not self._closed:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            self._loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(REAP_DELAY_S, self.reap)

    def reap(self) -> None:
        """Reap the orphans that have ended: some at once, the others in a task."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reaping is not None and not (self._closed or self._reaping.done()):
            self._schedule()
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0)  # clear the pending one: it is handled now
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        self._on_reap()
        steps = reap_orphans(self._supervised)
        try:
            self._turns.begin(steps)
        except OSError:  # no descriptor is left
            self._schedule()
        else:
            self._reaping = self._tasks.run(self._turns.finish(steps), "reap orphans")

    def close(self) -> None:
        """Reap for the last time, and handle no further SIGCHLD."""
        self._closed = True
        self.reap()
        signal.signal(signal.SIGCHLD, _ignored)


def _ignored(number: int, frame: FrameType | None) -> None:
    """A handler, for Python reports a signal as an error that comes as its last one is removed."""
