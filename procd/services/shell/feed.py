"""Feed: lines for a program that reads them from a pipe, and the word that it has read them all.

The pipe is made as small as it gets, one page: it takes more only when the program has read all
that is in it, and so tells, by epoll, when that is.

Source: pipe(7), "Pipe capacity"; fcntl(2), F_SETPIPE_SZ.
"""

import asyncio
import fcntl
import logging
import os
import select
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from procd.unix.fd import OwnedFd

log = logging.getLogger(__name__)

SIZE_BYTES: Final = os.sysconf("SC_PAGESIZE")


class Feed:
    """The writing end.

    Args:
        on_read: called after `write` when all was read, in each turn until the next `write` or
            `rest`.
        on_lost: called once, if nobody will read what was written.
    """

    __slots__ = (
        "_fd",
        "_loop",
        "_on_lost",
        "_on_read",
        "_retry",
        "_unwritten",
        "_watching",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: OwnedFd,
        on_read: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        os.set_blocking(fd.number, False)
        with suppress(OSError):  # then it is looked at from time to time, as a larger one is
            fcntl.fcntl(fd.number, fcntl.F_SETPIPE_SZ, SIZE_BYTES)
        self._loop = loop
        self._fd = fd
        self._on_read = on_read
        self._on_lost = on_lost
        self._unwritten = b""
        self._watching = False
        self._retry: asyncio.TimerHandle | None = None
        fd.before_close = self.rest

    def write(self, data: bytes) -> None:
        """Add to what the program is to read."""
        self._unwritten += data
        if self._flush():
            self._watch()

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._loop.add_writer(self._fd.number, self._writable)

    def _flush(self) -> bool:
        """Write what fits; whether there is somebody to read it."""
        try:
            written = os.write(self._fd.number, self._unwritten)
        except BlockingIOError:
            return True
        except BrokenPipeError:
            self._lose()
            return False
        self._unwritten = self._unwritten[written:]
        return True

    def _writable(self) -> None:
        if self._unwritten:
            self._flush()
        elif not _held_bytes(self._fd.number):
            try:
                self._on_read()
            except MemoryError:
                log.warning("no memory to go on with: input waits")
                self._pause()  # else this would fail at each turn
        elif self._unreadable():
            self._lose()
        elif fcntl.fcntl(self._fd.number, fcntl.F_GETPIPE_SZ) > SIZE_BYTES:
            self._pause()  # its reader has made it larger: it takes more at each turn
        # Else more was written in the turn that brought this.

    def _pause(self) -> None:
        self.rest()
        self._retry = asyncio.get_running_loop().call_later(0.5, self._watch)

    def _unreadable(self) -> bool:
        """Whether nobody has the other end. Source: poll(2), POLLERR."""
        poll = select.poll()
        poll.register(self._fd.number, 0)
        return bool(poll.poll(0))

    def _lose(self) -> None:
        on_lost = self._on_lost
        self.rest()
        on_lost()

    def rest(self) -> None:
        """Say nothing until the next `write`."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._watching:
            self._watching = False
            self._loop.remove_writer(self._fd.number)


def _held_bytes(number: int) -> int:
    """How much there is to read in a pipe. Source: pipe(7), FIONREAD."""
    (held,) = struct.unpack("i", fcntl.ioctl(number, termios.FIONREAD, bytes(4)))
    return int(held)
