"""Descriptors for the tests, and what waits for them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from procd.unix.fd import OwnedFd, pipe
from procd.unix.poller import Poller


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """End what a test leaves."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def ends(closing: ExitStack) -> tuple[OwnedFd, OwnedFd]:
    """A pipe."""
    reading, writing = pipe()
    closing.callback(reading.close)
    closing.callback(writing.close)
    return reading, writing


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    made = Poller(asyncio.get_running_loop())
    yield made
    made.close()
