"""Timeouts of connections: unread replies, dead WebSocket peers. See `procd.suspend`.

TCP_USER_TIMEOUT would not do: it counts from when the client's window was full, whatever the client
has read since, and doesn't find a dead client whose input isn't read.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import Final

from procd.config import ServerConfig
from procd.suspend import Countdown, standstill_s

# How often a WebSocket client with unsent output is checked in each ping interval.
CHECKS_BEHIND: Final = 5
# How often one that doesn't read a reply is checked before it is aborted.
CHECKS: Final = 10


def queued_bytes(sock: socket.socket) -> int:
    """How many bytes in the kernel the peer has not acknowledged. Source: tcp(7), SIOCOUTQ."""
    (queued,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(queued)


class ReadProgress:
    """Measures what a client reads.

    Attributes:
        unsent_bytes: what the client had not acknowledged at the last measurement.
        buffered_bytes: what of that was in this process.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._read_bytes = 0
        self.unsent_bytes = self.buffered_bytes = 0

    def measure(self, written_bytes: int) -> bool:
        """Return whether the client has read some of what was unsent at the last measurement."""
        was_behind = self.unsent_bytes > 0
        self.buffered_bytes = self._transport.get_write_buffer_size()
        queued = queued_bytes(self._socket) if self._socket.fileno() >= 0 else 0
        self.unsent_bytes = self.buffered_bytes + queued
        before, self._read_bytes = self._read_bytes, written_bytes - self.unsent_bytes
        return was_behind and self._read_bytes > before


class WriteTimeout:
    """Aborts a connection whose client reads nothing of a reply for `server.dead_peer_s`.

    It ends by itself when the reply has left this process. Meanwhile nothing must be written.
    """

    def __init__(self, transport: asyncio.Transport, config: ServerConfig) -> None:
        self._transport = transport
        self._progress = ReadProgress(transport)
        self._progress.measure(0)
        self._interval_s = config.dead_peer_s / CHECKS
        self._checks_left = CHECKS
        self._timer = Countdown(self._interval_s, self._check)

    def _check(self) -> None:
        reads = self._progress.measure(0)
        self._checks_left = CHECKS if reads else self._checks_left - 1
        if not self._progress.buffered_bytes:
            return
        if not self._checks_left:
            self._transport.abort()
        else:
            self._timer = Countdown(self._interval_s, self._check)

    def cancel(self) -> None:
        self._timer.cancel()


class Keepalive:
    """Pings the client of a WebSocket, and drops it without a sign of life for `dead_peer_s`.

    Args:
        heard_at: returns when the client sent something last, the loop's time.

    Attributes:
        stalled: whether its input isn't read on purpose; then its silence proves nothing.
        must_close: whether only reading is a sign of life, whatever the client sends.
        written_bytes: what was written to the transport.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        config: ServerConfig,
        *,
        heard_at: Callable[[], float],
        ping: Callable[[], None],
        drop: Callable[[], None],
    ) -> None:
        self._heard_at, self._ping, self._drop = heard_at, ping, drop
        self._progress = ReadProgress(transport)
        self._is_local = transport.get_extra_info("socket").family == socket.AF_UNIX
        self._loop = asyncio.get_running_loop()
        self._dead_peer_s = config.dead_peer_s
        self._ping_s = min(config.ping_s, config.dead_peer_s / 2)
        self._closing = self.must_close = self.stalled = False
        self.written_bytes = 0
        self._alive_at = self._loop.time()
        self._due = self._alive_at + self._ping_s
        self._timer = self._loop.call_at(self._due, self._check)

    def _check(self) -> None:
        progress, now = self._progress, self._loop.time()
        self._alive_at += standstill_s(self._due)
        if not self.must_close:
            self._alive_at = max(self._alive_at, self._heard_at())
        interval_s = self._interval_s
        reads = progress.measure(self.written_bytes)
        # If its input isn't read, no more can be asked than that its host acknowledges the pings. A
        # local client can't be on a dead host, and the kernel counts what it has not read itself.
        unacknowledged = progress.buffered_bytes if self._is_local else progress.unsent_bytes
        if reads or (self.stalled and not self._closing and not unacknowledged):
            self._alive_at = max(self._alive_at, now - interval_s)
        left_s = self._alive_at + self._dead_peer_s - now
        if left_s <= 0:
            self._drop()
            return
        if not progress.unsent_bytes:  # behind unsent output a ping would be of no use
            self._ping()
        self._due = now + min(self._interval_s, left_s)
        self._timer = self._loop.call_at(self._due, self._check)

    @property
    def _interval_s(self) -> float:
        return self._ping_s / CHECKS_BEHIND if self._progress.unsent_bytes else self._ping_s

    def close_sent(self) -> None:
        """A Close was sent: the client has `dead_peer_s` to answer, from now on."""
        self._closing = True
        self._alive_at = self._loop.time()
        self._due = max(self._due, self._alive_at)  # or an earlier standstill would be added to it

    def stop(self) -> None:
        self._timer.cancel()
