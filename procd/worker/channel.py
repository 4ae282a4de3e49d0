"""The socket between the interpreter and procd.

Messages of procd are in the format of `marshal`; those of this process, which runs other people's
code, are JSON. Their packets: see procd's end, `services/interpreter/worker_protocol.py`.
"""

from __future__ import annotations

from marshal import loads
from os import _exit as exit_at_once
from os import close, read, write
from select import select

from .isolation import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from typing import Any

CHUNK_BYTES = 32 << 10
FIRST = 1
LAST = 2


class Channel:
    def __init__(self, number: int) -> None:
        self._number = number
        self.key = b""  # what every packet begins with

    def is_quiet(self, seconds: float) -> bool:
        """Return whether nothing comes for so long."""
        return not select([self._number], [], [], seconds)[0]

    def receive(self) -> dict[str, Any]:
        """Wait for a message; exit when procd has closed its end."""
        chunks = []
        while True:
            packet = read(self._number, CHUNK_BYTES + 1)
            if not packet:
                exit_at_once(0)
            chunks.append(packet[1:])
            if packet[0] & LAST:
                message: dict[str, Any] = loads(b"".join(chunks))  # noqa: S302 - procd's own
                return message

    def send(self, message: str) -> None:
        """Send a JSON document. If an interrupt breaks that off, procd drops what has come."""
        data = message.encode()
        for start in range(0, len(data), CHUNK_BYTES):
            flags = (start == 0) * FIRST + (start + CHUNK_BYTES >= len(data)) * LAST
            write(self._number, self.key + bytes((flags,)) + data[start : start + CHUNK_BYTES])

    def close(self) -> None:
        """Close it in a forked child: it is the parent's."""
        close(self._number)
