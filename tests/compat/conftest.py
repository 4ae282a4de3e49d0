"""The checks of this process and of its loop stand back: clients bring threads of their own."""

from pathlib import Path

import pytest

from tests.compat.node import installed_packages, needed


@pytest.fixture(autouse=True)
def settled() -> None:
    """In place of the check of this process: an SDK keeps threads and pools of connections.

    The daemon is checked instead, at the end of each module.
    """


@pytest.fixture(autouse=True)
def no_blocking() -> None:
    """In place of the check of this loop: the SDK may block it; no procd runs in it."""


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The packages of tests/compat/ts."""
    return installed_packages()


@pytest.fixture(scope="session")
def node() -> str:
    return needed("node")
