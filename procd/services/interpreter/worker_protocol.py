"""The protocol between procd and an interpreter process: its socket and its messages.

The user's code can write to any descriptor of its process. A sequenced-packet socket keeps packets
apart, so one without the key is dropped and damages no other. A message is one packet or more;
flags mark the first and the last. The user's code can find the key, so messages are checked.

Source: unix(7), SOCK_SEQPACKET.
"""

import asyncio
import json
import os
import secrets
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from procd.unix.fd import own_fds, refuse_passed_fds

KEY_BYTES: Final = 16
CHUNK_BYTES: Final = 32 << 10
MAX_MESSAGE_BYTES: Final = 8 << 20
FIRST: Final = 1
LAST: Final = 2
# Packets read in one turn of the event loop, so that other descriptors get their turn.
PACKETS_PER_TURN: Final = 64
# Keys of the objects in a message.
ERROR: Final = {"name", "value", "traceback"}
VARIABLE: Final = {"name", "type", "repr"}
# worker/displays.py keeps a frame below 1 MiB.
MAX_BUNDLE_BYTES: Final = 1 << 20


class Channel:
    """procd's end of the socket; `theirs` is for the child. Raises OSError.

    `on_end` is called once, with the reason if a message is too long.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[bytes], None],
        on_end: Callable[[str], None],
    ) -> None:
        ours, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        )
        refuse_passed_fds(ours)
        self._fd, self.theirs = own_fds(ours.detach(), theirs.detach())
        os.set_blocking(self._fd.number, False)
        self.key = secrets.token_bytes(KEY_BYTES)
        self._loop = loop
        self._on_message = on_message
        self._on_end = on_end
        self._received = bytearray()
        self._unsent: deque[bytes] = deque()
        loop.add_reader(self._fd.number, self.drain, PACKETS_PER_TURN)

    @property
    def unsent_bytes(self) -> int:
        return sum(map(len, self._unsent))

    def send(self, message: bytes) -> None:
        """Send a message; what does not fit into the socket waits. The caller limits how much."""
        if self._fd.closed:
            return
        was_empty = not self._unsent
        for start in range(0, len(message), CHUNK_BYTES):
            flags = (start == 0) * FIRST + (start + CHUNK_BYTES >= len(message)) * LAST
            self._unsent.append(bytes((flags,)) + message[start : start + CHUNK_BYTES])
        if was_empty:
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            try:
                os.write(self._fd.number, self._unsent[0])
            except BlockingIOError:
                self._loop.add_writer(self._fd.number, self._flush)
                return
            except (BrokenPipeError, ConnectionResetError):
                self._unsent.clear()  # the end of the channel is about to be read
            else:
                self._unsent.popleft()
        self._loop.remove_writer(self._fd.number)

    def drain(self, max_packets: int = 10_000) -> None:  # more than the socket's buffer holds
        for _ in range(max_packets):
            if self._fd.closed or not self._read_packet():
                return

    def _read_packet(self) -> bool:  # whether there was one
        try:
            packet = os.read(self._fd.number, KEY_BYTES + 1 + CHUNK_BYTES)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # reported once, if the child has ended with a packet unread
            return True
        if not packet:
            self.close()
            self._on_end("")
        elif packet.startswith(self.key) and len(packet) > KEY_BYTES:
            flags = packet[KEY_BYTES]
            if flags & FIRST:
                self._received.clear()  # an interrupt of the user's code can break a message off
            self._received += packet[KEY_BYTES + 1 :]
            if len(self._received) > MAX_MESSAGE_BYTES:
                self.close()
                self._on_end(f"sends a message of more than {MAX_MESSAGE_BYTES} bytes")
            elif flags & LAST:
                message = bytes(self._received)
                self._received.clear()
                self._on_message(message)
        return True

    def close(self) -> None:
        """Close procd's end, without `on_end`."""
        if not self._fd.closed:
            self._loop.remove_reader(self._fd.number)
            self._loop.remove_writer(self._fd.number)
            self._fd.close()


Texts = dict[str, str]


class NonsenseError(ValueError):
    """A message that the worker never sends."""


class Begun(NamedTuple):
    """The code has begun: an interrupt from now on is for this code."""


class Reply(NamedTuple):
    """The answer to a request.

    `error` has the name, value and traceback of an exception; `variables`, if they were asked for,
    the name, type and repr of each.
    """

    error: Texts | None
    variables: list[Texts] | None


class Display(NamedTuple):
    """A value that a cell displays: its number, to be confirmed, and JSON by MIME type."""

    number: int
    bundle: bytes


def parse(data: bytes, request: int) -> Begun | Reply | Display:
    """Parse a message about the request of this number; raises NonsenseError."""
    try:
        match json.loads(data):
            case {"op": "begun", "id": int(number)} if number == request:
                return Begun()
            case {"op": "done", "id": int(number), "error": error, **rest} if number == request:
                variables: Any = rest.get("variables")
                return Reply(
                    None if error is None else _texts(error, ERROR),
                    None if variables is None else [_texts(each, VARIABLE) for each in variables],
                )
            case {"op": "result", "id": int(number), "data": dict(bundle)}:
                encoded = json.dumps(bundle, allow_nan=False, separators=(",", ":")).encode()
                if len(encoded) <= MAX_BUNDLE_BYTES:
                    return Display(number, encoded)
            case _:
                pass
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise NonsenseError(str(exc)) from exc
    raise NonsenseError("unknown message")


def _texts(document: Any, names: set[str]) -> Texts:
    if document.keys() != names:
        raise NonsenseError(f"not an object of {', '.join(sorted(names))}")
    for text in document.values():
        str.encode(text)
    return dict(document)
