"""Poller: one epoll under the event loop, for every descriptor that belongs to a child.

The loop watches the epoll; the epoll watches pipes, terminals and pidfds. To watch one costs a
system call instead of an object of the loop's, which counts where each command has three of them.
And the loop's turns stay short: after `TURN_S` of what children say it looks after its clients,
however much more there is to read. What was not got round to is ready at the next turn as well.

Source: epoll(7), which may be nested, and hands out in turn what is ready.
"""

import logging
import select
import time
from collections.abc import Callable
from typing import Final, Protocol

from procd.process.arrivals import Arrivals
from procd.process.timer import Timer

log = logging.getLogger(__name__)

# How long children may keep the loop in one turn, seconds.
TURN_S: Final = 0.002
# Events taken at once: what is under way when the time is up is finished, and a terminal that
# floods takes a millisecond. By one at a time nobody could tell that there are no more.
BATCH: Final = 2
# How long a reader rests, seconds: the loop's own timers count in milliseconds.
REST_S: Final = 0.0005
# How long that waits which has no memory to go on with, or no room here, seconds.
MEMORY_REST_S: Final = 0.5

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT
HUNG_UP: Final = select.EPOLLRDHUP
ONLY_NEWS: Final = select.EPOLLET
# The first two are told whether asked for or not, and are found out about by reading or writing.
FAILED: Final = select.EPOLLHUP | select.EPOLLERR | HUNG_UP
TO_READERS: Final = READABLE | FAILED
TO_WRITERS: Final = WRITABLE | FAILED
# What a writer may be told. EPOLLHUP alone is a terminal that nobody has open and that takes no
# more: it is not written to, as each write in vain reports EPOLLHUP again, though edge-triggered.
STATES: Final = WRITABLE | select.EPOLLERR | select.EPOLLHUP
NO_ROOM: Final = select.EPOLLHUP

Callback = Callable[[], None]


class Selector(Protocol):
    """Calls back as long as a descriptor is ready: an event loop, or a Poller."""

    def add_reader(self, fd: int, callback: Callback, /) -> None:
        """Call `callback` whenever there is something to read."""

    def remove_reader(self, fd: int, /) -> bool:
        """Stop that; whether there was anything to stop."""

    def add_writer(self, fd: int, callback: Callback, /) -> None:
        """Call `callback` whenever there is room to write."""

    def remove_writer(self, fd: int, /) -> bool:
        """Stop that; whether there was anything to stop."""


class Loop(Selector, Protocol):
    """What a Poller needs of the event loop."""

    def call_exception_handler(self, context: dict[str, object], /) -> None:
        """Report what a callback raised."""


class Poller:
    """Watches descriptors on behalf of `loop`.

    Whoever closes a descriptor stops watching it first. A closed Poller calls nobody.

    Attributes:
        arrivals: hears in which order pipes are written to.
    """

    __slots__ = ("_epoll", "_loop", "_newsy", "_put_off", "_put_off_writers", "_readers",
                 "_resting", "_retry_at", "_timer", "_writers", "arrivals")  # fmt: skip

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._resting: dict[int, Callback] = {}
        # Those that the epoll has no room for, or whose callback has failed and would do so in each
        # turn; and when they are tried again, monotonic time.
        self._put_off: dict[int, Callback] = {}
        self._put_off_writers: dict[int, Callback] = {}
        self._retry_at = 0.0
        self._newsy: set[int] = set()
        self._timer = Timer()
        self.arrivals = Arrivals()
        self._epoll.register(self._timer.number, READABLE)
        self._readers[self._timer.number] = self._rested
        loop.add_reader(self._epoll.fileno(), self._turn)

    def add_reader(self, fd: int, callback: Callback, /) -> None:
        """Call `callback` in each turn in which `fd` has something to read, or its end.

        Raises:
            OSError: there is no memory for it, or the user's epoll watches are used up.
        """
        if self._epoll.closed:
            return
        if fd in self._readers:
            self._readers[fd] = callback
            return
        self._readers[fd] = callback
        try:
            if fd in self._writers:
                self._newsy.discard(fd)
                self._epoll.modify(fd, READABLE | WRITABLE)
            else:
                self._epoll.register(fd, READABLE)
        except BaseException:
            del self._readers[fd]
            raise

    def add_hangup(self, fd: int, callback: Callback, /) -> None:
        """Call `callback` in each turn after the other end of the socket `fd` has closed.

        Whatever there is to read. It has no other reader here, and is removed as one.
        """
        if not self._epoll.closed:
            self._epoll.register(fd, HUNG_UP)
            self._readers[fd] = callback

    def only_news(self, fd: int, /) -> None:
        """Call for `fd` only when something happens, not as long as it is ready.

        For a terminal that nobody has open: that it is hung up is told with every poll. It ends
        when a reader comes or goes. Source: epoll(7), edge-triggered.
        """
        waits = fd in self._resting or fd in self._put_off
        if fd not in self._newsy and not waits and not self._epoll.closed:
            self._newsy.add(fd)
            wanted = READABLE if fd in self._readers else 0
            if fd in self._writers:
                wanted |= WRITABLE
            self._epoll.modify(fd, wanted | ONLY_NEWS)

    def rest(self, fd: int, /) -> None:
        """Leave what `fd` has to read where it is for a moment, REST_S at the most."""
        callback = self._readers[fd]
        self.remove_reader(fd)
        if not self._resting:
            self._timer.set(REST_S)
        self._resting[fd] = callback

    def _rested(self) -> None:
        self._timer.clear()
        resting, self._resting = self._resting, {}
        for fd, callback in resting.items():
            self.go_on(fd, callback)
        if not (self._put_off or self._put_off_writers):
            return
        left_s = self._retry_at - time.monotonic()
        if left_s <= 0:
            left_s = MEMORY_REST_S
            self._retry_at = time.monotonic() + left_s
            for fd, callback in [*self._put_off.items()]:
                self.go_on(fd, callback)
            for fd, callback in [*self._put_off_writers.items()]:
                self.add_writer(fd, callback)
        if (self._put_off or self._put_off_writers) and not self._resting:
            self._timer.set(left_s)

    def go_on(self, fd: int, callback: Callback, /) -> None:
        """As `add_reader`, for what was read before: while there is no room for it, it rests."""
        try:
            self.add_reader(fd, callback)
        except OSError as exc:
            self._delay(self._put_off, fd, callback, exc)
        else:
            self._resting.pop(fd, None)
            self._put_off.pop(fd, None)

    def _delay(
        self, where: dict[int, Callback], fd: int, callback: Callback, exc: OSError | None = None
    ) -> None:
        """Put it off; if `exc` is why, that is logged for the first of several."""
        if not (self._put_off or self._put_off_writers):
            if exc is not None:
                log.warning("no room to wait for a child with: %s", exc.strerror)
            self._retry_at = time.monotonic() + MEMORY_REST_S
            if not self._resting:
                self._timer.set(MEMORY_REST_S)
        where[fd] = callback

    def remove_reader(self, fd: int, /) -> bool:
        """Stop that; whether there was anything to stop."""
        if self._readers.pop(fd, None) is None:
            waiting = self._resting if fd in self._resting else self._put_off
            return waiting.pop(fd, None) is not None
        if self._newsy:
            self._newsy.discard(fd)
        if fd in self._writers:
            self._epoll.modify(fd, WRITABLE)
        else:
            self._epoll.unregister(fd)
        return True

    def add_writer(self, fd: int, callback: Callback, /) -> None:
        """Call `callback` in each turn in which `fd` takes something, or nobody will read it.

        While there is no room for it, it waits: what is to be written has been accepted by then.
        """
        if self._epoll.closed:
            return
        if fd in self._readers:
            self._epoll.modify(fd, READABLE | WRITABLE | self._how(fd))
        elif fd not in self._writers:
            try:
                self._epoll.register(fd, WRITABLE)
            except OSError as exc:
                self._delay(self._put_off_writers, fd, callback, exc)
                return
        self._put_off_writers.pop(fd, None)
        self._writers[fd] = callback

    def remove_writer(self, fd: int, /) -> bool:
        """Stop that; whether there was anything to stop."""
        if self._writers.pop(fd, None) is None:
            return self._put_off_writers.pop(fd, None) is not None
        if fd in self._readers:
            self._epoll.modify(fd, READABLE | self._how(fd))
        else:
            if self._newsy:
                self._newsy.discard(fd)
            self._epoll.unregister(fd)
        return True

    def _how(self, fd: int) -> int:
        return ONLY_NEWS if fd in self._newsy else 0

    def _turn(self) -> None:
        deadline = time.monotonic() + TURN_S
        readers, writers = self._readers, self._writers
        while True:
            events = self._epoll.poll(0, BATCH)
            for fd, mask in events:
                # By now `fd` may be closed, or another descriptor with the same number: who is
                # called in vain finds that there is nothing to read.
                if mask & TO_READERS and (callback := readers.get(fd)) is not None:
                    try:
                        callback()
                    except Exception as exc:  # noqa: BLE001 - reported, as the loop does
                        self._report(callback, exc)
                        if readers.get(fd) is callback and fd != self._timer.number:
                            self.remove_reader(fd)
                            self._delay(self._put_off, fd, callback)
                if mask & TO_WRITERS and (callback := writers.get(fd)) is not None:
                    if mask & STATES == NO_ROOM:
                        if fd not in readers:  # who would find out that nobody has it open
                            self.only_news(fd)
                        continue
                    try:
                        callback()
                    except Exception as exc:  # noqa: BLE001 - as above
                        self._report(callback, exc)
                        if writers.get(fd) is callback:
                            self.remove_writer(fd)
                            self._delay(self._put_off_writers, fd, callback)
            if len(events) < BATCH or time.monotonic() >= deadline or self._epoll.closed:
                return

    def _report(self, callback: Callback, exc: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": f"exception in {callback!r}", "exception": exc}
        )

    def close(self) -> None:
        """Watch nothing any more."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._readers.clear()
            self._writers.clear()
            self._resting.clear()
            self._put_off.clear()
            self._put_off_writers.clear()
            self._epoll.close()
            self._timer.close()
            self.arrivals.close()
