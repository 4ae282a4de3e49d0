"""Arrivals: in which order two pipes were written to, though each is read by itself.

A pipe can be had to send a signal with each write: one that queues, and tells the descriptor. It is
blocked, and what has queued is read when the order is asked for. How much was written isn't told.

Source: fcntl(2), F_SETOWN_EX, F_SETSIG and O_ASYNC; signalfd(2).
"""

import ctypes
import os
import resource
import select
import signal
import struct
from fcntl import F_SETFL, fcntl
from functools import partial
from typing import Final

from procd.unix.fd import OwnedFd
from procd.unix.libc import LIBC

# asm-generic/fcntl.h
F_SETSIG: Final = 10
F_SETOWN_EX: Final = 15
F_OWNER_TID: Final = 0
WRITTEN: Final = signal.SIGRTMIN + 3
# Comes in place of one that can't be queued any more (RLIMIT_SIGPENDING).
LOST: Final = signal.SIGIO
# How many may be pending, as procd was started: what children get. All of a user's processes are
# counted together, and who can have no more gets no timer either (timer_create(2)). The limit that
# holds is the receiver's, so with half of it procd leaves the rest to programs.
PENDING_SIGNALS: Final = resource.getrlimit(resource.RLIMIT_SIGPENDING)[0]
# sys/signalfd.h: what is read for each, and where in it the signal and the descriptor are, counted
# in integers of 32 bits.
RECORD_BYTES: Final = 128
RECORD_INTS: Final = RECORD_BYTES // 4
SIGNAL_AT: Final = 0
NUMBER_AT: Final = 5
RECORDS: Final = 64
# More writes than these at a time are a flood, whose order costs more than it is worth.
MOST_WRITES: Final = 4096
# And more than these of all processes aren't read at a time: they may come as fast as that.
MOST_TAKEN: Final = 2 * MOST_WRITES

SignalSet = ctypes.c_uint64 * 16


class Arrivals:
    """Hears of the writes to pipes of the thread that makes it; wakes nobody for them."""

    __slots__ = ("_number", "_orders", "_owner")

    def __init__(self) -> None:
        signals = {WRITTEN, LOST}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        mask = SignalSet(sum(1 << (number - 1) for number in signals))
        soft, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)
        if PENDING_SIGNALS != resource.RLIM_INFINITY and soft > PENDING_SIGNALS // 2:
            resource.setrlimit(resource.RLIMIT_SIGPENDING, (PENDING_SIGNALS // 2, hard))
        # Where a sandbox's filter has none, nothing is watched.
        self._number = LIBC.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC)
        self._owner = struct.pack("ii", F_OWNER_TID, LIBC.gettid())
        self._orders: dict[int, Order] = {}

    def watch(self, one: OwnedFd, other: OwnedFd) -> None:
        """Hear of the writes to two pipes, given their reading ends, until they are closed.

        They become non-blocking.
        """
        if self._number < 0:
            return
        self.take()  # what is left of pipes that had these numbers
        order = Order(self, one.number, other.number)
        for fd in one, other:
            try:
                fcntl(fd.number, F_SETOWN_EX, self._owner)
                fcntl(fd.number, F_SETSIG, WRITTEN)
                fcntl(fd.number, F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
            except OSError:  # not every kernel can
                return
            fd.before_close = partial(self._orders.pop, fd.number, None)
            self._orders[fd.number] = order

    def order_of(self, number: int) -> "Order | None":
        """That of a pipe and another, given a reading end; None if it isn't known."""
        return self._orders.get(number)

    def take(self) -> None:
        """Tell the orders what was written to until now; nothing once closed.

        Of too much at a time nobody is told. And of a flood no more is heard, whoever asks: it
        might go on for as long as it is listened to.
        """
        taken = 0
        while self._number >= 0 and taken < MOST_TAKEN:
            try:
                records = os.read(self._number, RECORD_BYTES * RECORDS)
            except BlockingIOError:
                return
            taken += RECORDS
            integers = memoryview(records).cast("i")
            for number in integers[NUMBER_AT::RECORD_INTS].tolist():
                order = self._orders.get(number)
                if order is None or len(order.writes) > MOST_WRITES:
                    continue
                order.writes.append(number)
                if len(order.writes) > MOST_WRITES:
                    self.mute(order)
            if LOST in integers[SIGNAL_AT::RECORD_INTS].tolist():
                self._forget()
            if len(records) < RECORD_BYTES * RECORDS:
                return
        if self._number >= 0:
            # What is pending of a signal that comes to be ignored is gone. Source: sigaction(2).
            signal.signal(WRITTEN, signal.SIG_IGN)
            signal.signal(WRITTEN, signal.SIG_DFL)
            self._forget()

    def _forget(self) -> None:
        for order in self._orders.values():
            order.writes.clear()

    def mute(self, order: "Order") -> None:
        """Hear of no write to the pipes of one, those of them that are open, until it resumes."""
        for number in order.numbers:
            if self._orders.get(number) is order:
                fcntl(number, F_SETFL, os.O_NONBLOCK)
        order.is_mute = True

    def close(self) -> None:
        """Hear of nothing any more; the signals stay blocked."""
        if self._number >= 0:
            os.close(self._number)
            self._number = -1
            self._orders.clear()


class Order:
    """The order of the writes to two pipes.

    Attributes:
        writes: the reading ends of those that were written to, one for each write that nobody has
            asked for yet, and one for the end of a pipe. Beyond MOST_WRITES none is added.
        is_mute: whether no write is told of, until `resume`.
        numbers: of both pipes, the reading ends'.
    """

    __slots__ = ("_arrivals", "is_mute", "numbers", "writes")

    def __init__(self, arrivals: Arrivals, one: int, other: int) -> None:
        self._arrivals = arrivals
        self.numbers = one, other
        self.is_mute = False
        self.writes: list[int] = []

    def take(self) -> list[int]:
        """What has come to `writes` since the last call."""
        self._arrivals.take()
        writes, self.writes = self.writes, []
        return writes

    def stop(self, number: int) -> None:
        """Hear no more of one that is open."""
        fcntl(number, F_SETFL, os.O_NONBLOCK)

    def pause(self) -> None:
        """Hear of no write to either until `resume`."""
        self._arrivals.mute(self)

    def resume(self) -> None:
        """Go on after `pause`; both are open."""
        self.is_mute = False
        for number in self.numbers:
            fcntl(number, F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        self.take()


def state(*numbers: int) -> tuple[list[int], list[int]]:
    """Of some pipes, given their reading ends: which can be read, and to which nobody can write."""
    poll = select.poll()
    for number in numbers:
        poll.register(number, select.POLLIN)
    events = poll.poll(0)
    readable = [number for number, mask in events if mask & select.POLLIN]
    return readable, [number for number, mask in events if mask & select.POLLHUP]
