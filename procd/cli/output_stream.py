"""Output followed over WebSockets. Source: Process API contract, 9.1 and 10; docs/wire.md."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from procd.cli.failure import Failure, Unreachable
from procd.cli.stdio import STDERR
from procd.cli.transport import Client, query
from procd.cli.websocket import TEXT, Message, WebSocket

LABEL_BYTES: Final = 3
# How long to look for a lost server; the pause between two attempts; and how long a connection has
# to last for the server to be found. That is more than the longest attempt.
LOST_S: Final = 30.0
RETRY_S: Final = 0.25
STEADY_S: Final = 15.0
# Subprotocols of terminals; the second is docs/wire.md's.
EXIT_TOKEN: Final = "X-Daytona-Pty-Exit-Control"  # noqa: S105 - no secret
ENVS_TOKEN: Final = "X-Daytona-Pty-Envs~"  # noqa: S105 - no secret
PROTOCOLS: Final = (EXIT_TOKEN, "procd.pty.v1")
# Less than the smallest window that a server can be set to.
ACK_BYTES: Final = 16 << 10


class LogChunk(NamedTuple):
    """Output of descriptor 1 or 2; `gap_bytes` before it are no longer on the server."""

    stream: int
    data: bytes
    gap_bytes: int = 0


class LogStream:
    """Follows the output from an offset on.

    `websocket` is None before `connect`, and after the connection is lost or the output complete.
    """

    def __init__(self, client: Client, path: str, offset: int = 0, *, follow: bool = True) -> None:
        self._client = client
        self._path = f"{path}/logs"
        self._follow = "true" if follow else None
        self.websocket: WebSocket | None = None
        self.offset = offset
        self.complete = False

    def connect(self) -> None:
        path = self._path + query(follow=self._follow, offset=self.offset)
        self.websocket = self._client.websocket(path, headers={"X-Daytona-Split-Output": "true"})

    def receive(self) -> list[LogChunk]:
        """Return the chunks that have arrived; if the connection is lost, close it and raise."""
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
        if self.websocket is not None:
            self.websocket.close()
            self.websocket = None


class PtyStream:
    """A connection to a terminal: counts the output and acknowledges it, as procd.pty.v1 asks.

    `offset` is where the output goes on; None before all of a replay has come.
    """

    def __init__(self, websocket: WebSocket, offset: int | None = None) -> None:
        self.websocket = websocket
        self.offset = offset
        self._replay_bytes = 0
        self._live_offset = 0
        self._acknowledged: int | None = None  # None while the server expects nothing

    def receive(self) -> Iterator[Mapping[str, Any] | bytes]:
        """Yield the control messages and the pieces of output that have arrived."""
        for message in self.websocket.receive():
            if message.opcode != TEXT:
                yield message.payload
                self._count(len(message.payload))
                continue
            control = json.loads(message.payload)
            status = control.get("status")
            if status == "error":
                raise Failure(str(control.get("error") or "the server refuses the terminal"))
            yield control
            if status == "connected":
                self._start(control)
            elif status == "presence" and self._acknowledged is None:
                self._acknowledged = self._live_offset
        self._acknowledge()

    def _start(self, connected: Mapping[str, Any]) -> None:
        self.offset = None
        self._acknowledged = None
        self._replay_bytes = int(connected.get("replayBytes", 0))
        self._live_offset = int(connected.get("liveOffset", connected.get("offset", 0)))
        self._count(0)

    def _count(self, size: int) -> None:
        if self.offset is not None:
            self.offset += size
            return
        self._replay_bytes -= size
        if self._replay_bytes <= 0:
            self.offset = self._live_offset - self._replay_bytes

    def _acknowledge(self) -> None:
        if self._acknowledged is None or self.offset is None:
            return
        if self.offset - self._acknowledged >= ACK_BYTES:
            self._acknowledged = self.offset
            ack = {"type": "ack", "offset": self.offset}
            self.websocket.send(json.dumps(ack).encode(), TEXT)


class Reconnect:
    """When to connect to a lost server again (`retry_at`), and to give up (after `limit_s`)."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
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
        return now - self._lost_at >= self._limit_s
