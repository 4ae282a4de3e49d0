"""The output of a session's command, followed over lost connections.

Source: Process API contract, section 9.1; docs/wire.md, "A command's output".
"""

import json
import time
from typing import Final, NamedTuple

from procd.cli.failure import Unreachable
from procd.cli.stdio import STDERR
from procd.cli.transport import Client, query
from procd.cli.websocket import TEXT, Message, WebSocket

LABEL_BYTES: Final = 3
# How long to look for a lost server; the pause between two attempts; and how long a connection has
# to last for the server to be found. That is more than the longest attempt.
LOST_S: Final = 30.0
RETRY_S: Final = 0.25
STEADY_S: Final = 15.0


class LogChunk(NamedTuple):
    """A piece of output.

    Attributes:
        stream: descriptor that it was written to, 1 or 2.
        gap_bytes: size of the output before it that the server no longer has.
    """

    stream: int
    data: bytes
    gap_bytes: int = 0


class LogStream:
    """Follows the output from an offset on.

    Attributes:
        websocket: the connection; None before `connect`, and after it is lost or complete.
        offset: where the next chunk begins.
        complete: whether all output has been received.
    """

    def __init__(self, client: Client, path: str, offset: int = 0, *, follow: bool = True) -> None:
        self._client = client
        self._path = f"{path}/logs"
        self._follow = "true" if follow else None
        self.websocket: WebSocket | None = None
        self.offset = offset
        self.complete = False

    def connect(self) -> None:
        """Open the connection at the offset.

        Raises:
            Refused, Unreachable: as `Client.call`.
        """
        path = self._path + query(follow=self._follow, offset=self.offset)
        self.websocket = self._client.websocket(path, headers={"X-Daytona-Split-Output": "true"})

    def receive(self) -> list[LogChunk]:
        """Return the chunks that have arrived.

        Raises:
            Unreachable: the connection is lost, and closed.
        """
        websocket = self.websocket
        if websocket is None:
            return []
        try:
            if websocket.closed is not None:
                raise Unreachable(f"the server closed the output: {websocket.closed.reason}")
            chunks = [self._chunk(message) for message in websocket.receive()]
        except Unreachable:
            self.close()
            raise
        if websocket.closed is not None and websocket.closed.code == 1000:
            self.complete = True
            self.close()
        return chunks

    def _chunk(self, message: Message) -> LogChunk:
        start = self.offset
        if message.opcode == TEXT:
            self.offset = int(json.loads(message.payload)["firstAvailableOffset"])
            return LogChunk(STDERR, b"", self.offset - start)
        data = message.payload[LABEL_BYTES:]
        self.offset += len(data)
        return LogChunk(message.payload[0], data)

    def close(self) -> None:
        """Close the connection."""
        if self.websocket is not None:
            self.websocket.close()
            self.websocket = None


class Reconnect:
    """When to connect to a lost server again, and when to give up.

    Attributes:
        retry_at: time of the next attempt, by the monotonic clock.
    """

    def __init__(self) -> None:
        self._lost_at = 0.0
        self._failed_at = -STEADY_S
        self.retry_at = 0.0

    def failed(self) -> bool:
        """Note a failed attempt or a lost connection; returns whether to give up."""
        now = time.monotonic()
        if now - self._failed_at > STEADY_S:
            self._lost_at = now
        self._failed_at = now
        self.retry_at = now + RETRY_S
        return now - self._lost_at > LOST_S
