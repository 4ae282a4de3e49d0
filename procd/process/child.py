"""One direct child: its pidfd, and its exit status, read once by its only reader."""

import asyncio
import logging
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from procd.process.poller import Selector
from procd.unix.fd import OwnedFd

log = logging.getLogger(__name__)

# How often a status is looked for that somebody's tracer keeps, seconds.
TRACED_REST_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: by `exit` with a code, or by a signal. Neither: nobody can know.

    Source: waitid(2).
    """

    code: int | None = None
    signal: int | None = None

    @property
    def shell_code(self) -> int:
        """The figure a shell's `$?` would have: the code, or 128 + signal; -1 if unknown."""
        if self.code is not None:
            return self.code
        return -1 if self.signal is None else 128 + self.signal


def _nothing(_: ExitStatus) -> None:
    """What a child calls that was forgotten."""


class Child:
    """A child process from its start until its status is known.

    Args:
        on_exit: called once with the status; the pid may be reused from then on.

    Raises:
        OSError: there is no descriptor for it, or it can't be waited for; none is left open.

    Source: pidfd_open(2): a pidfd becomes readable when its process ends.
    """

    __slots__ = ("_on_exit", "_pidfd", "_selector", "pid")

    def __init__(
        self,
        selector: Selector,
        pid: int,
        on_exit: Callable[[ExitStatus], None],
    ) -> None:
        self.pid = pid
        self._selector = selector
        self._on_exit = on_exit
        self._pidfd = OwnedFd(os.pidfd_open(pid))
        try:
            selector.add_reader(self._pidfd.number, self._exited)
        except BaseException:
            self._pidfd.close()
            raise

    @property
    def running(self) -> bool:
        """Whether the status is still unread, so that the pid is ours to name."""
        return not self._pidfd.closed

    def signal(self, number: int) -> None:
        """Send a signal to this process alone; after its end, do nothing."""
        if self.running:
            try:
                signal.pidfd_send_signal(self._pidfd.number, number)
            except ProcessLookupError:
                return  # a zombie whose status is about to be read
            except PermissionError:
                log.warning("process %d is not ours to signal", self.pid)

    def _exited(self) -> None:
        """It has ended. Who traces it gets the status first, and may never take it: ptrace(2)."""
        self.look()
        if not self._pidfd.closed and self._is_over():
            self._selector.remove_reader(self._pidfd.number)
            asyncio.get_running_loop().call_later(TRACED_REST_S, self._exited)

    def _is_over(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd.number, select.POLLIN)
        return bool(poll.poll(0))

    def look(self) -> None:
        """Take the status now if there is one, though the selector hasn't told of it yet."""
        if self._pidfd.closed:
            return
        try:
            info = os.waitid(os.P_PIDFD, self._pidfd.number, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            status = ExitStatus()  # somebody else took the status
        else:
            if info is None:
                return
            if info.si_code == os.CLD_EXITED:
                status = ExitStatus(code=info.si_status)
            else:
                status = ExitStatus(signal=info.si_status)
        on_exit = self._on_exit
        self.forget()
        on_exit(status)

    def forget(self) -> None:
        """Give up the pidfd without waiting for the end."""
        if not self._pidfd.closed:
            self._selector.remove_reader(self._pidfd.number)
            self._pidfd.close()
            self._on_exit = _nothing  # lets go of the owner, who holds us
