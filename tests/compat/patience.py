"""The synchronous SDK's wait for a terminal's handshake, for as long as it means to wait.

It looks for the message every 100 ms, and expects a TimeoutError where it gets queue.Empty, which
fails the call. A busy machine takes 100 ms now and then.

`python -m tests.compat.patience PROGRAM` runs a program that uses it.
"""

import queue
import runpy
import sys
from typing import Any

from httpx_ws import WebSocketSession

_receive = WebSocketSession.receive


class NoMessage(queue.Empty, TimeoutError):
    """What the SDK catches in one place, and what it catches in another."""


def receive_patiently(self: WebSocketSession, timeout: float | None = None) -> Any:
    """`WebSocketSession.receive`, with an error that the SDK expects."""
    try:
        return _receive(self, timeout)
    except queue.Empty as exc:
        raise NoMessage from exc


if __name__ == "__main__":
    WebSocketSession.receive = receive_patiently  # type: ignore[method-assign]  # see above
    runpy.run_path(sys.argv[1], run_name="__main__")
