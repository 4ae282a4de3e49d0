"""Daemons for a test, and a client to talk to them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp
import pytest
import uvloop

from tests.daemon.daemon import Daemon, Watch

Start = Callable[..., Daemon]


@pytest.fixture(autouse=True)
def settled() -> None:
    """In place of the check of this process: what is tested runs in another one."""


@pytest.fixture(autouse=True)
def no_blocking() -> None:
    """In place of the check of this loop: procd's code runs in another process."""


@pytest.fixture
async def start(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Start]:
    """Start daemons on the kind of event loop that the test runs on; they are gone after it.

    Their home is empty: what a login shell would read there is the machine's affair.
    """
    home = str(tmp_path_factory.mktemp("home"))
    uses_uvloop = isinstance(asyncio.get_running_loop(), uvloop.Loop)
    started: list[Daemon] = []

    def make(*arguments: str, env: dict[str, str] | None = None, **options: object) -> Daemon:
        settings = {"PROCD_SERVER_LOOP": "uvloop" if uses_uvloop else "asyncio", "HOME": home}
        settings |= env or {}
        daemon = Daemon.start(*arguments, env=settings, **options)  # type: ignore[arg-type]  # as Daemon.start
        started.append(daemon)
        return daemon

    yield make
    for daemon in started:
        daemon.discard()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that gives every request a connection of its own, as it leaves none behind."""
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.fixture
def watch() -> Iterator[Callable[[list[int]], Watch]]:
    """Hold processes of the machine by pidfd; whoever is left after the test is killed."""
    watches: list[Watch] = []

    def make(pids: list[int]) -> Watch:
        watches.append(Watch(pids))
        return watches[-1]

    yield make
    for each in watches:
        each.close()
