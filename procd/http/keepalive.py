"""Whether a client is alive: by what it takes, and with a WebSocket by what it sends as well.

Not left to TCP_USER_TIMEOUT: that counts from when the client's window was full, whatever the
client has read since, and finds nobody whose input isn't read.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from procd.config import ServerConfig
from procd.suspend import Countdown, standstill_s

# How often, for each ping's time, a client that is behind is looked at.
BEATS_BEHIND: Final = 5
# The states of a connection that is over, and of one whose client has closed it, and hasn't reset
# it. Source: linux/tcp.h.
CLOSE: Final = 7
CLOSE_WAIT: Final = 8
TAKEN_AT: Final = 120  # in struct tcp_info, tcpi_bytes_acked
# How long the answer to a request may take when its client sends no more.
PARTING_S: Final = 0.25


def queued_bytes(sock: socket.socket) -> int:
    """What the kernel still has to send, or to hear of. Source: tcp(7), SIOCOUTQ."""
    (queued,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(queued)


def has_unread(transport: asyncio.Transport | None) -> bool:
    """Whether its socket has something to read, even if the client has reset the connection."""
    if transport is None:
        return False
    try:
        sock = socket.socket(fileno=transport.get_extra_info("socket").fileno())
    except OSError:
        return False
    try:
        sock.settimeout(0)  # which it has already
        return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False  # there is nothing, or only that the client has gone
    finally:
        sock.detach()  # it is the transport's


def sent_bytes(transport: asyncio.Transport) -> int:
    """How much a client was sent until now; 0 if it can't be known."""
    sock = transport.get_extra_info("socket")
    try:
        _, taken = _taken(sock)
        return taken + queued_bytes(sock) + transport.get_write_buffer_size()
    except OSError:  # a unix socket, or one that is closed
        return 0


def has_taken(transport: asyncio.Transport | None, least: int, exc: BaseException | None) -> bool:
    """Whether the client, which has gone, had read the first `least` bytes that it was sent.

    One that hadn't read all there was resets the connection. So does one that has closed it, when
    it is sent more: its kernel then makes ours say EPIPE. Source: RFC 2525, section 2.17;
    tcp_input.c, tcp_reset.

    Args:
        least: 0 for all of it.
        exc: what the event loop learned of the end by, if by a failure.
    """
    if transport is None:
        return False
    sock = transport.get_extra_info("socket")
    try:
        if sock.family == socket.AF_UNIX:
            return not (transport.get_write_buffer_size() or queued_bytes(sock))
        state, taken = _taken(sock)
        if state == CLOSE_WAIT and not (transport.get_write_buffer_size() or queued_bytes(sock)):
            return True
        left = state == CLOSE_WAIT or (state == CLOSE and isinstance(exc, BrokenPipeError | None))
        return left and 0 < least <= taken
    except OSError:
        return False


def _taken(sock: socket.socket) -> tuple[int, int]:
    """The state of a connection, and how much its client's kernel has taken.

    Source: linux/tcp.h, struct tcp_info; `tcpi_bytes_acked` is of Linux 4.2, and not everywhere.
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TAKEN_AT + 8)
    taken = int.from_bytes(info[TAKEN_AT:], sys.byteorder)
    return info[0], taken


class Client(Protocol):
    """Whose pulse it is.

    Attributes:
        closing: whether it was sent a Close, and is to answer.
        stalled: whether its input isn't read on purpose; its silence proves nothing then.
    """

    closing: bool
    stalled: bool

    @property
    def heard_at(self) -> float:
        """When it sent something last; the loop's time."""

    def ping(self) -> None:
        """Ask for a sign of life."""

    def drop_silent(self) -> None:
        """Drop it, as it is dead."""


class Intake:
    """What a client takes of what is written to it.

    Attributes:
        taken_bytes: what of it the client had taken at the last look.
        unsent_bytes: what it hadn't by then.
        waiting_bytes: what of that was still in this process.
    """

    __slots__ = ("_socket", "_transport", "taken_bytes", "unsent_bytes", "waiting_bytes")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self.taken_bytes = 0
        self.unsent_bytes = self.waiting_bytes = 0

    def look(self, written_bytes: int) -> bool:
        """Whether it has taken something, by now, of what lay there at the last look.

        Not of what was written since: that a client's host takes whether or not its program reads.

        Args:
            written_bytes: to the transport, since any moment that stays the same.
        """
        lay_bytes = self.unsent_bytes
        self.waiting_bytes = self._transport.get_write_buffer_size()
        queued = queued_bytes(self._socket) if self._socket.fileno() >= 0 else 0
        self.unsent_bytes = self.waiting_bytes + queued
        before, self.taken_bytes = self.taken_bytes, written_bytes - self.unsent_bytes
        return lay_bytes > 0 and self.taken_bytes > before


class Patience:
    """Waits for a client to take what waits for it here, and drops it when it takes nothing.

    For `dead_peer_s`; meanwhile nothing else must be written.
    """

    __slots__ = ("_beat_s", "_dead_peer_s", "_due", "_intake", "_loop", "_since", "_timer",
                 "_transport")  # fmt: skip

    def __init__(self, transport: asyncio.Transport, config: ServerConfig) -> None:
        self._transport = transport
        self._intake = Intake(transport)
        self._loop = asyncio.get_running_loop()
        self._dead_peer_s = config.dead_peer_s
        self._beat_s = min(config.ping_s, config.dead_peer_s / 2) / BEATS_BEHIND
        self._since = self._loop.time()
        self._intake.look(0)
        self._due = self._since + self._beat_s
        self._timer = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        now = self._loop.time()
        self._since += standstill_s(self._due)
        if self._intake.look(0):
            self._since = now
        if not self._intake.waiting_bytes:
            return
        if now - self._since >= self._dead_peer_s:
            self._transport.abort()
            return
        self._due = now + self._beat_s
        self._timer = self._loop.call_at(self._due, self._beat)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()


class Parting:
    """Closes the connection of a client that sends no more, after the answers that it waits for.

    It has gone, or closed its half only, as `nc` does: that shows when it is sent something. So an
    answer may take `PARTING_S`, and then as long as it is taken.
    """

    __slots__ = ("_awaited", "_owed", "_timer", "_transport")

    def __init__(self, transport: asyncio.Transport, owed: Callable[[], object | None]) -> None:
        """Begin to wait.

        Args:
            owed: says what is to be answered next, if anything.
        """
        self._transport = transport
        self._owed = owed
        self._wait()

    def _wait(self) -> None:
        self._awaited = self._owed()
        self._timer = Countdown(PARTING_S, self._look)

    def _look(self) -> None:
        owed = self._owed()
        if owed is None or owed is self._awaited:
            self._transport.close()
        else:
            self._wait()

    def stop(self) -> None:
        """It is closed."""
        self._timer.cancel()
        del self._timer  # or else each would keep the other


class Pulse:
    """Looks at one client regularly, and drops it when it has shown no life for `dead_peer_s`.

    Attributes:
        written_bytes: what was written to the transport.
    """

    __slots__ = ("_answer_by", "_beat_s", "_client", "_dead_peer_s", "_due", "_intake",
                 "_is_local", "_last_bytes", "_last_heard", "_loop", "_ping_s", "_timer",
                 "written_bytes")  # fmt: skip

    def __init__(self, client: Client, transport: asyncio.Transport, config: ServerConfig) -> None:
        self._client = client
        self._intake = Intake(transport)
        self._is_local = transport.get_extra_info("socket").family == socket.AF_UNIX
        self._loop = asyncio.get_running_loop()
        self._dead_peer_s = config.dead_peer_s
        # Early enough for a peer that answers to be heard before it counts as gone.
        self._ping_s = min(config.ping_s, config.dead_peer_s / 2)
        self.written_bytes = 0
        self._last_heard = self._loop.time()
        self._answer_by = inf  # that is, a Close, whatever else it goes on to send
        self._last_bytes = inf  # so much was written up to that Close; pongs may come after it
        self._beat_s = self._ping_s
        self._due = self._last_heard + self._beat_s
        self._timer = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        client, now = self._client, self._loop.time()
        lost_s = standstill_s(self._due)
        self._answer_by += lost_s
        self._last_heard = max(self._last_heard + lost_s, client.heard_at)
        is_last = self._intake.taken_bytes >= self._last_bytes
        reads = self._intake.look(self.written_bytes)
        unsent_bytes = self._intake.unsent_bytes
        # All that can be asked of who isn't read: that its host has taken the last ping. On this
        # machine no host can be dead, and the kernel counts what the program itself hasn't read.
        untaken_bytes = self._intake.waiting_bytes if self._is_local else unsent_bytes
        excused = client.stalled and not client.closing and not untaken_bytes
        if reads or excused:  # a client that reads, however slowly, is alive, or was a beat ago
            self._last_heard = max(self._last_heard, now - self._beat_s)
            if not is_last:
                self._answer_by = max(self._answer_by, self._last_heard + self._dead_peer_s)
        left_s = min(self._last_heard + self._dead_peer_s, self._answer_by) - now
        if left_s <= 0:
            client.drop_silent()
            return
        if not unsent_bytes:  # else what is on the way asks the same, and a ping would lie behind
            client.ping()
        self._beat_s = self._ping_s / BEATS_BEHIND if unsent_bytes else self._ping_s
        self._due = now + min(self._beat_s, left_s)
        self._timer = self._loop.call_at(self._due, self._beat)

    def closed(self) -> None:
        """The client has been sent a Close: it has as long to answer as for any sign of life."""
        self._last_heard = self._loop.time()
        self._due = max(self._due, self._last_heard)  # or a standstill before would be added to it

    def sent_away(self) -> None:
        """The client was cut off by that: nothing but its answer is a sign of life any more."""
        self._answer_by = min(self._answer_by, self._loop.time() + self._dead_peer_s)
        self._last_bytes = min(self._last_bytes, self.written_bytes)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()
        del self._client  # or else each would keep the other
