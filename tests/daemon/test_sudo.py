"""Programs that become root, as `sudo` does, where procd isn't: they alone can end what they start.

`sudo` needs a configuration of the system, so bash with the set-user-ID bit stands in for it.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.daemon.conftest import Start
from tests.daemon.daemon import PATIENCE_S, PROCD, Daemon, eventually

BASH: Final = shutil.which("bash")
USER: Final = "54321"
AS_USER: Final = (
    "setpriv",
    f"--reuid={USER}",
    f"--regid={USER}",
    "--clear-groups",
    "--inh-caps=-all",
)
AS_ROOT: Final = "setpriv --reuid=0 --regid=0 --clear-groups"
# It starts a program as root, passes SIGTERM on, as sudo does, and says who that is when it can.
PASSING: Final = f'{AS_ROOT} "$@" & trap "kill $!" TERM; echo $!; wait; wait'
# It doesn't, and tells that it was asked.
DEAF: Final = 'trap "echo asked" TERM; echo $$; while :; do wait; sleep 0.05; done'

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or BASH is None or shutil.which("setpriv") is None,
    reason="only root can become another user and give a program its own rights",
)


@pytest.fixture
def sudo() -> Iterator[str]:
    """The path of a shell that runs as root, whoever starts it with -p."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        shell = Path(place) / "sudo"
        assert BASH is not None
        shutil.copyfile(BASH, shell)
        shell.chmod(0o4755)
        said = subprocess.run([*AS_USER, shell, "-p", "-c", "echo $EUID"], capture_output=True)
        if said.stdout != b"0\n":
            pytest.skip("programs can't change the user here")
        yield str(shell)


@pytest.fixture
def procd(start: Start, sudo: str) -> Daemon:
    """One that isn't root, with the commands `passing` and `deaf` of root's."""
    if subprocess.run([*AS_USER, *PROCD, "--version"], capture_output=True).returncode != 0:
        pytest.skip("this Python is root's alone")
    place = Path(sudo).parent
    for name, script in (("passing", PASSING), ("deaf", DEAF)):
        program = place / name
        program.write_text(f"#!/bin/sh\nexec {sudo} -p -c '{script}' {name} \"$@\"\n")
        program.chmod(0o755)
    path = f"{place}:{os.environ['PATH']}"
    env = {"HOME": "/", "PATH": path, "PROCD_PROCESS_SHELL": str(BASH)}
    return start(command=(*AS_USER, *PROCD), env=env, cwd="/")


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] not in b"ZX"


@pytest.mark.parametrize("command", ["exec passing sleep 1000", "passing sleep 1000; echo no"])
async def test_time_is_up(procd: Daemon, http: aiohttp.ClientSession, command: str) -> None:
    """Answered at once, and what runs as root ends, too."""
    body = {"command": command, "timeout": 3}
    async with http.post(f"{procd.url}/process/execute", json=body) as reply:
        assert reply.status == 408
        pid = int((await reply.json())["result"])
    assert eventually(lambda: not is_running(pid))
    assert "not ours to signal" not in procd.stderr()


async def test_process_that_sudo_leaves_behind(procd: Daemon, http: aiohttp.ClientSession) -> None:
    """What the program as root has started goes on. It is named, and not waited for."""
    body = {"command": "passing sh -c 'sleep 1000 & echo sleep=$!; wait'", "timeout": 3}
    async with http.post(f"{procd.url}/process/execute", json=body) as reply:
        assert reply.status == 408
        # `passing` writes a number as well, before or after this one.
        pid = int((await reply.json())["result"].partition("sleep=")[2].split()[0])
    try:
        assert eventually(lambda: f"process {pid} is not ours to signal" in procd.stderr())
    finally:
        os.kill(pid, signal.SIGKILL)


async def test_time_is_up_in_a_session(procd: Daemon, http: aiohttp.ClientSession) -> None:
    """The session stays."""
    async with http.post(f"{procd.url}/process/session", json={"sessionId": "a"}) as reply:
        assert reply.status == 201
    body = {"command": "passing sleep 1000; echo no", "timeout": 3}
    async with http.post(f"{procd.url}/process/session/a/exec", json=body) as reply:
        assert reply.status == 408
        pid = int((await reply.json())["output"])
    assert eventually(lambda: not is_running(pid))
    async with http.post(f"{procd.url}/process/session/a/exec", json={"command": "true"}) as reply:
        assert (await reply.json())["exitCode"] == 0


async def test_the_client_is_gone(procd: Daemon, http: aiohttp.ClientSession, sudo: str) -> None:
    said = await leave(procd, http, "passing sleep 1000", sudo)
    pid = int(said.read_text())
    assert eventually(lambda: not is_running(pid))


async def test_who_does_not_end_is_killed(
    procd: Daemon, http: aiohttp.ClientSession, sudo: str
) -> None:
    """It has been asked, and had a second for it."""
    said = await leave(procd, http, "deaf", sudo)
    pid = int(said.read_text().split()[0])
    assert eventually(lambda: not is_running(pid))
    assert said.read_text() == f"{pid}\nasked\n"


async def test_procd_ends(procd: Daemon, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(f"{procd.url}/process/interpreter/execute") as ws:
        code = "import subprocess; subprocess.run(['passing', 'sleep', '1000'])"
        await ws.send_json({"code": code})
        pid = int((await ws.receive_json(timeout=PATIENCE_S))["text"])
        assert procd.stop(within_s=PATIENCE_S) == 0
    assert eventually(lambda: not is_running(pid))


async def leave(procd: Daemon, http: aiohttp.ClientSession, command: str, sudo: str) -> Path:
    """Disconnect from a command when it has said something; where it is to be read."""
    said = Path(sudo).parent / "said"
    said.touch()
    said.chmod(0o666)
    body = {"command": f"{command} >{said}", "timeout": 0}
    asking = asyncio.ensure_future(http.post(f"{procd.url}/process/execute", json=body))
    while not said.read_bytes():
        await asyncio.sleep(0.01)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    return said
