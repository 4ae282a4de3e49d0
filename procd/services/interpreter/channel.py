"""A socket to a child of ours that runs other people's code: messages with a key.

The child may write anything to any descriptor it has. A sequenced-packet socket keeps the bounds of
what was written, so a packet that doesn't begin with the key is dropped, whole, and harms no other.

Source: unix(7), SOCK_SEQPACKET.
"""

import asyncio
import logging
import os
import secrets
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from procd.unix.fd import OwnedFd, for_work, take_none

log = logging.getLogger(__name__)

KEY_BYTES: Final = 16
CHUNK_BYTES: Final = 32 << 10
LAST: Final = b"."
MORE: Final = b"+"
# Packets that one turn of the event loop takes, so that others get theirs.
BURST: Final = 64
# More packets than a socket's buffer holds.
MAX_LEFT: Final = 10_000
# What waits to be sent while we still read: who doesn't take our answers asks no more.
MAX_UNSENT_BYTES: Final = 16 << 10


def channel_pair() -> tuple[OwnedFd, OwnedFd]:
    """Our end, which takes no descriptors, and the child's; neither is inherited.

    Raises:
        OSError: there is no descriptor.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    take_none(ours)
    own, other = for_work(ours.detach(), theirs.detach())
    return own, other


class Channel:
    """Our end.

    Args:
        on_message: called with each whole message that has the key.
        on_end: called once, when the other end is closed; or with the reason, when it sends more
            than `max_bytes` at once.
        max_bytes: longest message taken.

    Raises:
        OSError: the descriptor can't be waited for.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: OwnedFd,
        on_message: Callable[[bytes], None],
        on_end: Callable[[str], None],
        max_bytes: int,
    ) -> None:
        os.set_blocking(fd.number, False)
        self.key = secrets.token_bytes(KEY_BYTES)
        self._loop = loop
        self._fd = fd
        self._on_message = on_message
        self._on_end = on_end
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._got_bytes = 0
        self._is_whole = False  # and is to be handed on
        self._retry: asyncio.TimerHandle | None = None
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._paused = False
        self._reading = True
        loop.add_reader(fd.number, self._readable)

    def pause(self) -> None:
        """Leave further messages in the kernel, which in time stops their sender."""
        self._paused = True
        self._watch()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._watch()

    def _watch(self) -> None:
        """Read, unless it is to pause, takes too little itself or has no memory to read with."""
        takes = self._unsent_bytes <= MAX_UNSENT_BYTES
        wanted = takes and not self._paused and self._retry is None
        if wanted == self._reading or self._fd.closed:
            return
        self._reading = wanted
        if wanted:
            self._loop.add_reader(self._fd.number, self._readable)
        else:
            self._loop.remove_reader(self._fd.number)

    def send(self, message: bytes) -> None:
        """Send a message, without the key; what doesn't fit yet waits.

        While much of it waits nothing is read, so what answers messages is bounded; what else is
        sent, the caller bounds: one request at a time.
        """
        if self._fd.closed:
            return
        waiting = bool(self._unsent)
        for start in range(0, len(message), CHUNK_BYTES):
            chunk = message[start : start + CHUNK_BYTES]
            self._unsent.append((LAST if start + CHUNK_BYTES >= len(message) else MORE) + chunk)
        self._unsent_bytes += len(message)
        if not waiting and not self._flush():
            self._loop.add_writer(self._fd.number, self._writable)
        self._watch()

    def _flush(self) -> bool:
        """Send what fits; whether that is all."""
        while self._unsent:
            try:
                os.write(self._fd.number, self._unsent[0])
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                self._unsent.clear()  # the end is about to be read
                self._unsent_bytes = 0
                return True
            self._unsent_bytes -= len(self._unsent.popleft()) - len(LAST)
        return True

    def _writable(self) -> None:
        if self._flush():
            self._loop.remove_writer(self._fd.number)
        self._watch()

    def _readable(self) -> None:
        try:
            for _ in range(BURST):
                if self._fd.closed or not self._reading:
                    return
                if not self._read():
                    return
        except MemoryError:
            self._rest()

    def _rest(self) -> None:
        """For want of memory."""
        if self._retry is None and not self._fd.closed:
            self._retry = asyncio.get_running_loop().call_later(0.5, self._rested)
            log.warning("no memory for what an interpreter says: it waits")
            self._watch()

    def _rested(self) -> None:
        self._retry = None
        try:
            self._hand_on()  # even where nothing more comes
        except MemoryError:
            self._rest()
        self._watch()

    def drain(self, most: int = MAX_LEFT) -> None:
        """Take what the other end has sent by now, reading or not.

        Args:
            most: packets; a sender that lives on may go on.
        """
        try:
            for _ in range(most):
                if self._fd.closed or not self._read():
                    return
        except MemoryError:
            self._rest()

    def _read(self) -> bool:
        """Take one packet; whether there was one.

        Raises:
            MemoryError: there is none for it, or for a message that waits for some.
        """
        self._hand_on()
        try:
            packet = os.read(self._fd.number, KEY_BYTES + 1 + CHUNK_BYTES)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # told once: the other end has left something unread
            return True  # what it has sent is there all the same, then the end
        if packet.startswith(self.key):
            self._take(packet[KEY_BYTES : KEY_BYTES + 1], packet[KEY_BYTES + 1 :])
        elif not packet and self._hung_up():
            self._end("")
        return True

    def _take(self, mark: bytes, chunk: bytes) -> None:
        self._parts.append(chunk)
        self._got_bytes += len(chunk)
        if self._got_bytes > self._max_bytes:
            self._end(f"sends more than {self._max_bytes} bytes at once")
        elif mark == LAST:
            self._is_whole = True
            self._hand_on()

    def _hand_on(self) -> None:
        """Hand a message on, if one is whole; for want of memory it waits, before all others."""
        if not self._is_whole or self._fd.closed:
            return
        parts, self._parts = self._parts, []
        got_bytes, self._got_bytes = self._got_bytes, 0
        self._is_whole = False
        try:
            self._on_message(b"".join(parts))
        except MemoryError:
            self._parts, self._got_bytes, self._is_whole = parts, got_bytes, True
            raise

    def _hung_up(self) -> bool:
        """Whether nothing read means the end, and not an empty packet."""
        poll = select.poll()
        poll.register(self._fd.number, select.POLLRDHUP | select.POLLHUP)
        return bool(poll.poll(0))

    def _end(self, reason: str) -> None:
        on_end = self._on_end
        self.close()
        on_end(reason)

    def close(self) -> None:
        """Close our end, without `on_end`."""
        if not self._fd.closed:
            self.pause()
            if self._retry is not None:
                self._retry.cancel()
            self._loop.remove_writer(self._fd.number)
            self._fd.close()
            self._on_message = self._on_end = _nothing


def _nothing(*_: object) -> None:
    """What a closed channel calls."""
