"""The socket between the interpreter and procd.

What comes from procd is in the form of `marshal`, which trusts who has made it. What goes to it is
JSON, since it comes from a process that anybody's code runs in.
"""

from __future__ import annotations

from _socket import MSG_PEEK, socket, timeout  # without the 1 MiB that the module around it costs
from marshal import loads
from os import _exit as exit_at_once

from .own import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there

TYPE_CHECKING = False  # typing costs as much
if TYPE_CHECKING:
    from typing import Any

CHUNK_BYTES = 32 << 10
LAST = b"."[0]


class Channel:
    """Our end.

    Raises:
        OSError: the user's code has destroyed it.
    """

    def __init__(self, number: int) -> None:
        self._socket = socket(fileno=number)
        self._key = b""
        # Made now, since there may be no memory for it when the user's code has used it up.
        self._packet = bytearray(CHUNK_BYTES + 1)

    def is_quiet(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(1, MSG_PEEK)
        except timeout:
            return True
        finally:
            self._socket.settimeout(None)
        return False

    def receive(self) -> dict[str, Any]:
        """The next message; procd's end is ours."""
        parts = []
        while True:
            size = self._patiently(self._socket.recv_into, self._packet)
            if not size:
                exit_at_once(0)
            parts.append(self._packet[1:size])
            if self._packet[0] == LAST:
                message: dict[str, Any] = loads(b"".join(parts))  # noqa: S302 - procd's own
                return message

    def send(self, message: str) -> None:
        """Send a JSON document."""
        data = message.encode()
        for start in range(0, len(data), CHUNK_BYTES):
            more = b"+" if start + CHUNK_BYTES < len(data) else b"."
            chunk = data[start : start + CHUNK_BYTES]
            self._patiently(self._socket.send, self._key + more + chunk)

    def use(self, key: bytes) -> None:
        """Begin every message with `key`."""
        self._key = key

    def _patiently(self, call: Any, argument: Any) -> Any:
        try:
            return call(argument)
        except BlockingIOError:  # somebody has made all descriptors non-blocking
            self._socket.setblocking(True)  # noqa: FBT003 - the signature is socket's
            return call(argument)

    def close(self) -> None:
        """Leave it to the parent."""
        self._socket.close()
