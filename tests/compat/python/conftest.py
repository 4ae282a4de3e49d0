"""One daemon for each module, and the SDK of both flavours for each test."""

import gc
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.compat.python.sdk import AsyncSdk, Sdk, SyncSdk, value
from tests.daemon.daemon import Daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon; when the module's tests are over it must hold nothing that they brought about.

    What its login shells read at their start lets a session end before it has begun.
    """
    home = tmp_path_factory.mktemp("home")
    for profile in (".profile", ".zprofile"):
        (home / profile).write_text('[ -z "$EXIT_AT_ONCE" ] || exit "$EXIT_AT_ONCE"\n')
    (home / ".zshrc").touch()  # zsh would greet a new user
    with Daemon.start(env={"HOME": str(home)}, cwd=str(tmp_path_factory.mktemp("work"))) as daemon:
        idle = daemon.idle_descriptors()
        yield daemon
        gc.collect()  # an error that the synchronous SDK raised keeps its connection open
        assert daemon.leaks(idle) == []
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.stderr()


@pytest.fixture(params=["sync", "async"])
async def sdk(request: pytest.FixtureRequest, daemon: Daemon) -> AsyncIterator[Sdk]:
    """The SDK, either flavour; a failing test's terminals are not left to the next one."""
    sdk: Sdk = SyncSdk.at(daemon.url) if request.param == "sync" else AsyncSdk.at(daemon.url)
    yield sdk
    for info in await value(sdk.process.list_pty_sessions()):
        await value(sdk.process.kill_pty_session(info.id))
    await sdk.aclose()
