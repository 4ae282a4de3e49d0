"""Reading and writing pipes and PTY masters, driven by the event loop."""

import asyncio
import errno
import fcntl
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from procd.unix.fd import OwnedFd

log = logging.getLogger(__name__)

READ_BYTES: Final = 64 << 10
# A PTY master returns at most this much at a time. Source: n_tty.c, N_TTY_BUF_SIZE.
TTY_READ_BYTES: Final = 4096
# The capacity of a pipe after it was found full, and what is read from it at a time then.
LARGE_PIPE_BYTES: Final = 1 << 20
LARGE_READ_BYTES: Final = 256 << 10


class FdReader:
    """Reads a pipe or a PTY master, one piece a turn of the event loop, until its end.

    Args:
        fd: becomes non-blocking. The flag belongs to the open file, so no child may share it.
        on_data: called with each piece of data; never with an empty one.
        on_eof: called once, after the last data; the descriptor is closed by then.
        read_bytes: size of one read. A pipe that fills it is enlarged, once.

    Attributes:
        full: whether the last read filled its buffer, so that more data may follow.

    Source: pty(7): EIO on a master means that no process has the slave open.
    """

    __slots__ = ("_fd", "_loop", "_on_data", "_on_eof", "_read_bytes",
                 "full", "reading", "sibling")  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: OwnedFd,
        on_data: Callable[[bytes], None],
        on_eof: Callable[[], None],
        *,
        read_bytes: int = READ_BYTES,
    ) -> None:
        os.set_blocking(fd.number, False)
        self._loop = loop
        self._fd = fd
        self._on_data = on_data
        self._on_eof = on_eof
        self._read_bytes = read_bytes
        self.full = False
        self.sibling: FdReader | None = None
        self.reading = True
        loop.add_reader(fd.number, self._readable)

    @property
    def ended(self) -> bool:
        return self._fd.closed

    def pair_with(self, other: "FdReader") -> None:
        """Read both whenever one is readable, as the kernel doesn't record their order."""
        self.sibling, other.sibling = other, self

    def pause(self) -> None:
        """Leave further data in the kernel, which blocks the writer when the pipe is full."""
        if self.reading:
            self.reading = False
            self._loop.remove_reader(self._fd.number)

    def resume(self) -> None:
        if not self.reading and not self._fd.closed:
            self.reading = True
            self._loop.add_reader(self._fd.number, self._readable)

    def _readable(self) -> None:
        sibling = self.sibling
        if sibling is None:
            self._read()
            return
        first, second = (sibling, self) if sibling.full else (self, sibling)
        first.read_available()
        second.read_available()

    def read_available(self) -> None:
        """Read what the kernel holds now, until paused."""
        left = LARGE_PIPE_BYTES  # in case that the writer goes on and on
        while self.reading and left > 0 and (size := self._read()):
            left -= size

    def drain(self, most_bytes: int = LARGE_PIPE_BYTES) -> None:
        """Read what the kernel holds now, also while paused; at most about `most_bytes`."""
        while most_bytes > 0 and (size := self._read()):
            most_bytes -= size

    def _read(self) -> int:
        if self._fd.closed:
            return 0
        try:
            data = os.read(self._fd.number, self._read_bytes)
        except BlockingIOError:
            self.full = False
            return 0
        except OSError as exc:
            if exc.errno != errno.EIO:
                log.error("output can't be read: %s", exc.strerror)
            data = b""
        if not data:
            on_eof = self._on_eof
            self.close()
            on_eof()
            return 0
        self.full = len(data) == self._read_bytes
        if self.full and self._read_bytes == READ_BYTES:
            self._enlarge()
        self._on_data(data)
        return len(data)

    def _enlarge(self) -> None:
        """Increase the capacity of the pipe, so that its writer blocks less: F_SETPIPE_SZ."""
        self._read_bytes = LARGE_READ_BYTES
        with suppress(OSError):  # no pipe, or the user has reached the limit of all their pipes
            fcntl.fcntl(self._fd.number, fcntl.F_SETPIPE_SZ, LARGE_PIPE_BYTES)

    def discard(self) -> None:
        """Read to the end and drop the data, so that the writer never blocks."""
        self._on_data = _ignore
        self.resume()

    def close(self) -> None:
        """Close the descriptor; `on_eof` isn't called."""
        if self._fd.closed:
            return
        if self.reading:
            self.reading = False
            self._loop.remove_reader(self._fd.number)
        self._fd.close()
        # Break the reference cycles with the owner and the sibling.
        self._on_data = self._on_eof = _ignore
        if self.sibling is not None:
            self.sibling.sibling = None
            self.sibling = None


def _ignore(*_: object) -> None:
    pass


class FdWriter:
    """Writes to a pipe or a PTY master, and makes it non-blocking; never closes it."""

    __slots__ = ("_fd", "_loop", "_queue", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: OwnedFd) -> None:
        os.set_blocking(fd.number, False)
        self._loop = loop
        self._fd = fd
        self._queue = bytearray()
        self._waiters: dict[asyncio.Future[None], int] = {}

    @property
    def queued_bytes(self) -> int:
        return len(self._queue)

    @property
    def closed(self) -> bool:
        return self._fd.closed

    def write(self, data: bytes) -> None:
        """Write what fits now and queue the rest, without a limit; drop it without a reader."""
        if self._fd.closed or not data:
            return
        written = 0 if self._queue else self._write(data)
        if written < len(data):
            if not self._queue:
                self._loop.add_writer(self._fd.number, self._writable)
            self._queue += memoryview(data)[written:]

    async def drain(self, low_bytes: int) -> None:
        """Wait until at most `low_bytes` are queued, or the descriptor is closed."""
        if self.queued_bytes <= low_bytes:
            return
        waiter = self._loop.create_future()
        self._waiters[waiter] = low_bytes
        try:
            await waiter
        finally:
            del self._waiters[waiter]

    def _write(self, data: bytes | bytearray) -> int:
        """Write what fits; returns how much of `data` is written or dropped."""
        try:
            return os.write(self._fd.number, data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if exc.errno not in (errno.EPIPE, errno.EIO):
                log.error("input can't be written: %s", exc.strerror)
            return len(data)  # there is no reader any more

    def _writable(self) -> None:
        del self._queue[: self._write(self._queue)]
        if not self._queue:
            self._loop.remove_writer(self._fd.number)
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        for waiter, low_bytes in self._waiters.items():
            if self.queued_bytes <= low_bytes and not waiter.done():
                waiter.set_result(None)

    def abandon(self) -> None:
        """Drop what is queued; to be called before the descriptor is closed."""
        if self._queue:
            self._queue.clear()
            self._loop.remove_writer(self._fd.number)
        self._wake_waiters()
