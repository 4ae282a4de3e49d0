"""One direct child: its pidfd and its exit status."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from procd.unix.fd import OwnedFd

log = logging.getLogger(__name__)

# How often to ask for a status that a debugger reads first.
TRACED_RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: waitid(2). Both are None if that is unknown."""

    code: int | None = None
    signal: int | None = None

    @property
    def shell_code(self) -> int:
        """As a shell's `$?`: the code, or 128 + signal; -1 if unknown."""
        if self.code is not None:
            return self.code
        return -1 if self.signal is None else 128 + self.signal


class Child:
    """A child process until its status is known: its pidfd becomes readable then, pidfd_open(2)."""

    __slots__ = ("_loop", "_on_exit", "_pidfd", "pid")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pid: int, on_exit: Callable[[ExitStatus], None]
    ) -> None:
        self.pid = pid
        self._loop = loop
        self._on_exit = on_exit
        self._pidfd = OwnedFd(os.pidfd_open(pid))
        loop.add_reader(self._pidfd.number, self._readable)

    @property
    def running(self) -> bool:
        """Whether its status is unread, so that the pid is still its own."""
        return not self._pidfd.closed

    def signal(self, number: int) -> None:
        """Send a signal to this process alone; after its end, do nothing."""
        if not self.running:
            return
        try:
            signal.pidfd_send_signal(self._pidfd.number, number)
        except ProcessLookupError:
            return  # it has ended, and its status will be read
        except PermissionError:
            log.warning("process %d is not ours to signal", self.pid)

    def _readable(self) -> None:
        self.poll()
        if self.running:  # it has ended, but its tracer gets the status first: ptrace(2)
            self._loop.remove_reader(self._pidfd.number)
            self._loop.call_later(TRACED_RETRY_S, self._watch)

    def _watch(self) -> None:
        if self.running:
            self._loop.add_reader(self._pidfd.number, self._readable)

    def poll(self) -> None:
        """Read the status now if there is one, before the event loop reports it."""
        if not self.running:
            return
        try:
            info = os.waitid(os.P_PIDFD, self._pidfd.number, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            status = ExitStatus()  # somebody else has read it
        else:
            if info is None:
                return
            if info.si_code == os.CLD_EXITED:
                status = ExitStatus(code=info.si_status)
            else:
                status = ExitStatus(signal=info.si_status)
        on_exit = self._on_exit
        self.close()
        on_exit(status)

    def close(self) -> None:
        """Stop watching it; `on_exit` isn't called."""
        if self.running:
            self._loop.remove_reader(self._pidfd.number)
            self._pidfd.close()
            self._on_exit = _ignore  # break the reference cycle with the owner


def _ignore(_: ExitStatus) -> None:
    pass
