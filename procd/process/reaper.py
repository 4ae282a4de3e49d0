"""Orphans: processes that come to procd when their parent ends, and are collected when they end."""

import asyncio
import signal
from collections.abc import Callable, Container
from types import FrameType
from typing import Any, Final

from procd.process import tree as proctree
from procd.tasks import Tasks
from procd.throttle import Turns

# Those that have ended are collected this long after the first news of one, all at once.
SWEEP_DELAY_S: Final = 1.0


class Orphans:
    """Collects them from its creation until `close`.

    Their statuses are taken one pid at a time and never with a wait for any child, so that nobody's
    status is taken by mistake. The kernel is to give orphans to procd (`become_subreaper`).

    Args:
        supervised: the pids whose statuses others read.
        looks: the turns in which the children are looked through.
        on_sweep: called before each sweep, for what else goes when processes have ended.
    """

    def __init__(
        self,
        supervised: Container[int],
        looks: Turns,
        tasks: Tasks,
        on_sweep: Callable[[], None],
    ) -> None:
        self._supervised = supervised
        self._looks = looks
        self._tasks = tasks
        self._on_sweep = on_sweep
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._planned: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None  # what is left of the last sweep
        self._old_handler: Any = signal.signal(signal.SIGCHLD, self._child_news)

    @property
    def planned(self) -> asyncio.TimerHandle | None:
        """The sweep that is to come, if there is one."""
        return self._planned

    def _child_news(self, number: int, frame: FrameType | None) -> None:
        if self._closed:
            return  # put back by somebody who has closed after us
        # A signal handler runs in this thread, between any two instructions. Until the sweep there
        # is no more to learn: each delivery would take as long as to wake for a descriptor does.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        self._loop.call_soon_threadsafe(self._plan)

    def _plan(self) -> None:
        if self._planned is None and not self._closed:
            self._planned = self._loop.call_later(SWEEP_DELAY_S, self.sweep)

    def sweep(self) -> None:
        """Collect those that have ended: some at once, the others in a task."""
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None
        if self._sweeping is not None and not (self._closed or self._sweeping.done()):
            self._plan()  # one beside it would share its turns, and both take longer
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0)  # what came until now is seen to below
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        self._on_sweep()
        reaping = proctree.reap_orphans(self._supervised)
        try:
            self._looks.begin(reaping)
        except (OSError, MemoryError):  # there may be some in a moment
            self._plan()
        else:
            self._sweeping = self._tasks.run(self._looks.finish(reaping), "reap orphans")

    def close(self) -> None:
        """Begin the last sweep, and hear of no children any more."""
        # Python complains of a signal that comes as its handler goes.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        signal.signal(signal.SIGCHLD, self._old_handler)
        self._closed = True
        self.sweep()
