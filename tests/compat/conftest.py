"""The checks of this process and of its loop stand back: clients bring threads of their own."""

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx_ws import WebSocketSession

from tests.compat.node import installed_packages, needed


@pytest.fixture(autouse=True)
def settled() -> None:
    """In place of the check of this process: an SDK keeps threads and pools of connections.

    The daemon is checked instead, at the end of each module.
    """


@pytest.fixture(autouse=True)
def no_blocking() -> None:
    """In place of the check of this loop: the SDK may block it; no procd runs in it."""


class NoMessage(queue.Empty, TimeoutError):
    """What the SDK catches in one place, and what it catches in another."""


@pytest.fixture(autouse=True, scope="session")
def patient_handshake() -> Iterator[None]:
    """Let the synchronous SDK wait for a terminal's handshake as long as it means to.

    It looks for the message every 100 ms, and expects a TimeoutError where it gets queue.Empty,
    which fails the call. A busy machine takes 100 ms now and then.
    """
    receive = WebSocketSession.receive

    def wait(self: WebSocketSession, timeout: float | None = None) -> Any:
        try:
            return receive(self, timeout)
        except queue.Empty as exc:
            raise NoMessage from exc

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WebSocketSession, "receive", wait)
        yield


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The packages of tests/compat/ts."""
    return installed_packages()


@pytest.fixture(scope="session")
def node() -> str:
    return needed("node")
