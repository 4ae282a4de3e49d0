"""Writing to a descriptor whenever it has room, with a queue for what has to wait."""

import asyncio
import errno
import os

from procd.process.poller import Selector
from procd.unix.fd import OwnedFd


class FdWriter:
    """Writes to a pipe or a PTY master as fast as it is read; what is left waits in order.

    Closing the descriptor is its owner's business: a PTY master is shared with a reader.
    """

    __slots__ = ("_fd", "_queue", "_selector", "_waiters", "_writing")

    def __init__(self, selector: Selector, fd: OwnedFd) -> None:
        os.set_blocking(fd.number, False)
        self._selector = selector
        self._fd = fd
        self._queue = bytearray()  # what is written in single bytes costs no more than they
        self._writing = False
        self._waiters: dict[asyncio.Future[None], int] = {}

    @property
    def queued_bytes(self) -> int:
        """What nobody has read yet, beyond the kernel's own buffer."""
        return len(self._queue)

    @property
    def closed(self) -> bool:
        """Whether the descriptor is; what is written then is dropped."""
        return self._fd.closed

    def write(self, data: bytes) -> None:
        """Write now what fits and queue the rest; after the end of the reader, drop it.

        Whoever calls this without `drain` between is the one who bounds the queue.
        """
        if self._fd.closed or not data:
            return
        written = 0 if self._queue else self._try(data)
        if written < len(data):
            self._queue += memoryview(data)[written:]
            if not self._writing:
                self._writing = True
                self._selector.add_writer(self._fd.number, self._writable)

    async def drain(self, low_bytes: int) -> None:
        """Wait until at most `low_bytes` are queued, or the descriptor is gone."""
        if self.queued_bytes <= low_bytes:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = low_bytes
        try:
            await waiter
        finally:
            del self._waiters[waiter]

    def _try(self, data: bytes | bytearray) -> int:
        """Write what fits; how much counts as written, which is all if nobody will ever read it."""
        try:
            return os.write(self._fd.number, data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if exc.errno not in (errno.EPIPE, errno.EIO):
                raise
            return len(data)

    def _writable(self) -> None:
        del self._queue[: self._try(self._queue)]
        if not self._queue:
            self._writing = False
            self._selector.remove_writer(self._fd.number)
        self._wake()

    def _wake(self) -> None:
        for waiter, low_bytes in self._waiters.items():
            if self.queued_bytes <= low_bytes and not waiter.done():
                waiter.set_result(None)

    def abandon(self) -> None:
        """Drop what is queued and leave the selector; to be called before the descriptor closes."""
        self._queue.clear()
        if self._writing:
            self._writing = False
            self._selector.remove_writer(self._fd.number)
        self._wake()
