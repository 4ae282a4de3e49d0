"""File descriptors: each with one owner, read and written when they are ready.

The order at the end is always: leave the selector, forget the number, close. Epoll forgets a closed
descriptor and who waits for it does not, so a number closed too early may hit a stranger.
"""

import asyncio
import errno
import fcntl
import logging
import os
import resource
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from procd.unix.poller import REST_S, Poller, Selector

log = logging.getLogger(__name__)

READ_BYTES: Final = 64 << 10
# A read shorter than this emptied the pipe or the terminal: another one would only say EAGAIN.
SHORT_READ_BYTES: Final = 1024
# Reads that follow each other within so many seconds, so often, are of something that flows.
SOON_S: Final = 0.0003
FLOW_READS: Final = 8
# What a program writes at once that writes much, and how soon the next of it may come.
POUR_BYTES: Final = 4096
POUR_S: Final = 0.01
# What a pipe holds by then, so that its writer goes on while we rest. Source: pipe(7), fcntl(2).
FLOW_PIPE_BYTES: Final = 1 << 20
# The last descriptors are not for new work: who asks how procd is gets in, and what runs can end.
RESERVED: Final = 64
# How long a reader without memory to read with waits.
MEMORY_REST_S: Final = 0.5


class OwnedFd:
    """A descriptor and the duty to close it.

    Attributes:
        before_close: called first, for whoever has registered the number as well.

    Raises:
        ValueError: the number is asked for after `close`.
    """

    __slots__ = ("_number", "before_close")

    def __init__(self, number: int) -> None:
        self._number = number
        self.before_close: Callable[[], None] | None = None

    @property
    def number(self) -> int:
        """The descriptor."""
        if self._number < 0:
            raise ValueError("descriptor is closed")
        return self._number

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._number < 0

    def close(self) -> None:
        """Close it; further calls do nothing."""
        if self._number < 0:
            return
        if self.before_close is not None:
            self.before_close()
            self.before_close = None
        number, self._number = self._number, -1
        os.close(number)

    def __repr__(self) -> str:
        return f"OwnedFd({self._number})"


def for_work(*numbers: int) -> list[OwnedFd]:
    """Own the descriptors of something new, unless one is of the last RESERVED that there can be.

    Raises:
        OSError: it is (EMFILE); all are closed.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if max(numbers) >= most - RESERVED:
        for number in numbers:
            os.close(number)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return [OwnedFd(number) for number in numbers]


def pipe() -> tuple[OwnedFd, OwnedFd]:
    """A pipe: (reading end, writing end), neither inherited, both blocking.

    Source: pipe(7).
    """
    reading, writing = for_work(*os.pipe())
    return reading, writing


def anonymous_file(name: str, content: bytes) -> OwnedFd:
    """A file in memory with `content`, at its beginning, without a path and not inherited.

    Raises:
        OSError: there is no descriptor or no memory for it.

    Source: memfd_create(2).
    """
    file = OwnedFd(os.memfd_create(name, os.MFD_CLOEXEC))
    try:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[os.write(file.number, remaining) :]
        os.lseek(file.number, 0, os.SEEK_SET)
    except OSError:
        file.close()
        raise
    return file


def seal_inherited() -> None:
    """Make sure that 0, 1 and 2 are open and that no other descriptor reaches a child.

    Python's own descriptors are close-on-exec (PEP 446); what procd itself inherited need not be.
    An open 0..2 keeps pipes off those numbers, which spawn's file actions rely on.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)  # noqa: FBT003 - the signature is os's
    os.close(number)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)  # noqa: FBT003 - as above
            except OSError as exc:
                if exc.errno != errno.EBADF:  # the listing's own descriptor is gone by now
                    raise


def _nothing(*_: object) -> None:
    """What a closed reader calls."""


class FdReader:
    """Reads a pipe or a PTY master whenever it has something, until its end.

    Our end must be non-blocking: that flag belongs to the open file, which only we hold.

    Args:
        on_data: called with each run of bytes, never empty.
        on_eof: called once, after the last bytes; the descriptor is closed by then.
        burst_bytes: most that one turn of the event loop reads, so that others get theirs.
        gathers: where bytes keep coming, let them gather for a moment between reads. Whoever
            writes to a pipe is then spared waking us for each piece, which takes longer than to
            write it; a terminal holds too little for that.

    Attributes:
        beside: the reader of the same process's other stream. If bytes pour there, what hasn't been
            read yet is older than what has just come here, and is taken first.

    Source: pty(7): EIO on a master means that the last slave is closed.
    """

    __slots__ = ("_burst_bytes", "_fd", "_gathers", "_on_data", "_on_eof", "_poller", "_poured",
                 "_reading", "_resting", "_soon", "_streak", "beside")  # fmt: skip

    def __init__(
        self,
        poller: Poller,
        fd: OwnedFd,
        on_data: Callable[[bytes], None],
        on_eof: Callable[[], None],
        *,
        burst_bytes: int = READ_BYTES,
        gathers: bool = True,
    ) -> None:
        os.set_blocking(fd.number, False)
        self._poller = poller
        self._fd = fd
        self._on_data = on_data
        self._on_eof = on_eof
        self._burst_bytes = burst_bytes
        self._gathers = gathers
        self._soon = 0.0  # until when the next read is soon after the last
        self._streak = 0
        self._poured = 0.0  # until when more of the same is likely to be there
        self._reading = False
        self._resting = False
        self.beside: FdReader | None = None
        self.resume()

    @property
    def ended(self) -> bool:
        """Whether the end was reached, or the reader closed."""
        return self._fd.closed

    def pause(self) -> None:
        """Leave further bytes in the kernel, which in time stops the writer."""
        if self._reading:
            self._reading = False
            self._poller.remove_reader(self._fd.number)

    def resume(self) -> None:
        """Go on after `pause`."""
        if not self._reading and not self._fd.closed:
            self._reading = True
            if not self._resting:
                self._poller.add_reader(self._fd.number, self._readable)

    def _readable(self) -> None:
        try:
            data, ended = self._read(self._burst_bytes)
        except MemoryError:
            log.warning("no memory to read with: output waits")
            self._rest(MEMORY_REST_S)  # else this would fail at each turn
            return
        if data:
            if self.beside is not None and self.beside.pouring:
                with suppress(MemoryError):  # then that waits where it is, and this isn't lost
                    self.beside.drain()
            self._on_data(data)
        if ended:
            on_eof = self._on_eof
            self.close()
            on_eof()
        elif self._gathers and self._reading:
            self._gather(len(data))

    def _gather(self, got: int) -> None:
        """Rest, if this is one of many reads that follow each other."""
        now = time.monotonic()
        if got >= POUR_BYTES:
            self._poured = now + POUR_S
        self._streak = self._streak + 1 if now < self._soon else 0
        self._soon = now + SOON_S
        if self._streak < FLOW_READS or got >= self._burst_bytes:
            return
        if self._streak == FLOW_READS:
            with suppress(OSError):  # who may have no larger pipe is stopped more often
                fcntl.fcntl(self._fd.number, fcntl.F_SETPIPE_SZ, FLOW_PIPE_BYTES)
        self._soon += REST_S
        self._poller.rest(self._fd.number)

    @property
    def pouring(self) -> bool:
        """Whether bytes pour from there, of which some may not have been read yet."""
        if not self._reading:
            return False
        return self._streak >= FLOW_READS or time.monotonic() < self._poured

    def _rest(self, seconds: float) -> None:
        """Leave the bytes where they are for a while."""
        self._poller.remove_reader(self._fd.number)
        self._resting = True
        asyncio.get_running_loop().call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._resting = False
        if self._reading and not self._fd.closed:
            self._poller.add_reader(self._fd.number, self._readable)

    def _read(self, most: int) -> tuple[bytes, bool]:
        number = self._fd.number
        size = READ_BYTES if self._streak < FLOW_READS else most
        first = b""
        rest: list[bytes] | None = None
        got = 0
        ended = False
        while got < most:
            try:
                data = os.read(number, size)
            except BlockingIOError:
                break
            except MemoryError:
                if not got:
                    raise
                break
            except OSError as exc:
                if exc.errno != errno.EIO:
                    raise
                data = b""
            if not data:
                ended = True
                break
            got += len(data)
            if not first:
                first = data
            elif rest is None:
                rest = [first, data]
            else:
                rest.append(data)
            if len(data) < SHORT_READ_BYTES:
                break
        return (first if rest is None else b"".join(rest)), ended

    def drain(self, most: int = 1 << 20) -> None:
        """Take what the kernel still holds, paused or not; `most` bounds a writer that goes on."""
        while not self._fd.closed and most > 0:
            data, ended = self._read(min(most, READ_BYTES))
            most -= len(data)
            if data:
                self._on_data(data)
            if ended:
                on_eof = self._on_eof
                self.close()
                on_eof()
            elif not data:
                return

    def discard(self) -> None:
        """Read on until the end, paused or not, and drop what comes."""
        self._on_data = _nothing
        self.resume()

    def close(self) -> None:
        """Stop and close the descriptor, without `on_eof`."""
        if not self._fd.closed:
            self.pause()
            self._fd.close()
            # Lets go of the owner, who holds us: lest its output wait for the cycle collector.
            self._on_data = self._on_eof = _nothing
            self.beside = None


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
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def queued_bytes(self) -> int:
        """What nobody has read yet, beyond the kernel's own buffer."""
        return len(self._queue)

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
        self._waiters.append((low_bytes, waiter))
        await waiter

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
        for _ in range(len(self._waiters)):
            low_bytes, waiter = self._waiters.popleft()
            if waiter.done():
                continue
            if self.queued_bytes <= low_bytes:
                waiter.set_result(None)
            else:
                self._waiters.append((low_bytes, waiter))

    def abandon(self) -> None:
        """Drop what is queued and leave the selector; to be called before the descriptor closes."""
        self._queue.clear()
        if self._writing:
            self._writing = False
            self._selector.remove_writer(self._fd.number)
        self._wake()
