"""Fixtures of the API tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.access import Secrets
from tests.api.clients import Fifo, Gate
from tests.api.sessions import SHELLS


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Fifo]:
    """A FIFO that a program's processes inherit: it ends when the last of them has."""
    with Fifo(tmp_path / "alive") as fifo:
        yield fifo


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A FIFO that programs wait at."""
    with Gate(tmp_path / "gate") as gate:
        yield gate


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    """A token of each scope."""
    return Secrets(tmp_path / "tokens")


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each shell that a session may have."""
    path = SHELLS[request.param]
    if not os.access(path, os.X_OK):
        pytest.skip(f"{request.param} is not installed")
    if request.param == "busybox":
        (tmp_path / "sh").symlink_to(path)
        return str(tmp_path / "sh")
    return path
