"""The checks of this process and of its loop stand back: clients bring threads of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx_ws import WebSocketSession

from tests.compat.node import installed_packages, needed
from tests.compat.patience import receive_patiently


@pytest.fixture(autouse=True)
def settled() -> None:
    """In place of the check of this process: an SDK keeps threads and pools of connections.

    The daemon is checked instead, at the end of each module.
    """


@pytest.fixture(autouse=True)
def no_blocking() -> None:
    """In place of the check of this loop: the SDK may block it; no procd runs in it."""


@pytest.fixture(autouse=True, scope="session")
def patient_handshake() -> Iterator[None]:
    """Let the synchronous SDK wait for a terminal's handshake as long as it means to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WebSocketSession, "receive", receive_patiently)
        yield


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The packages of tests/compat/ts."""
    return installed_packages()


@pytest.fixture(scope="session")
def node() -> str:
    return needed("node")
