"""A file system that doesn't answer keeps those who ask it, and nobody else."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.daemon.conftest import Start
from tests.daemon.daemon import PATIENCE_S, Daemon
from tests.daemon.stalled import stalled_at
from tests.passable import let_pass

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")

USERS = ("", "54321") if shutil.which("setpriv") else ("",)


@pytest.fixture
def stalled(tmp_path: Path) -> Iterator[Path]:
    """Where it is, and everybody may go there."""
    let_pass(tmp_path)
    place = tmp_path / "stalled"
    place.mkdir()
    with stalled_at(place):
        yield place


@pytest.fixture(params=USERS)
def daemon(start: Start, request: pytest.FixtureRequest) -> Daemon:
    """One whose processes are its own user's, or another's."""
    return start(env={"PROCD_PROCESS_USER": request.param}, cwd="/")


async def post(
    http: aiohttp.ClientSession, daemon: Daemon, path: str, **body: object
) -> dict[str, object]:
    """Ask procd for something, which it answers."""
    timeout = aiohttp.ClientTimeout(PATIENCE_S)
    async with http.post(f"{daemon.url}/process/{path}", json=body, timeout=timeout) as reply:
        answer: dict[str, object] = await reply.json(content_type=None)
        return answer


async def test_what_a_shell_has_open_there(
    daemon: Daemon, http: aiohttp.ClientSession, stalled: Path
) -> None:
    await post(http, daemon, "session", sessionId="s")
    # While something of it goes on its end is looked for among what the shell has open.
    command = f"exec 5<{stalled}; sleep 1000 & echo $?"
    assert (await post(http, daemon, "session/s/exec", command=command))["output"] == "0\n"
    assert (await post(http, daemon, "session/s/exec", command="(exit 3)"))["exitCode"] == 3
    assert (await post(http, daemon, "execute", command="(exit 4)"))["exitCode"] == 4
    assert daemon.stop() == 0


async def test_a_working_directory_there(
    daemon: Daemon, http: aiohttp.ClientSession, stalled: Path
) -> None:
    """Who is to go there waits, until its time is up."""
    for cwd in (f"{stalled}", f"{stalled}/x", f"{stalled.parent}/./{stalled.name}", f"/{stalled}"):
        body = await post(http, daemon, "execute", command="true", cwd=cwd, timeout=1)
        assert body.get("code") == "PROCESS_EXECUTION_TIMEOUT", body
    nowhere = {"language": "typescript", "code": "1", "envs": {"PATH": "/none"}}
    body = await post(http, daemon, "code-run", cwd=f"{stalled}/x", **nowhere)
    assert body.get("exitCode") == 127, body
    assert (await post(http, daemon, "execute", command="(exit 4)"))["exitCode"] == 4
    assert daemon.stop() == 0
