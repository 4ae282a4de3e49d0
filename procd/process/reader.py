"""Reading a descriptor whenever it has something, as much at a time as is worth a turn."""

import asyncio
import errno
import fcntl
import logging
import os
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from procd.output.utf8 import begun_bytes
from procd.process.owed import Owed
from procd.process.poller import MEMORY_REST_S, REST_S, Poller
from procd.unix.fd import OwnedFd

log = logging.getLogger(__name__)

READ_BYTES: Final = 64 << 10
# What a terminal gives at a time, mostly. Where longer buffers are cut to that, holes stay in the
# heap between the runs that are kept, nearly as large as those. Source: n_tty.c, N_TTY_BUF_SIZE.
TTY_READ_BYTES: Final = 4096
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
LAST_ASCII: Final = 0x7F


def _nothing(*_: object) -> None:
    """What a closed reader calls."""


def _warn() -> None:
    with suppress(MemoryError):  # there may be none for this either
        log.warning("no memory for output: it waits")


def held_bytes(number: int) -> int:
    """How much there is to read in a pipe. Source: pipe(7), FIONREAD."""
    (held,) = struct.unpack("i", fcntl.ioctl(number, termios.FIONREAD, bytes(4)))
    return int(held)


class Pairing(Protocol):
    """What two readers have in common."""

    def deliver(self, reader: "FdReader", data: bytes) -> None:
        """Deliver what one has read, and what has come to the other if that may be older."""

    def settle(self) -> None:
        """Deliver what waits for the other: one has ended, or has been read to the end."""

    def catch_up(self) -> None:
        """As `settle`: what one has read has been delivered by itself."""

    def part(self) -> None:
        """One is about to be closed."""


class FdReader:
    """Reads a pipe or a PTY master whenever it has something, until its end.

    Our end must be non-blocking: that flag belongs to the open file, which only we hold.

    Args:
        on_data: called with each run of bytes, never empty. With MemoryError it says that it has
            taken nothing of them: it is called with them again, in a while.
        on_eof: called once, after the last bytes; the descriptor is closed by then.
        burst_bytes: most that one turn of the event loop reads, so that others get theirs.
        may_go_on: for a PTY master: whether the child still runs. Then EIO, which says that no
            slave is open, isn't the end: the child may open its terminal again.

    Attributes:
        pairing: the same process's other stream, if there is one.

    Raises:
        OSError: the descriptor can't be waited for; it is closed.

    Source: pty(7): EIO on a master means that the last slave is closed.
    """

    __slots__ = ("_asleep", "_burst_bytes", "_fd", "_gathers", "_may_go_on", "_on_data", "_on_eof",
                 "_owed", "_poller", "_poured", "_reading", "_resting", "_soon", "_streak", "_torn",
                 "pairing")  # fmt: skip

    def __init__(
        self,
        poller: Poller,
        fd: OwnedFd,
        on_data: Callable[[bytes], None],
        on_eof: Callable[[], None],
        *,
        burst_bytes: int = READ_BYTES,
        may_go_on: Callable[[], bool] | None = None,
    ) -> None:
        os.set_blocking(fd.number, False)
        self._poller = poller
        self._fd = fd
        self._on_data = on_data
        self._on_eof = on_eof
        self._burst_bytes = burst_bytes
        # Where bytes keep coming, they gather for a moment between reads. Whoever writes to a pipe
        # is then spared waking us for each piece, which takes longer than to write it; a terminal
        # holds too little for that.
        self._gathers = may_go_on is None
        self._may_go_on = may_go_on
        self._asleep = False  # while nobody has the terminal open; the poller wakes us
        self._soon = 0.0  # until when the next read is soon after the last
        self._streak = 0
        self._poured = 0.0  # until when more of the same is likely to be there
        self._torn = False  # the last bytes end within a character
        self._reading = True
        self._resting = False
        self._owed = Owed()
        self.pairing: Pairing | None = None
        try:
            poller.add_reader(fd.number, self._readable)
        except BaseException:
            fd.close()
            raise

    @property
    def ended(self) -> bool:
        """Whether the end was reached, or the reader closed."""
        return self._fd.closed

    @property
    def number(self) -> int:
        """The descriptor, until the end."""
        return self._fd.number

    @property
    def up_to_date(self) -> bool:
        """Whether nothing that was read waits to be taken, nor what is to be read for that."""
        return not (self._owed or self._resting)

    def pause(self) -> None:
        """Leave further bytes in the kernel, which in time stops the writer."""
        if self._reading:
            self._reading = False
            if not self._asleep:
                self._poller.remove_reader(self._fd.number)

    def resume(self) -> None:
        """Go on after `pause`."""
        if not self._reading and not self._fd.closed:
            self._reading = True
            if not (self._resting or self._asleep):
                self._poller.go_on(self._fd.number, self._readable)

    def _readable(self) -> None:
        try:
            if self._owed:
                self._pay()
            data, ended = self._read(self._burst_bytes)
            if data:
                self._deliver(data, self.pairing)
            if ended and self.pairing is not None:
                self.pairing.settle()
        except MemoryError:
            self.wait_for_memory()  # else this would fail at each turn
            _warn()
            return
        if ended:
            self._end()
        elif self._gathers and self._reading:
            self._gather(len(data))

    def _gather(self, got: int) -> None:
        """Rest, if this is one of many reads that follow each other."""
        now = time.monotonic()
        if now < self._soon:
            self._streak += 1
        else:
            self._streak = 0
        self._soon = now + SOON_S
        if self._streak < FLOW_READS or got >= self._burst_bytes:
            return
        if self._streak == FLOW_READS:
            with suppress(OSError):  # who may have no larger pipe is stopped more often
                fcntl.fcntl(self._fd.number, fcntl.F_SETPIPE_SZ, FLOW_PIPE_BYTES)
        self._soon += REST_S
        self._poller.rest(self._fd.number)

    def _end(self) -> None:
        if self._may_go_on is not None and self._may_go_on():
            self._asleep = True  # if it was, this tells nothing anew
            self._poller.go_on(self._fd.number, self._readable)
            self._poller.only_news(self._fd.number)
            return
        on_eof = self._on_eof
        self.close()
        on_eof()

    def _wake(self) -> None:
        self._asleep = False
        self._poller.remove_reader(self._fd.number)
        if self._reading:
            self._poller.go_on(self._fd.number, self._readable)

    def _deliver(self, data: bytes, pairing: Pairing | None) -> None:
        if pairing is None:
            self.deliver(data)
        else:
            pairing.deliver(self, data)

    def deliver(self, data: bytes) -> None:
        """Have taken what was read.

        Raises:
            MemoryError: it couldn't be, and waits; so is the reader to (`wait_for_memory`).
        """
        if self._asleep:
            self._wake()
        self._torn = data[-1] > LAST_ASCII and begun_bytes(data) > 0
        try:
            self._on_data(data)
        except MemoryError:
            self.owe(data)
            raise
        if len(data) >= POUR_BYTES:
            self._poured = time.monotonic() + POUR_S

    def owe(self, data: bytes) -> None:
        """Have taken later what was read."""
        self._owed.add(data)

    def owe_first(self, pieces: list[bytes]) -> None:
        """Have taken later what was read before all that waits."""
        self._owed.put_first(pieces)

    def wait_for_memory(self) -> None:
        """Go on in a while."""
        self._rest(MEMORY_REST_S)

    def _pay(self) -> None:
        """Have taken what couldn't be."""
        self._owed.pay(self._on_data)
        if self.pairing is not None:
            self.pairing.catch_up()

    @property
    def pours(self) -> bool:
        """Whether much has just come at once."""
        return time.monotonic() < self._poured

    @property
    def amid(self) -> bool:
        """Whether bytes pour from there, or have come up to the middle of a character."""
        if not self._reading:
            return False
        return self._torn or self._streak >= FLOW_READS or self.pours

    def _rest(self, seconds: float) -> None:
        """Leave the bytes where they are for a while."""
        if self._fd.closed or self._resting:
            return
        asyncio.get_running_loop().call_later(seconds, self._rested)
        self._poller.remove_reader(self._fd.number)
        self._asleep = False  # whether anybody has it open by then is to be seen
        self._resting = True

    def _rested(self) -> None:
        self._resting = False
        if self._fd.closed:
            return
        try:
            if self._owed:
                self._pay()  # even where nothing more comes
        except MemoryError:
            self.wait_for_memory()
        else:
            if self._reading:
                self._poller.go_on(self._fd.number, self._readable)

    def read_now(self) -> bytes:
        """What there is to read, and to be delivered; nothing at the end, too.

        Raises:
            MemoryError: there is none to read it with.
        """
        return self._read(READ_BYTES)[0]

    def _read(self, most: int) -> tuple[bytes, bool]:
        """What there is, and whether that is the end.

        Raises:
            MemoryError: there is none to read more with, or to join it; what was read waits.
        """
        number = self._fd.number
        if not self._gathers:
            size = TTY_READ_BYTES
        elif self._streak < FLOW_READS:
            size = READ_BYTES
        else:
            size = most
        data = first = b""
        rest: list[bytes] | None = None
        got = 0
        ended = False
        try:
            while got < most:
                try:
                    data = os.read(number, size)
                except BlockingIOError:
                    break
                except OSError as exc:
                    if exc.errno != errno.EIO:
                        raise
                    ended = True
                    break
                if not data:
                    ended = True
                    break
                if not first:
                    first = data
                elif rest is None:
                    rest = [first, data]
                else:
                    rest.append(data)
                got += len(data)
                if len(data) < SHORT_READ_BYTES:
                    break
            return (first if rest is None else b"".join(rest)), ended
        except MemoryError:
            # What has left the kernel waits as it is.
            if first:
                self._owed.put_first([first] if rest is None else rest)
                if data is not (first if rest is None else rest[-1]):
                    self._owed.add(data)
            raise

    def drain(self, most: int = 1 << 20, *, alone: bool = False) -> bool:
        """Take what the kernel still holds, paused or not, though a writer may go on.

        Args:
            most: bytes, where it isn't told how many those are.
            alone: leave the other reader of a pair out of it.

        Returns:
            Whether it could be taken. What there is no memory for waits.
        """
        try:
            self._drain(most, None if alone else self.pairing)
        except MemoryError:
            with suppress(MemoryError):
                self.wait_for_memory()  # nothing more may come to have it brought
            _warn()
            return False
        return True

    def _drain(self, most: int, pairing: Pairing | None) -> None:
        if self._owed:
            self._pay()
        ended = False
        if self._gathers and not self._fd.closed:
            # Of who writes a few bytes at a time, each read brings as many.
            most = min(most, held_bytes(self._fd.number) + 1)  # and maybe the end
        while not (ended or self._fd.closed) and most > 0:
            data, ended = self._read(min(most, READ_BYTES))
            if data:
                self._deliver(data, pairing)
            elif not ended:
                break
            most -= len(data)
        if pairing is not None:
            pairing.settle()
        if ended and not self._fd.closed:
            self._end()

    def discard(self) -> None:
        """Read on until the end, paused or not, and drop what comes."""
        self._on_data = _nothing
        self._owed.clear()
        self.resume()

    def close(self) -> None:
        """Stop and close the descriptor, without `on_eof`."""
        if not self._fd.closed:
            if self._reading or self._asleep:
                self._reading = self._asleep = False
                self._poller.remove_reader(self._fd.number)
            if self.pairing is not None:
                self.pairing.part()
            self._fd.close()
            # Lets go of the owner, who holds us: lest its output wait for the cycle collector.
            self._on_data = self._on_eof = _nothing
            self._owed.clear()
            self._may_go_on = None
            self.pairing = None
