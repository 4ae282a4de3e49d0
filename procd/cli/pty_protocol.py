"""The client's side of procd.pty.v1, by which the server tells more than a terminal's output.

With it the server says who is attached, reports each change of the size, and sends no more than the
client acknowledges.

Source: docs/wire.md; Process API contract, section 10.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from procd.cli.websocket import TEXT, WebSocket

EXIT_TOKEN: Final = "X-Daytona-Pty-Exit-Control"  # noqa: S105 - no secret
ENVS_TOKEN: Final = "X-Daytona-Pty-Envs~"  # noqa: S105 - no secret
PROTOCOLS: Final = (EXIT_TOKEN, "procd.pty.v1")
# Less than the smallest window that a server can be set to.
ACK_BYTES: Final = 16 << 10


class OutputPosition:
    """How much of the output has been received.

    Attributes:
        offset: where the output goes on; None before all of a replay has come.
    """

    def __init__(self) -> None:
        self.offset: int | None = None
        self._replay_bytes = 0
        self._live_offset = 0
        self._acknowledged: int | None = None  # None while the server expects nothing

    def start(self, connected: Mapping[str, Any]) -> None:
        """Begin where the message `connected` says: with a replay, or at an offset."""
        self.offset = None
        self._acknowledged = None
        self._replay_bytes = int(connected.get("replayBytes", 0))
        self._live_offset = int(connected.get("liveOffset", connected.get("offset", 0)))
        self.advance(0)

    def advance(self, size: int) -> None:
        """Count output that was received."""
        if self.offset is not None:
            self.offset += size
            return
        self._replay_bytes -= size
        if self._replay_bytes <= 0:
            self.offset = self._live_offset - self._replay_bytes

    def expect_acknowledgements(self) -> None:
        """Begin to acknowledge: the server has said `presence`, and so speaks the protocol."""
        if self._acknowledged is None:
            self._acknowledged = self._live_offset

    def acknowledge(self, websocket: WebSocket) -> None:
        """Acknowledge what was received since the last time, if it is enough.

        Raises:
            Unreachable: the connection is lost.
        """
        if self._acknowledged is None or self.offset is None:
            return
        if self.offset - self._acknowledged >= ACK_BYTES:
            self._acknowledged = self.offset
            websocket.send(json.dumps({"type": "ack", "offset": self.offset}).encode(), TEXT)
