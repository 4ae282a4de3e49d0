"""Fixtures of the API tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.access import Secrets
from tests.api.clients import Fifo, Gate


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
